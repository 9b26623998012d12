//! Following a competition: what comes to lead it is tried and pinned while the run goes on.

use std::fs::File;
use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result};
use api::model::EventKind;
use api::{Client, ClientError};
use node::folder::RunFolder;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};

use super::{Champion, component_of};
use crate::arena_cli::Where;
use crate::failure::BadInput;
use crate::up::read_spec;

/// Pause between two looks at who leads when no round ends: code is shown some time after its round.
const LOOK: Duration = Duration::from_secs(15);
/// Pause after something failed.
const AGAIN: Duration = Duration::from_mins(1);
/// Leaders that are remembered as tried.
const TRIED: usize = 64;

/// The competition whose leader a run takes: a file in the run's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Followed {
    /// Address of its host.
    pub(crate) arena: String,
    /// Its name.
    pub(crate) competition: String,
    /// Hashes of leaders' code that were tried, newest last: each is taken once, as it may have been taken off since.
    pub(super) tried: Vec<String>,
}

/// Leave to change what a run's folder says of its codec; others wait.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "held, and let go of when dropped")] File);

impl Lock {
    /// Waits for it: others hold it for moments, or until the orchestrator has answered them.
    pub(super) fn take(folder: &RunFolder) -> Result<Self> {
        let path = folder.codec_lock();
        let locked = File::create(&path).and_then(|file| file.lock().map(|()| file));
        locked.map(Self).with_context(|| format!("cannot lock {}", path.display()))
    }
}

impl Followed {
    /// What a run follows, if anything.
    pub(crate) fn read(folder: &RunFolder) -> Result<Option<Self>> {
        let path = folder.codec_arena();
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let wrong = || {
            format!("{}: delete it, and name the competition again with `shoal run codec`", path.display())
        };
        serde_json::from_str(&text).map(Some).with_context(wrong)
    }

    /// What a run follows from here on; none: nothing.
    pub(super) fn write(followed: Option<&Self>, folder: &RunFolder) -> Result<()> {
        let path = folder.codec_arena();
        let written = match followed {
            Some(followed) => {
                let draft = path.with_extension("arena-draft");
                std::fs::write(&draft, serde_json::to_string(followed)?)
                    .and_then(|()| std::fs::rename(draft, &path))
            }
            None => match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        };
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Pins what comes to lead the competition that a run follows, until this is dropped. An arena that is away is asked
/// again; what is of no use is told of once.
pub(crate) async fn follow(folder: RunFolder) {
    let mut told = String::new();
    loop {
        let pause = match watch(&folder, &mut told).await {
            Ok(()) => LOOK,
            Err(error) => {
                let words = format!("{error:#}");
                if words != told {
                    tracing::warn!(
                        "the competition's champion cannot be asked for now, it is tried again: {words}"
                    );
                    told = words;
                }
                AGAIN
            }
        };
        sleep(pause).await;
    }
}

/// Until something fails, or the run follows something else.
async fn watch(folder: &RunFolder, told: &mut String) -> Result<()> {
    let Some(followed) = Followed::read(folder)? else { return Ok(()) };
    let client = Where::unattended(&followed.arena).await?;
    let mut events = client.events(Some(&followed.competition), None, None);
    events.open().await?;
    while take(folder, &client, &followed).await? {
        told.clear();
        let until = Instant::now() + LOOK;
        while let Ok(event) = timeout_at(until, events.next()).await {
            if event?.kind == EventKind::RoundCompleted {
                break;
            }
        }
    }
    Ok(())
}

/// Takes a leader that was not tried yet; whether the run still follows this competition.
async fn take(folder: &RunFolder, client: &Client, from: &Followed) -> Result<bool> {
    let same = |now: &Followed| (&now.arena, &now.competition) == (&from.arena, &from.competition);
    let Some(before) = Followed::read(folder)?.filter(same) else { return Ok(false) };
    let name = &before.competition;
    let Some(top) = client.competition(name).await?.top else { return Ok(true) };
    if before.tried.contains(&top.code) {
        return Ok(true);
    }
    let (component, source) = match component_of(client, name, &top).await {
        Err(error) if matches!(error.downcast_ref(), Some(ClientError::Gated { .. })) => {
            tracing::debug!("the code of what leads {name} is not shown yet");
            return Ok(true);
        }
        found => found?,
    };
    let spec = read_spec(folder)?;
    let tried = tokio::task::spawn_blocking(move || Champion::try_out(component, &source, &spec)).await?;
    let champion = match tried {
        Ok(champion) => Some(champion),
        Err(error) if error.is::<BadInput>() => {
            tracing::warn!("what leads {name} is not taken: {error:#}");
            None
        }
        // This machine's fault: it may do better later.
        Err(error) => return Err(error),
    };
    if let Some(champion) = &champion {
        champion.keep(folder).await?;
    }
    let mut after = before.clone();
    after.tried.push(top.code);
    after.tried.drain(..after.tried.len().saturating_sub(TRIED));
    let folder = folder.clone();
    let settle = move || {
        let _lock = Lock::take(&folder)?;
        if Followed::read(&folder)?.as_ref() != Some(&before) {
            // Meanwhile the owner chose otherwise.
            return Ok(true);
        }
        if let Some(champion) = &champion {
            champion.wish(&folder)?;
            tracing::info!("{}", champion.line());
        }
        Followed::write(Some(&after), &folder)?;
        Ok(true)
    };
    tokio::task::spawn_blocking(settle).await?
}
