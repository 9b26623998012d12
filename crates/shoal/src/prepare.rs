//! From files and options to a run folder: tokenizer, token shards, spec, key. Nothing half-made is left behind.

mod draft;
mod shape;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use model::checkpoint::Checkpoint;
use model::data::{self, CollectOptions, Corpus};
use model::hash::BlobHash;
use model::tokenizer::Tokenizer;
use node::folder::RunFolder;
use node::spec::{DataSpec, RunSpec, TokenizerSpec};
use store::Blobs;
use wire::Hash;

use crate::cli::{DataArgs, ShapeArgs};
use crate::failure::bad_input;
use crate::interrupt::Making;
pub(crate) use draft::Draft;
pub(crate) use shape::{shape, vocab_of};

/// What was made.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Its folder.
    pub(crate) folder: RunFolder,
    /// The complete spec.
    pub(crate) spec: RunSpec,
}

/// Where a new run goes.
#[derive(Debug)]
pub(crate) enum Place {
    /// Here; there must be nothing yet.
    At(PathBuf),
    /// Below this folder, under the first free name.
    Below(PathBuf),
}

/// What Ctrl-C says while a run is being made.
const NOT_MADE: &str = "stopped before the run was made; nothing is left of it";
/// What it says from then on.
const MADE: &str =
    "stopped before the run began; it is made: continue with `shoal up --resume` or `shoal orchestrator`";

/// Hears Ctrl-C while a run is being made, of which nothing is left then.
pub(crate) fn making() -> Result<Making<Draft>> {
    Making::new(NOT_MADE)
}

/// Collects text as `--data` says.
pub(crate) fn corpus(args: &DataArgs, exclude: Vec<PathBuf>) -> Result<Corpus> {
    let options =
        CollectOptions { text_field: args.text_field.clone(), exclude, ..CollectOptions::default() };
    let corpus = if args.data.is_empty() {
        let here = std::env::current_dir().context("cannot tell the current folder")?;
        data::collect_current_folder(&here, &options)?
    } else {
        data::collect(&args.data, &options)?
    };
    Ok(corpus)
}

/// The tokenizer of a run.
pub(crate) fn tokenizer(args: &DataArgs, shape: &ShapeArgs) -> Result<Tokenizer> {
    if let Some(init) = shape.init.as_ref().filter(|init| !init.is_dir()) {
        return Err(bad_input(format!("--init {}: there is no such folder", init.display())));
    }
    let in_init = shape.init.as_ref().map(|folder| folder.join("tokenizer.json"));
    let file = args.tokenizer.clone().or(in_init);
    Ok(file.map_or(Ok(Tokenizer::Bytes), |path| Tokenizer::open(&path))?)
}

/// Makes a run folder from data and shape; `adjust` sees the spec before anything is written.
pub(crate) fn prepare(
    making: &Making<Draft>,
    place: &Place,
    data_args: &DataArgs,
    shape_args: &ShapeArgs,
    adjust: impl FnOnce(&mut RunSpec) -> Result<()>,
    mut say: impl FnMut(&str),
) -> Result<Prepared> {
    if let Place::At(folder) = place {
        refuse_used(folder)?;
    }
    let tokenizer = tokenizer(data_args, shape_args)?;
    // The shape is checked before minutes go into data.
    let mut spec = shape(shape_args, &tokenizer)?;
    adjust(&mut spec)?;
    let init = shape_args.init.as_deref().map(Checkpoint::open).transpose()?;
    if let Some(init) = &init
        && let Some(line) = shape::cut_anew(init, &spec)?
    {
        say(&line);
    }
    let champion = crate::champion::find(&shape_args.champion, &spec)?;
    if let Some(found) = &champion {
        say(&found.line());
        if found.is_lossy() && spec.phases.validators_min == 0 {
            say(
                "champion: this run asks for no validator ([phases] validators_min): until one joins it is not used",
            );
        }
    }
    let (Place::At(runs) | Place::Below(runs)) = place;
    let corpus = corpus(data_args, vec![runs.clone()])?;
    say(&format!("data: {}", corpus.summary));
    let split = data::split(corpus)?;
    let parent = parent_of(place)?;
    draft::clear(&parent);
    let runtime = making.runtime();
    let (folder, blobs) = {
        let mut held = making.hold();
        let draft =
            Draft::make(&parent).with_context(|| format!("cannot write below {}", parent.display()))?;
        let folder = RunFolder::new(held.thing.insert(draft).path());
        let blobs = runtime.block_on(store::FolderBlobs::open(folder.blobs(), store::Durability::Synced))?;
        (folder, blobs)
    };
    let keep = |hash: BlobHash, bytes: Vec<u8>| {
        let _held = making.hold();
        runtime.block_on(blobs.put_at(Hash(hash.0), Bytes::from(bytes))).map_err(std::io::Error::other)
    };
    let manifest = data::build(&split, &tokenizer, keep, |_, _| {})?;
    let (train, held_out) = manifest.tokens();
    say(&format!(
        "data: {} tokens to train on, {} held out ({})",
        crate::unit::count(train),
        crate::unit::count(held_out),
        match split.note.method {
            data::SplitMethod::Files => "whole files",
            data::SplitMethod::Tail => "the end of the text",
        }
    ));
    let put = |bytes| {
        let _held = making.hold();
        runtime.block_on(blobs.put(bytes))
    };
    put(Bytes::copy_from_slice(tokenizer.to_bytes()))?;
    spec.data = DataSpec {
        tokenizer: match &tokenizer {
            Tokenizer::Bytes => TokenizerSpec::Bytes,
            Tokenizer::Json(_) => TokenizerSpec::Blob(tokenizer.hash()),
        },
        vocab: manifest.vocab,
        train: manifest.train,
        held_out: manifest.held_out,
    };
    if let Some(init) = &init {
        spec.init = initial_weights(init, &spec, |bytes| Ok(put(bytes)?))?;
    }
    spec.check_data()?;
    let text = spec.canonical();
    // What is read back must be the same run.
    let spec = RunSpec::from_canonical(text.as_bytes(), spec.run_id())?;
    let mut held = making.hold();
    std::fs::write(folder.spec(), text).context("cannot write the run's spec")?;
    node::key::create(&folder.key())?;
    if let Some(found) = &champion {
        runtime.block_on(found.leave(&folder))?;
    }
    drop(blobs);
    let draft = held.thing.take().context("the folder is gone")?;
    let path = settle(draft.finish().context("cannot unlock the new folder")?, place)?;
    held.words = MADE;
    drop(held);
    Ok(Prepared { folder: RunFolder::new(path), spec })
}

/// The folder around a place; made if it is not there.
fn parent_of(place: &Place) -> Result<PathBuf> {
    let parent = match place {
        Place::At(folder) => folder
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .map_or_else(|| PathBuf::from("."), Path::to_path_buf),
        Place::Below(folder) => folder.clone(),
    };
    let made_parent = !parent.exists();
    std::fs::create_dir_all(&parent)
        .with_context(|| format!("cannot make the folder {}", parent.display()))?;
    if made_parent && matches!(place, Place::Below(_)) {
        // Runs are data: a scan or a commit of the folder around them leaves them out.
        std::fs::write(parent.join(".gitignore"), "*\n")
            .with_context(|| format!("cannot write below {}", parent.display()))?;
    }
    Ok(parent)
}

/// Stores the weights of a checkpoint, stage by stage, and returns their hashes.
fn initial_weights(
    checkpoint: &Checkpoint,
    spec: &RunSpec,
    mut put: impl FnMut(Bytes) -> Result<Hash>,
) -> Result<Vec<BlobHash>> {
    let stages = spec.stage_specs();
    let blobs = stages.iter().map(|stage| {
        let weights = checkpoint.weights(stage)?;
        let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
        Ok(BlobHash(put(Bytes::from(bytes))?.0))
    });
    blobs.collect()
}

fn refuse_used(folder: &Path) -> Result<()> {
    let used = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(bad_input(format!("cannot use {} as a folder: {error}", folder.display()))),
    };
    if !used {
        return Ok(());
    }
    let run = RunFolder::new(folder).spec().exists();
    let next = if run {
        format!("continue it with `shoal up --resume --dir {}`, or name another folder", folder.display())
    } else {
        "name another folder".to_owned()
    };
    let what = if run { "already holds a run" } else { "is not empty" };
    Err(bad_input(format!("{} {what}: {next}", folder.display())))
}

/// Gives the finished folder its name. Never replaces anything: a rename onto a folder with files fails.
fn settle(draft: tempfile::TempDir, place: &Place) -> Result<PathBuf> {
    let (base, mut number) = match place {
        Place::At(folder) => (folder.clone(), None),
        Place::Below(parent) => (parent.clone(), Some(1_u32)),
    };
    loop {
        let to = number.map_or_else(|| base.clone(), |number| base.join(format!("run-{number}")));
        let free = number.is_none() || !to.exists();
        let moved = if free {
            std::fs::rename(draft.path(), &to)
        } else {
            Err(std::io::ErrorKind::AlreadyExists.into())
        };
        match moved {
            Ok(()) => {
                let _moved_away = draft.keep();
                return Ok(to);
            }
            Err(error) if number.is_some_and(|number| number < u32::MAX) && to.exists() => {
                tracing::debug!(%error, folder = %to.display(), "taken");
                number = number.map(|number| number + 1);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot make the folder {}", to.display()));
            }
        }
    }
}
