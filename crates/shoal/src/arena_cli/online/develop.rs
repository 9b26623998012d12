//! What an entrant gets from the host to judge at home: the samples, and all that the spec names.

use std::path::PathBuf;

use ::judge::dataset::Manifest;
use ::judge::{Case, Code, Direction, Input};
use anyhow::{Context, Result};
use api::Client;
use api::client::ClientError;
use api::judge::Assignment;
use arena::spec::{CompetitionSpec, Form, Kind, Source};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use wire::Hash;

use super::Where;
use crate::arena_cli::eval;
use crate::failure::bad_input;

/// Inputs asked for in one page.
const PAGE: u32 = 200;

/// Inputs that everybody may have, and where they come from, for people.
pub(super) struct Samples {
    /// None: a generator makes them, see [`Needs`].
    pub(super) inputs: Option<Vec<Input>>,
    pub(super) place: String,
}

/// What a competition offers.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Offer {
    Baseline,
    Template,
    /// Generator of a codec competition's inputs, or evaluator of a program competition.
    Reference,
    Environment,
}

#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    at: Where,
    /// Competition: name, id, or first digits of the id.
    competition: String,
    /// What.
    #[arg(value_enum)]
    offer: Offer,
    /// Where to save it; an existing file is left alone.
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
}

/// `shoal arena get`.
pub(super) async fn get(args: &GetArgs, json: bool) -> Result<String> {
    let client = args.at.client().await?;
    let spec = CompetitionSpec::parse(&client.spec(&args.competition).await?)?;
    let (what, hash) = match args.offer {
        Offer::Baseline => ("baseline", spec.baseline.code),
        Offer::Template => ("template", spec.baseline.template),
        Offer::Reference => ("generator or evaluator", spec.inputs.code),
        Offer::Environment => ("environment", spec.resources.environment),
    };
    let none = || {
        let next = "`shoal arena new codec` makes an entry to start from";
        bad_input(format!("{} names no {what} in its spec; {next}", spec.name))
    };
    let hash = hash.ok_or_else(none)?;
    let bytes = client.blob(&hash).await.with_context(|| format!("fetching the {what}"))?;
    if Hash::of(&bytes) != hash {
        return Err(bad_input(format!("the host gave other bytes than those of the {what}, {hash}")));
    }
    super::dashboard::save(&args.out, &bytes, false)?;
    let shown = args.out.display().to_string();
    if json {
        let row = serde_json::json!({ "file": shown, "hash": hash.to_string(), "bytes": bytes.len() });
        return Ok(row.to_string());
    }
    Ok(format!("{shown}: the {what} of {}, {} bytes", spec.name, bytes.len()))
}

/// What a spec names.
pub(super) struct Needs {
    baseline: Option<(Form, Bytes)>,
    reference: Option<Bytes>,
    environment: Option<Bytes>,
}

impl Needs {
    pub(super) async fn fetch(client: &Client, spec: &CompetitionSpec) -> Result<Self> {
        let blob = async |what: &str, hash: Option<Hash>| match hash {
            Some(hash) => client.blob(&hash).await.map(Some).with_context(|| format!("fetching the {what}")),
            None => Ok(None),
        };
        Ok(Self {
            baseline: blob("baseline", spec.baseline.code).await?.map(|code| (spec.baseline.form, code)),
            reference: blob("generator or evaluator", spec.inputs.code).await?,
            environment: blob("environment", spec.resources.environment).await?,
        })
    }

    /// The same, as a judge has them.
    pub(super) fn assign(self, to: Assignment) -> Assignment {
        let Self { baseline, reference, environment } = self;
        Assignment { baseline, reference, environment, ..to }
    }

    pub(super) fn baseline(&self) -> Option<Code<'_>> {
        self.baseline.as_ref().map(|(form, bytes)| Code { form: *form, bytes })
    }

    pub(super) fn reference(&self) -> Result<Option<Code<'_>>> {
        Ok(self.reference.as_ref().map(|bytes| Code::reference(bytes)).transpose()?)
    }

    pub(super) fn environment(&self) -> Option<&[u8]> {
        self.environment.as_deref()
    }
}

/// The development samples of a competition, at most `most` of them: those that its spec names, else what the last judged
/// round was judged on, else whatever its generator makes. With `round`: the inputs of that round.
pub(super) async fn samples(
    client: &Client,
    spec: &CompetitionSpec,
    round: Option<&str>,
    most: usize,
) -> Result<Samples> {
    let id = spec.id().to_string();
    if let (Some(hash), None) = (spec.inputs.samples, round) {
        let bytes = client.blob(&hash).await.context("fetching the manifest of the samples")?;
        let manifest = Manifest::parse(&bytes)
            .map_err(|reason| bad_input(format!("the manifest of the samples, {hash}: {reason}")))?;
        let mut inputs = Vec::new();
        for item in manifest.items.iter().take(most) {
            let hash = item.hash.ok_or_else(|| {
                bad_input(format!("the manifest of the samples gives no hash of {:?}", item.file))
            })?;
            let blob = client.blob(&hash).await.with_context(|| format!("fetching {:?}", item.file))?;
            inputs.push(input(spec, &item.file, &hash, &blob, item.shape.clone(), item.direction)?);
        }
        return Ok(Samples { inputs: Some(inputs), place: "the samples that the spec names".to_owned() });
    }
    if spec.inputs.source == Source::Generator && round.is_none() {
        return Ok(Samples { inputs: None, place: "what the generator makes of a seed".to_owned() });
    }
    let wanted = round.unwrap_or("last");
    let mut inputs = Vec::new();
    loop {
        let page = match client.inputs(&id, wanted, inputs.len() as u64, PAGE).await {
            Err(ClientError::Refused { .. }) if round.is_none() => {
                return Err(bad_input(
                    "no samples: the spec names none and no round was judged yet; give your own with --data",
                ));
            }
            other => other?,
        };
        let place = format!("the inputs of round {}", page.round_number);
        if page.source == "generator" {
            return Err(bad_input(format!(
                "{place} come from a generator: `shoal arena eval --seed {}` makes them again",
                page.seed
            )));
        }
        for file in page.files.iter().take(most.saturating_sub(inputs.len())) {
            let hash: Hash = file.hash.parse().with_context(|| format!("the host gave {:?}", file.hash))?;
            let blob = client.blob(&hash).await?;
            let name = format!("{wanted}-{:04}.bin", file.index);
            inputs.push(input(spec, &name, &hash, &blob, None, Direction::Forward)?);
        }
        if !page.pagination.has_more || page.files.is_empty() || inputs.len() >= most {
            return Ok(Samples { inputs: Some(inputs), place });
        }
    }
}

/// The samples of a competition by name, for `shoal arena samples`.
pub(crate) fn draw(
    at: &Where,
    name: &str,
    round: Option<&str>,
    most: usize,
    seed: &Hash,
) -> Result<Vec<Input>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let fetch = async {
        let client = at.client().await?;
        let spec = CompetitionSpec::parse(&client.spec(name).await?)?;
        let samples = samples(&client, &spec, round, most).await?;
        let needs = if samples.inputs.is_none() { Some(Needs::fetch(&client, &spec).await?) } else { None };
        Ok::<_, anyhow::Error>((spec, samples, needs))
    };
    let (mut spec, samples, needs) = runtime.block_on(fetch)?;
    match (samples.inputs, needs) {
        (Some(inputs), _) => Ok(inputs),
        (None, None) => Ok(Vec::new()),
        (None, Some(needs)) => {
            spec.inputs.items = spec.inputs.items.min(u32::try_from(most).unwrap_or(u32::MAX));
            let entry = Code { form: Form::Component, bytes: &[] };
            let case = Case {
                spec: &spec,
                seed: *seed,
                entry,
                baseline: None,
                reference: needs.reference()?,
                environment: needs.environment(),
            };
            Ok(eval::judge()?.generate(&case)?)
        }
    }
}

fn input(
    spec: &CompetitionSpec,
    name: &str,
    hash: &Hash,
    blob: &Bytes,
    shape: Option<Vec<u32>>,
    direction: Direction,
) -> Result<Input> {
    if Hash::of(blob) != *hash {
        return Err(bad_input(format!("{name}: the host gave other bytes than those of {hash}")));
    }
    let read = match spec.kind {
        Kind::Codec => Input::of_blob(name, blob, shape, direction),
        Kind::Program => Input::plain(name, &blob[..]),
    };
    read.map_err(|error| bad_input(format!("{name}: {error}")))
}
