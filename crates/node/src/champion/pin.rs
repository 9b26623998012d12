//! What is found out about a component before a run may use it: the same here and on every node.

use codec::DType;
use model::config::{Dtype, Message};
use sandbox::{Fault, Runtime, wasm};
use swarm::record::CodecPin;
use wire::{Direction, Epoch, Hash};

use super::carry::{Carried, Champion, Fell};
use crate::spec::{LossySpec, RunSpec};

/// Why a component is not put to work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// It does not compile, or imports something.
    #[error("the component cannot be used: {0}")]
    Component(sandbox::Failed),
    /// This machine cannot run components.
    #[error(transparent)]
    Host(#[from] sandbox::HostError),
    /// The run's cut sends packed numbers.
    #[error(
        "this run's cut packs its numbers, which become no shorter: a champion is of use with a plain, tabled or bottleneck cut"
    )]
    Packed,
    /// It does not give back what went in, and the run lets no lossy one carry what is asked of it.
    #[error(
        "the component is lossy (golden tensor {tensor}), and [codec.lossy] of the run's spec does not let such a one carry {asked}: choose a lossless codec"
    )]
    Lossy {
        /// Which golden tensor.
        tensor: &'static str,
        /// What it is asked to carry.
        asked: &'static str,
    },
    /// What it gives back is too far from what went in.
    #[error(
        "the component is lossy and too far off on golden tensor {tensor}: {reason}; [codec.lossy] of the run's spec allows less"
    )]
    Beyond {
        /// Which golden tensor.
        tensor: &'static str,
        /// How far.
        reason: String,
    },
    /// Its pin allows it something else than the run's spec does.
    #[error(
        "pinned as a lossy codec for other classes, or with other bounds, than [codec.lossy] of the run's spec allows"
    )]
    Bounds,
    /// It failed on a golden tensor.
    #[error("the component fails on golden tensor {tensor}: {reason}")]
    Fails {
        /// Which.
        tensor: &'static str,
        /// How.
        reason: String,
    },
    /// The same tensor became different bytes.
    #[error("the component gives different bytes for the same tensor (golden tensor {tensor})")]
    Unsteady {
        /// Which.
        tensor: &'static str,
    },
    /// It was pinned with another engine.
    #[error("pinned for wasmtime {theirs}, this binary has {ours}: use the same version of shoal")]
    Engine {
        /// Pinned.
        theirs: String,
        /// Linked.
        ours: String,
    },
    /// It does something else here than where it was pinned.
    #[error("the golden tensors become other bytes here ({found}) than where it was pinned ({expected})")]
    Golden {
        /// Pinned.
        expected: Hash,
        /// Found.
        found: Hash,
    },
}

impl From<sandbox::Error> for PinError {
    fn from(error: sandbox::Error) -> Self {
        match error {
            sandbox::Error::Entry(failed) => Self::Component(failed),
            sandbox::Error::Host(error) => Self::Host(error),
        }
    }
}

/// Looks at a component and says what a run would pin, from the first epoch on. Takes seconds.
///
/// The classes are those for which the spec asks for a champion; both where it asks for none.
///
/// # Errors
/// See [`PinError`].
pub fn pin(runtime: &Runtime, component: &[u8], spec: &RunSpec, source: &str) -> Result<CodecPin, PinError> {
    let numbers = numbers(spec).ok_or(PinError::Packed)?;
    let asked = |direction| spec.codec.class(direction).competition().is_some();
    let (forward, backward) = (asked(Direction::Forward), asked(Direction::Backward));
    let neither = !forward && !backward;
    let (mut activations, mut gradients) = (forward || neither, backward || neither);
    let mut champion = Champion::new(runtime.compile(component)?, None);
    let mut lossy = None;
    let golden = match golden(&champion, numbers) {
        Err(PinError::Lossy { tensor, .. }) => {
            let asked = if activations { "activations" } else { "gradients" };
            activations &= spec.codec.lossy.activations;
            gradients &= spec.codec.lossy.gradients;
            if !activations && !gradients {
                return Err(PinError::Lossy { tensor, asked });
            }
            let bounds = spec.codec.lossy.bounds();
            lossy = Some(bounds);
            champion = champion.within(bounds);
            self::golden(&champion, numbers)?
        }
        golden => golden?,
    };
    let mut source = source.to_owned();
    while source.len() > swarm::limits::CODEC_SOURCE_BYTES {
        source.pop();
    }
    Ok(CodecPin {
        component: champion.component(),
        bytes: component.len() as u32,
        wasmtime: wasm::WASMTIME.to_owned(),
        settings: wasm::settings_hash(),
        golden,
        source,
        activations,
        gradients,
        lossy,
        from: Epoch(0),
    })
}

/// Type of the numbers that cross a run's cuts, if they cross as numbers.
pub(crate) fn numbers(spec: &RunSpec) -> Option<DType> {
    match spec.cut.numbers(&spec.model)?.0 {
        Dtype::F32 => Some(DType::F32),
        Dtype::Bf16 => Some(DType::Bf16),
        Dtype::U8 => None,
    }
}

pub(super) fn check_engine(pin: &CodecPin) -> Result<(), PinError> {
    let (ours, theirs) = ((wasm::WASMTIME, wasm::settings_hash()), (pin.wasmtime.as_str(), pin.settings));
    if ours == theirs {
        return Ok(());
    }
    let words = |(version, settings): (&str, Hash)| format!("{version} with settings {}", settings.short());
    Err(PinError::Engine { theirs: words(theirs), ours: words(ours) })
}

/// A pin may allow no more than the run's spec.
pub(super) fn check_bounds(pin: &CodecPin, lossy: &LossySpec) -> Result<(), PinError> {
    let classes = (lossy.activations || !pin.activations) && (lossy.gradients || !pin.gradients);
    let fits = pin.lossy.is_none_or(|bounds| classes && bounds == lossy.bounds());
    if fits { Ok(()) } else { Err(PinError::Bounds) }
}

/// Has a component encode, check and encode again each golden tensor; hash over what it made of them, and of what came
/// back if that may be something else.
pub(super) fn golden(champion: &Champion, numbers: DType) -> Result<Hash, PinError> {
    let mut made = Vec::new();
    for (tensor, message) in vectors(numbers) {
        for direction in [Direction::Forward, Direction::Backward] {
            let first = once(champion, direction, tensor, &message)?;
            let second = once(champion, direction, tensor, &message)?;
            if first != second {
                return Err(PinError::Unsteady { tensor });
            }
            made.push(first.unwrap_or(Hash::of(b"")));
        }
    }
    let parts: Vec<&[u8]> = made.iter().map(|hash| hash.0.as_slice()).collect();
    Ok(Hash::of_parts("shoal 2026-11 golden tensors", &parts))
}

/// None: it became no shorter, which is no fault; nor is it one of a lossy codec to be of no use for tensors that no
/// training has.
fn once(
    champion: &Champion,
    direction: Direction,
    tensor: &'static str,
    message: &Message,
) -> Result<Option<Hash>, PinError> {
    let usual = !champion.is_lossy() || USUAL.contains(&tensor);
    match champion.encode(direction, message, true) {
        Ok(Carried { payload, lossy: None, .. }) => Ok(Some(Hash::of(&payload))),
        Ok(Carried { payload, lossy: Some(decoded), .. }) => {
            Ok(Some(Hash::of_parts("shoal 2026-11 golden lossy", &[&payload, &decoded.bytes])))
        }
        Err(Fell::Larger) => Ok(None),
        Err(Fell::Wrong { .. }) => Err(PinError::Lossy { tensor, asked: "anything" }),
        Err(Fell::Beyond(_)) if !usual => Ok(None),
        Err(Fell::Beyond(beyond)) => Err(PinError::Beyond { tensor, reason: beyond.to_string() }),
        // How long a call takes is this machine's, not the component's.
        Err(Fell::Failed(failed)) if !usual && failed.fault != Fault::Time => Ok(None),
        Err(Fell::Failed(failed)) => Err(PinError::Fails { tensor, reason: failed.to_string() }),
        Err(Fell::Host(reason)) => Err(PinError::Fails { tensor, reason }),
    }
}

/// Golden tensors that look like those of a training.
const USUAL: [&str; 2] = ["activations", "a matrix"];

/// The golden tensors: what cuts send, and what they could send at worst.
fn vectors(numbers: DType) -> Vec<(&'static str, Message)> {
    let words = |count: usize, seed: u64| {
        let mut x = seed;
        (0..count).map(move |_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (x >> 32) as u32
        })
    };
    // Sums of uniforms, with a scale by column: near enough to activations.
    let wave = |rows: usize, columns: usize| -> Vec<u32> {
        let unit = |word: u32| f32::from((word >> 16) as u16) / 65_536.0 - 0.5;
        let mut drawn = words(rows * columns * 3, 7);
        (0..rows * columns)
            .map(|at| {
                let sum: f32 = drawn.by_ref().take(3).map(unit).sum();
                (sum * [0.02, 0.1, 1.0, 8.0][at % columns % 4]).to_bits()
            })
            .collect()
    };
    let odd = [0, 0x8000_0000, 0x7f80_0000, 0xff80_0000, 0x7fc1_2345, 0xffa5_0000, 1, 0x7f7f_ffff];
    let cases = [
        ("activations", vec![2, 64, 128], wave(128, 128)),
        ("a matrix", vec![48, 33], wave(48, 33)),
        ("zeros", vec![16, 64], vec![0; 1024]),
        ("noise", vec![16, 64], words(1024, 11).collect()),
        ("infinities and NaNs", vec![32, 64], odd.into_iter().cycle().take(2048).collect()),
        ("one number", vec![1, 1], vec![0x3f80_0000]),
    ];
    let message = |(name, shape, words): (&'static str, Vec<usize>, Vec<u32>)| {
        let (dtype, bytes) = match numbers {
            DType::F32 => (Dtype::F32, words.into_iter().flat_map(u32::to_le_bytes).collect()),
            _ => (Dtype::Bf16, words.into_iter().flat_map(|w| ((w >> 16) as u16).to_le_bytes()).collect()),
        };
        (name, Message { dtype, shape, bytes })
    };
    cases.into_iter().map(message).collect()
}
