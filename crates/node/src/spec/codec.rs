//! `[codec]`: encodings by class of traffic, and which of them the arena decides.

use std::fmt;
use std::str::FromStr;

use codec::CodecId;
use model::config::{Cut, Dtype, ModelConfig};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use swarm::record::LossyBounds;
use swarm::spec::MergeWire;
use wire::Direction;

use super::RunSpec;
use crate::limits;

/// Before the name of a competition.
const ARENA: &str = "arena:";
/// Longest name of a competition, bytes.
const COMPETITION_BYTES: usize = 64;

/// `[codec]`: encodings by class of traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CodecSpec {
    /// Activations, after the cut.
    pub activations: FrameCodec,
    /// Their gradients.
    pub gradients: FrameCodec,
    /// Pseudo-gradients and merged results on their way.
    pub pseudo_gradients: TensorCodec,
    /// Weights and outer momentum on their way to the keeper, to validators and to late joiners.
    pub weights: TensorCodec,
    /// Precision of pseudo-gradients.
    pub merge: MergeCodec,
    /// With `arena:`: what tensors cross by before the champion is in force, and whenever it fails. None: huffman.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub built_in: Option<TensorCodec>,
    /// What a champion may do that does not give back every bit.
    #[serde(skip_serializing_if = "LossySpec::is_default")]
    pub lossy: LossySpec,
}

/// `[codec.lossy]`: what a lossy champion may carry, and what each of its tensors keeps to.
///
/// Tensors that are further off cross by the built-in codec. x: the tensor; y: what comes back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossySpec {
    /// Whether activations may cross by it.
    pub activations: bool,
    /// Whether their gradients may.
    pub gradients: bool,
    /// Least cosine(x, y) · (1 − ‖x − y‖ / ‖x‖), from 0.5 to 1.
    pub similarity: f64,
    /// Most |‖y‖ / ‖x‖ − 1|, from 0 to 1.
    pub norm: f64,
    /// Most |yᵢ − xᵢ| / max(|xᵢ|, rms(x)), from 0 to 10.
    pub element: f64,
}

impl Default for LossySpec {
    fn default() -> Self {
        // The arena's default rule asks for the same similarity. A step of one size for all numbers that just reaches it
        // is off by 0.02 of their root mean square at most; blocks with a step each by more, where few numbers are large.
        Self { activations: true, gradients: false, similarity: 0.99, norm: 0.005, element: 0.1 }
    }
}

impl LossySpec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// As the log holds it.
    pub(crate) fn bounds(&self) -> LossyBounds {
        let ppm = |share: f64| (share * 1e6).round() as u32;
        LossyBounds {
            similarity_ppm: ppm(self.similarity),
            norm_ppm: ppm(self.norm),
            element_ppm: ppm(self.element),
        }
    }
}

impl Default for CodecSpec {
    fn default() -> Self {
        Self {
            activations: TensorCodec::Huffman.into(),
            gradients: TensorCodec::Huffman.into(),
            pseudo_gradients: TensorCodec::Huffman,
            // Few bits of f32 weights can be saved, and encoded copies take memory.
            weights: TensorCodec::Raw,
            merge: MergeCodec::Bf16,
            built_in: None,
            lossy: LossySpec::default(),
        }
    }
}

impl CodecSpec {
    /// What is named for tensors that travel this way.
    pub fn class(&self, direction: Direction) -> &FrameCodec {
        match direction {
            Direction::Forward => &self.activations,
            Direction::Backward => &self.gradients,
        }
    }

    /// The codec of this binary for tensors that travel this way: what a champion replaces, and falls back to.
    pub fn built_in(&self, direction: Direction) -> TensorCodec {
        match self.class(direction) {
            FrameCodec::BuiltIn(codec) => *codec,
            FrameCodec::Arena(_) => self.built_in.unwrap_or(TensorCodec::Huffman),
        }
    }

    /// The competition whose champion the run asks for.
    pub fn competition(&self) -> Option<&str> {
        [&self.activations, &self.gradients].into_iter().find_map(FrameCodec::competition)
    }
}

/// `[codec]`, or one name for activations and gradients: `codec = "arena:matrix-compression"`.
pub(super) fn section<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CodecSpec, D::Error> {
    struct Section;
    impl<'de> Visitor<'de> for Section {
        type Value = CodecSpec;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table [codec], or one name for activations and gradients like \"arena:matrix-compression\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<CodecSpec, E> {
            let class = FrameCodec::try_from(text.to_owned()).map_err(E::custom)?;
            Ok(CodecSpec { activations: class.clone(), gradients: class, ..CodecSpec::default() })
        }

        fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<CodecSpec, A::Error> {
            CodecSpec::deserialize(MapAccessDeserializer::new(table))
        }
    }
    deserializer.deserialize_any(Section)
}

/// How activations or gradients cross: by a codec of this binary, or by the champion of a competition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FrameCodec {
    /// One of ours.
    BuiltIn(TensorCodec),
    /// Champion of a competition, by name.
    Arena(String),
}

impl FrameCodec {
    /// Name of the competition, if it is one.
    pub fn competition(&self) -> Option<&str> {
        match self {
            Self::BuiltIn(_) => None,
            Self::Arena(name) => Some(name),
        }
    }
}

impl From<TensorCodec> for FrameCodec {
    fn from(codec: TensorCodec) -> Self {
        Self::BuiltIn(codec)
    }
}

impl TryFrom<String> for FrameCodec {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let Some(name) = text.strip_prefix(ARENA) else { return Ok(Self::BuiltIn(text.parse()?)) };
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if name.is_empty() || name.len() > COMPETITION_BYTES || !plain {
            return Err(format!("write it like \"{ARENA}matrix-compression\": the name of a competition"));
        }
        Ok(Self::Arena(name.to_owned()))
    }
}

impl From<FrameCodec> for String {
    fn from(codec: FrameCodec) -> Self {
        match codec {
            FrameCodec::BuiltIn(codec) => codec.name().to_owned(),
            FrameCodec::Arena(name) => format!("{ARENA}{name}"),
        }
    }
}

/// Encodings of tensors on the wire; all give back the bits that went in. Numbers packed by a cut cross as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TensorCodec {
    /// As they are.
    Raw,
    /// One window of exponents: least work.
    Fast,
    /// Exponents by how often they come.
    Huffman,
    /// Exponents in the context of row and column: few bytes, much work.
    Context,
    /// Columns predicted from those before them, by what earlier tensors of the wire showed: fewest bytes, most work.
    /// Activations and gradients in bf16 only; context until something was learned.
    Predictive,
    /// For each tensor the one that gets it across soonest, by what a few of its rows show and the link's measured speed.
    Auto,
}

impl TensorCodec {
    /// Every codec that a run can name.
    pub(crate) const ALL: [Self; 6] =
        [Self::Raw, Self::Fast, Self::Huffman, Self::Context, Self::Predictive, Self::Auto];

    /// As a spec writes it.
    pub fn name(self) -> &'static str {
        self.id().map_or("auto", CodecId::name)
    }

    /// As the codec crate names it; none where it is chosen for each tensor.
    pub(crate) fn id(self) -> Option<CodecId> {
        match self {
            Self::Raw => Some(CodecId::Raw),
            Self::Fast => Some(CodecId::Fast),
            Self::Huffman => Some(CodecId::Huffman),
            Self::Context => Some(CodecId::Context),
            Self::Predictive => Some(CodecId::Predictive),
            Self::Auto => None,
        }
    }
}

impl FromStr for TensorCodec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with(ARENA) {
            return Err("a champion carries activations and gradients only".to_owned());
        }
        let known = Self::ALL.into_iter().find(|codec| codec.name() == text);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("expected one of {names}; for activations and gradients also \"{ARENA}COMPETITION\"")
        })
    }
}

impl TryFrom<String> for TensorCodec {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<TensorCodec> for String {
    fn from(codec: TensorCodec) -> Self {
        codec.name().to_owned()
    }
}

/// Encodings of pseudo-gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeCodec {
    /// Exact.
    F32,
    /// Half the bytes, with error feedback.
    Bf16,
}

impl From<MergeCodec> for MergeWire {
    fn from(codec: MergeCodec) -> Self {
        match codec {
            MergeCodec::F32 => Self::F32,
            MergeCodec::Bf16 => Self::Bf16,
        }
    }
}

/// Columns of the tensors of a cut that can be predicted: bf16, and not too many; none if they cannot.
pub(super) fn predictable_columns(cut: Cut, model: &ModelConfig) -> Option<usize> {
    let (numbers, columns) = cut.numbers(model)?;
    (numbers == Dtype::Bf16 && columns <= limits::PREDICTOR_COLUMNS).then_some(columns)
}

impl RunSpec {
    /// Columns of the tensors that miners of this run may predict; none if they do not.
    pub fn predicted_columns(&self) -> Option<usize> {
        let predicts =
            |direction| matches!(self.codec.built_in(direction), TensorCodec::Predictive | TensorCodec::Auto);
        let asked = self.stages() > 1 && (predicts(Direction::Forward) || predicts(Direction::Backward));
        predictable_columns(self.cut, &self.model).filter(|_| asked)
    }
}

#[cfg(test)]
mod tests {
    use super::{RunSpec, TensorCodec};

    const MODEL: &str = "[model]\npreset = \"micro\"\n";
    const PLAIN: &str = "[cut]\nkind = \"plain\"\nwire = \"bf16\"\n";

    fn parse(text: &str) -> Result<RunSpec, String> {
        RunSpec::parse(&format!("{MODEL}{text}")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_competition_is_named_for_frames_and_read_back() {
        let text = format!("{PLAIN}[codec]\nactivations = \"arena:matrix-compression\"\nbuilt_in = \"fast\"");
        let spec = parse(&text).unwrap();
        assert_eq!(spec.codec.competition(), Some("matrix-compression"));
        assert_eq!(spec.codec.built_in(wire::Direction::Forward), TensorCodec::Fast);
        assert_eq!(spec.codec.built_in(wire::Direction::Backward), TensorCodec::Huffman);
        assert_eq!(RunSpec::parse(&spec.canonical()).unwrap(), spec);
        assert!(
            !parse("").unwrap().canonical().contains("built_in"),
            "specs without a champion stay as they were"
        );
    }

    #[test]
    fn what_a_lossy_champion_may_do_is_read_and_bounded() {
        let spec = |lossy: &str| parse(&format!("{PLAIN}[codec.lossy]\n{lossy}"));
        let given = spec("gradients = true\nsimilarity = 0.98\nelement = 0.5").unwrap();
        let bounds = given.codec.lossy.bounds();
        assert_eq!((bounds.similarity_ppm, bounds.norm_ppm, bounds.element_ppm), (980_000, 5_000, 500_000));
        assert!(given.codec.lossy.gradients && given.codec.lossy.activations);
        assert_eq!(RunSpec::parse(&given.canonical()).unwrap(), given);
        assert!(!parse("").unwrap().canonical().contains("lossy"));
        for wrong in ["similarity = 1.5", "norm = -0.1", "element = 11", "elements = 1"] {
            let error = spec(wrong).unwrap_err();
            assert!(error.contains(wrong.split(' ').next().unwrap()), "{wrong}: {error}");
        }
    }

    #[test]
    fn one_name_stands_for_both_directions() {
        let table = |class: &str| {
            let text = format!("{PLAIN}[codec]\nactivations = \"{class}\"\ngradients = \"{class}\"\n");
            RunSpec::parse(&text).unwrap()
        };
        for class in ["arena:matrix-compression", "context"] {
            assert_eq!(RunSpec::parse(&format!("codec = \"{class}\"\n{PLAIN}")).unwrap(), table(class));
        }
        for wrong in ["\"arena:\"", "\"zip\"", "3"] {
            let error = RunSpec::parse(&format!("codec = {wrong}\n{PLAIN}")).unwrap_err().to_string();
            assert!(error.contains("codec"), "{error}");
        }
    }

    #[test]
    fn what_a_champion_cannot_carry_is_refused_by_name() {
        let cases = [
            (format!("{PLAIN}[codec]\nweights = \"arena:x\""), "carries activations and gradients only"),
            (
                format!("{PLAIN}[codec]\npseudo_gradients = \"arena:x\""),
                "carries activations and gradients only",
            ),
            (
                format!("{PLAIN}[codec]\nactivations = \"zip\""),
                "expected one of raw, fast, huffman, context, predictive, auto",
            ),
            (format!("{PLAIN}[codec]\ngradients = \"arena:\""), "the name of a competition"),
            (
                format!("{PLAIN}[codec]\nactivations = \"arena:a\"\ngradients = \"arena:b\""),
                "one competition",
            ),
            (format!("{PLAIN}[codec]\nbuilt_in = \"fast\""), "arena:"),
            (format!("{PLAIN}[codec]\nweights = \"predictive\""), "carries activations and gradients only"),
            ("[codec]\nactivations = \"predictive\"".to_owned(), "sends bf16 numbers"),
            (
                "[cut]\nkind = \"plain\"\nwire = \"f32\"\n[codec]\ngradients = \"predictive\"".to_owned(),
                "codec.gradients = \"predictive\"",
            ),
            ("[codec]\nactivations = \"arena:x\"".to_owned(), "plain"),
        ];
        for (text, words) in cases {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
