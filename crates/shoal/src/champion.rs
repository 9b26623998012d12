//! Champions of the arena for a run: found, tried on golden tensors, left in the run's folder for its orchestrator.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use node::folder::RunFolder;
use node::orchestrator::{Granted, Wish};
use node::spec::RunSpec;
use serde_json::json;
use store::Blobs;
use swarm::record::CodecPin;
use wire::Hash;

use crate::arena_cli::Where;
use crate::failure::bad_input;
use crate::up::read_spec;
use crate::watch::print;

/// How long a running orchestrator has to take a wish.
const ANSWER: Duration = Duration::from_secs(10);
/// Pause between two looks for its answer.
const LOOK: Duration = Duration::from_millis(100);

/// Where the run's champion comes from.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ChampionArgs {
    /// A codec component (.wasm) for activations and gradients, in place of the champion of the spec's "arena:" competition.
    #[arg(long, value_name = "FILE")]
    pub(crate) champion: Option<PathBuf>,
    /// The hash that FILE must have (BLAKE3, as `shoal arena` shows it).
    #[arg(long, value_name = "HASH", requires = "champion")]
    pub(crate) champion_hash: Option<Hash>,
    /// Address of the arena that judges the spec's "arena:" competition. Default: as for `shoal arena`.
    #[arg(long, value_name = "URL", conflicts_with = "champion")]
    pub(crate) arena: Option<String>,
}

/// `shoal run codec`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CodecArgs {
    /// The run's folder.
    folder: PathBuf,
    #[command(flatten)]
    from: ChampionArgs,
    /// Competition whose champion is taken. Default: the one that the spec names.
    #[arg(short, long, value_name = "NAME", conflicts_with = "champion")]
    competition: Option<String>,
    /// Take the pinned champion away instead.
    #[arg(long, conflicts_with_all = ["champion", "arena", "competition"])]
    off: bool,
}

/// A component that a run can use.
#[derive(Debug)]
pub(crate) struct Found {
    component: Bytes,
    pin: CodecPin,
}

/// `shoal run fault`.
#[derive(Args, Clone, Debug)]
pub(crate) struct FaultArgs {
    /// The component, as it was pinned.
    component: PathBuf,
    /// What it made of a tensor: a .payload file below a node's codec-faults.
    payload: PathBuf,
    /// The tensor: the .tensor file beside it, if its sender kept it.
    #[arg(long, value_name = "FILE")]
    tensor: Option<PathBuf>,
    /// It was a gradient.
    #[arg(long)]
    gradient: bool,
}

/// `shoal run fault`.
pub(crate) fn fault(args: &FaultArgs, json: bool) -> Result<ExitCode> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| bad_input(format!("cannot read {}: {error}", path.display())))
    };
    let (component, payload) = (read(&args.component)?, read(&args.payload)?);
    let tensor = args.tensor.as_ref().map(read).transpose()?;
    let runtime = sandbox::Runtime::new(sandbox::Child::this_binary()?, crate::arena_cli::cache_folder())?;
    let direction = if args.gradient { wire::Direction::Backward } else { wire::Direction::Forward };
    let found = node::champion::rerun(&runtime, &component, direction, &payload, tensor.as_deref())
        .map_err(|error| bad_input(error.to_string()))?;
    let (component, encoded) = (Hash::of(&component).to_string(), Hash::of(&payload).to_string());
    let (tensor, makes) =
        found.tensor.map_or((None, None), |(tensor, makes)| (Some(tensor.to_string()), Some(makes)));
    if json {
        let decoded = found.decoded.as_ref().ok().map(ToString::to_string);
        let reason = found.decoded.as_ref().err();
        print(
            &json!({
                "component": component, "encoded": encoded, "decoded": decoded, "reason": reason,
                "tensor": tensor, "makes_it": makes,
            })
            .to_string(),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&format!("component  {component}"))?;
    print(&format!("encoded    {encoded}"))?;
    match &found.decoded {
        Ok(decoded) => print(&format!("decoded    {decoded}"))?,
        Err(reason) => print(&format!("decoded    nothing: {reason}"))?,
    }
    if let (Some(tensor), Some(makes)) = (tensor, makes) {
        let words = if makes {
            "the component makes this payload of it"
        } else {
            "the component makes another payload of it"
        };
        print(&format!("tensor     {tensor}: {words}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The champion that a new run begins with, if its spec or the options ask for one.
pub(crate) fn find(args: &ChampionArgs, spec: &RunSpec) -> Result<Option<Found>> {
    let competition = spec.codec.competition();
    if args.arena.is_some() && competition.is_none() {
        return Err(bad_input(
            "--arena needs a spec that names a competition, like [codec] activations = \"arena:matrix-compression\"",
        ));
    }
    if args.champion.is_none() && competition.is_none() {
        return Ok(None);
    }
    look(args, competition, spec).map(Some)
}

fn look(args: &ChampionArgs, competition: Option<&str>, spec: &RunSpec) -> Result<Found> {
    let (component, source) = match (&args.champion, competition) {
        (Some(path), _) => {
            let component = std::fs::read(path)
                .map_err(|error| bad_input(format!("cannot read {}: {error}", path.display())))?;
            (Bytes::from(component), format!("file {}", path.display()))
        }
        (None, Some(name)) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(of_arena(args.arena.clone(), name))?
        }
        (None, None) => {
            return Err(bad_input(
                "the run's spec names no competition: say --competition NAME or --champion FILE",
            ));
        }
    };
    let found = Hash::of(&component);
    if let Some(expected) = args.champion_hash.filter(|expected| *expected != found) {
        return Err(bad_input(format!("{source} has hash {found}, not {expected}")));
    }
    let child = sandbox::Child::this_binary()?;
    let runtime = sandbox::Runtime::new(child, crate::arena_cli::cache_folder())?;
    let pin = node::champion::pin(&runtime, &component, spec, &source)
        .map_err(|error| bad_input(format!("{source} ({}): {error}", found.short())))?;
    Ok(Found { component, pin })
}

/// The component that leads a competition, and where it was found.
async fn of_arena(server: Option<String>, name: &str) -> Result<(Bytes, String)> {
    let client = Where::at(server).client().await?;
    let competition = client.competition(name).await.with_context(|| format!("competition {name}"))?;
    let top = competition.top.ok_or_else(|| {
        bad_input(format!("competition {name} has no champion yet: use a built-in codec, or --champion FILE"))
    })?;
    let detail = client.submission(top.submission_id, false).await?;
    let code = detail.files.iter().find(|file| file.kind == api::model::FileKind::Code);
    let file = code.map_or("code.wasm", |file| file.name.as_str());
    let component = client
        .raw(top.submission_id, file)
        .await
        .with_context(|| format!("code of entry {}, which leads {name}", top.submission_id))?;
    if Hash::of(&component).to_string() != top.code {
        return Err(bad_input(format!("the host gave other bytes than entry {} has", top.submission_id)));
    }
    if !component.starts_with(b"\0asm") {
        return Err(bad_input(format!(
            "entry {} leads {name} with a program; a run takes WebAssembly components only",
            top.submission_id
        )));
    }
    Ok((component, format!("arena:{name} entry {} at {}", top.submission_id, client.address())))
}

impl Found {
    /// Lays component and wish into a run's folder.
    pub(crate) async fn leave(&self, folder: &RunFolder, blobs: &dyn Blobs) -> Result<()> {
        blobs.put(self.component.clone()).await?;
        let wish = Wish::Pin(self.pin.clone());
        wish.leave(folder).with_context(|| format!("cannot write below {}", folder.root().display()))
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let pin = &self.pin;
        let classes = match (pin.activations, pin.gradients) {
            (true, true) => "activations and gradients",
            (true, false) => "activations",
            (false, _) => "gradients",
        };
        format!("champion: {} ({} bytes) for {classes}, {}", pin.component.short(), pin.bytes, pin.source)
    }
}

/// `shoal run codec`.
pub(crate) fn run(args: &CodecArgs, json: bool) -> Result<ExitCode> {
    let folder = RunFolder::new(&args.folder);
    let spec = read_spec(&folder)?;
    let mut line = None;
    if args.off {
        Wish::Unpin
            .leave(&folder)
            .with_context(|| format!("cannot write below {}", args.folder.display()))?;
    } else {
        let competition = args.competition.as_deref().or(spec.codec.competition());
        let found = look(&args.from, competition, &spec)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let blobs = store::FolderBlobs::open(folder.blobs(), store::Durability::Synced).await?;
            found.leave(&folder, &blobs).await
        })?;
        line = Some((found.line(), found.pin));
    }
    let granted = answer(&folder);
    if let Some(Granted::Refused { reason }) = &granted {
        return Err(bad_input(format!("the run does not take it: {reason}")));
    }
    if json {
        let component = line.map(|(_, pin)| pin.component.to_string());
        let from = match granted {
            Some(Granted::Pinned { from }) => Some(from.0),
            _ => None,
        };
        print(
            &json!({ "component": component, "taken": granted.is_some(), "from_epoch": from }).to_string(),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some((line, _)) = line {
        print(&line)?;
    }
    print(&match granted {
        Some(Granted::Pinned { from }) => {
            format!("pinned: in force from epoch {} on, if every stage is ready", from.0 + 1)
        }
        Some(_) => "taken away".to_owned(),
        None => "the orchestrator does not run: it takes this when it starts".to_owned(),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What the orchestrator says, if it runs.
fn answer(folder: &RunFolder) -> Option<Granted> {
    let deadline = Instant::now() + ANSWER;
    while Instant::now() < deadline {
        if let Some(granted) = Granted::read(folder) {
            return Some(granted);
        }
        std::thread::sleep(LOOK);
    }
    None
}
