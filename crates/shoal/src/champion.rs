//! Champions of the arena for a run: found, tried on golden tensors, left in the run's folder for its orchestrator.

mod follow;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use api::Client;
use api::model::TopScore;
use bytes::Bytes;
use clap::Args;
use node::folder::RunFolder;
use node::orchestrator::{Granted, Wish};
use node::spec::RunSpec;
use serde_json::json;
use store::Blobs as _;
use swarm::record::CodecPin;
use wire::Hash;

use crate::arena_cli::Where;
use crate::failure::bad_input;
use crate::up::read_spec;
use crate::watch::print;
use follow::Lock;
pub(crate) use follow::{Followed, follow};

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
    /// Stay with the competition's present champion: without this (and without FILE) the orchestrator takes later ones too.
    #[arg(long, conflicts_with = "champion")]
    pub(crate) once: bool,
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
    /// Take the pinned champion away instead, and follow no competition.
    #[arg(long, conflicts_with_all = ["champion", "arena", "competition", "once"])]
    off: bool,
}

/// A component that a run can use.
#[derive(Debug)]
struct Champion {
    component: Bytes,
    pin: CodecPin,
}

/// What is found for a run.
#[derive(Debug)]
pub(crate) struct Found {
    /// None: nobody leads the competition yet.
    champion: Option<Champion>,
    /// The competition whose later champions are taken too.
    followed: Option<Followed>,
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
    sandbox::contained()?;
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
    if args.once && competition.is_none() {
        return Err(bad_input("--once is of use with a spec that names a competition"));
    }
    if args.champion.is_none() && competition.is_none() {
        return Ok(None);
    }
    look(args, competition, spec).map(Some)
}

fn look(args: &ChampionArgs, competition: Option<&str>, spec: &RunSpec) -> Result<Found> {
    let (code, followed) = match (&args.champion, competition) {
        (Some(path), _) => {
            let component = std::fs::read(path)
                .map_err(|error| bad_input(format!("cannot read {}: {error}", path.display())))?;
            (Some((Bytes::from(component), format!("file {}", path.display()))), None)
        }
        (None, Some(name)) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (code, followed) = runtime.block_on(of_arena(args.arena.clone(), name))?;
            if code.is_none() && args.once {
                return Err(bad_input(format!(
                    "competition {name} has no champion yet: leave --once out to take its first, or say --champion FILE"
                )));
            }
            (code, (!args.once).then_some(followed))
        }
        (None, None) => {
            return Err(bad_input(
                "the run's spec names no competition: say --competition NAME or --champion FILE",
            ));
        }
    };
    if let (Some((component, source)), Some(expected)) = (&code, args.champion_hash) {
        let found = Hash::of(component);
        if expected != found {
            return Err(bad_input(format!("{source} has hash {found}, not {expected}")));
        }
    }
    let champion = code.map(|(component, source)| Champion::try_out(component, &source, spec)).transpose()?;
    Ok(Found { champion, followed })
}

/// The component that leads a competition, and where it was found; and what is followed from here on.
async fn of_arena(server: Option<String>, name: &str) -> Result<(Option<(Bytes, String)>, Followed)> {
    let client = Where::at(server).client().await?;
    let competition = client.competition(name).await.with_context(|| format!("competition {name}"))?;
    let followed = |tried: Option<String>| Followed {
        arena: client.address().to_owned(),
        competition: name.to_owned(),
        tried: Vec::from_iter(tried),
    };
    let Some(top) = competition.top else { return Ok((None, followed(None))) };
    Ok((Some(component_of(&client, name, &top).await?), followed(Some(top.code))))
}

/// The code of the entry that leads a competition, and words for where it comes from.
async fn component_of(client: &Client, name: &str, top: &TopScore) -> Result<(Bytes, String)> {
    let id = top.submission_id;
    let detail = client.submission(id, false).await?;
    let code = detail.files.iter().find(|file| file.kind == api::model::FileKind::Code);
    let file = code.map_or("code.wasm", |file| file.name.as_str());
    let component =
        client.raw(id, file).await.with_context(|| format!("code of entry {id}, which leads {name}"))?;
    if Hash::of(&component).to_string() != top.code {
        return Err(bad_input(format!("the host gave other bytes than entry {id} has")));
    }
    Ok((component, format!("arena:{name} entry {id} at {}", client.address())))
}

impl Champion {
    /// Compiles a component and has it do the golden tensors. Takes seconds.
    fn try_out(component: Bytes, source: &str, spec: &RunSpec) -> Result<Self> {
        if source.starts_with("arena:") && !component.starts_with(b"\0asm") {
            return Err(bad_input(format!("{source} is a program; a run takes WebAssembly components only")));
        }
        sandbox::contained()?;
        let child = sandbox::Child::this_binary()?;
        let runtime = sandbox::Runtime::new(child, crate::arena_cli::cache_folder())?;
        let pin = node::champion::pin(&runtime, &component, spec, source).map_err(|error| match error {
            node::champion::PinError::Host(error) => anyhow::Error::new(error),
            error => bad_input(format!("{source} ({}): {error}", Hash::of(&component).short())),
        })?;
        Ok(Self { component, pin })
    }

    /// Keeps the component among a run's blobs.
    async fn keep(&self, folder: &RunFolder) -> Result<()> {
        let blobs = store::FolderBlobs::open(folder.blobs(), store::Durability::Synced).await?;
        blobs.put(self.component.clone()).await?;
        Ok(())
    }

    /// Lays the wish for it into a run's folder, where its component is already.
    fn wish(&self, folder: &RunFolder) -> Result<()> {
        let wish = Wish::Pin(self.pin.clone());
        wish.leave(folder).with_context(|| format!("cannot write below {}", folder.root().display()))
    }

    /// One line for people.
    fn line(&self) -> String {
        let pin = &self.pin;
        let classes = match (pin.activations, pin.gradients) {
            (true, true) => "activations and gradients",
            (true, false) => "activations",
            (false, _) => "gradients",
        };
        let lossy =
            if pin.lossy.is_some() { "; lossy: in its shadow until a validator finds no harm" } else { "" };
        format!(
            "champion: {} ({} bytes) for {classes}, {}{lossy}",
            pin.component.short(),
            pin.bytes,
            pin.source
        )
    }
}

impl Found {
    /// Lays the champion, and what is followed, into a run's folder.
    pub(crate) async fn leave(&self, folder: &RunFolder) -> Result<()> {
        if let Some(champion) = &self.champion {
            champion.keep(folder).await?;
            champion.wish(folder)?;
        }
        Followed::write(self.followed.as_ref(), folder)
    }

    /// Whether a validator must measure it before it carries everything.
    pub(crate) fn is_lossy(&self) -> bool {
        self.champion.as_ref().is_some_and(|champion| champion.pin.lossy.is_some())
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        match (&self.champion, &self.followed) {
            (Some(champion), _) => champion.line(),
            (None, Some(Followed { competition, .. })) => {
                format!("champion: none yet; the first of competition {competition} is taken when it leads")
            }
            (None, None) => "champion: none".to_owned(),
        }
    }
}

/// `shoal run codec`.
pub(crate) fn run(args: &CodecArgs, json: bool) -> Result<ExitCode> {
    let folder = RunFolder::new(&args.folder);
    let spec = read_spec(&folder)?;
    if args.off {
        return take_away(&folder, json);
    }
    let competition = args.competition.as_deref().or(spec.codec.competition());
    let found = look(&args.from, competition, &spec)?;
    if let Some(champion) = &found.champion {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(champion.keep(&folder))?;
    }
    // Until there is an answer, nobody else changes anything.
    let lock = Lock::take(&folder)?;
    let mut granted = None;
    if let Some(champion) = &found.champion {
        champion.wish(&folder)?;
        granted = answer(&folder, |granted| !matches!(granted, Granted::Unpinned));
    }
    let followed = folder.codec_arena().exists();
    match &granted {
        Some(Granted::Refused { reason }) => {
            return Err(bad_input(format!("the run does not take it: {reason}")));
        }
        Some(Granted::Already) if found.followed.is_none() && !followed => {
            return Err(bad_input("the run does not take it: this codec is pinned already"));
        }
        _ => {}
    }
    Followed::write(found.followed.as_ref(), &folder)?;
    drop(lock);
    let from = match &granted {
        Some(Granted::Pinned { from }) => Some(from.0),
        _ => None,
    };
    if json {
        let component = found.champion.as_ref().map(|champion| champion.pin.component.to_string());
        let taken = granted.is_some();
        print(&json!({ "component": component, "taken": taken, "from_epoch": from }).to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&found.line())?;
    match (&granted, from) {
        (_, Some(from)) => {
            print(&format!("pinned: in force from epoch {} on, if every stage is ready", from + 1))?;
        }
        (Some(_), None) => print("pinned already")?,
        (None, None) if found.champion.is_some() => {
            print("the orchestrator does not run: it takes this when it starts")?;
        }
        (None, None) => {}
    }
    match &found.followed {
        Some(Followed { competition, .. }) => {
            print(&format!("competition {competition} is followed: later champions are taken too"))?;
        }
        None if followed => print("no competition is followed any more")?,
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes away what is pinned, and ends the following of a competition.
fn take_away(folder: &RunFolder, json: bool) -> Result<ExitCode> {
    let _lock = Lock::take(folder)?;
    let followed = folder.codec_arena().exists();
    Followed::write(None, folder)?;
    Wish::Unpin.leave(folder).with_context(|| format!("cannot write below {}", folder.root().display()))?;
    let granted = answer(folder, |granted| matches!(granted, Granted::Unpinned | Granted::Refused { .. }));
    if let Some(Granted::Refused { reason }) = &granted
        && !followed
    {
        return Err(bad_input(format!("the run does not take it: {reason}")));
    }
    if json {
        let taken = granted.is_some();
        print(&json!({ "component": null, "taken": taken, "from_epoch": null }).to_string())?;
    } else {
        print(match granted {
            Some(Granted::Refused { .. }) => "nothing is pinned; no competition is followed any more",
            Some(_) => "taken away",
            None => "the orchestrator does not run: it takes this when it starts",
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the orchestrator says, if it runs; what it says to an earlier wish is not `ours`.
fn answer(folder: &RunFolder, ours: impl Fn(&Granted) -> bool) -> Option<Granted> {
    let deadline = Instant::now() + ANSWER;
    while Instant::now() < deadline {
        if let Some(granted) = Granted::read(folder).filter(&ours) {
            return Some(granted);
        }
        std::thread::sleep(LOOK);
    }
    None
}
