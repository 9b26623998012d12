//! Seals that entrants gave into the host's keeping: code and salt, kept until the round opens them.
//!
//! Who hands both over trusts the host twice: it could read the code early, and it could keep the seal shut. Nobody has
//! to: an entrant's own agent opens seals just as well. What is kept survives a restart; what was opened is forgotten.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use arena::record::{EntryId, Input, STATEMENT_KIND, Statement, Step};
use arena::state::EntryState;
use arena::{Refusal, State};
use serde::{Deserialize, Serialize};
use store::{LogError, LogStore};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wire::{Envelope, Hash, NodeId, SigningKey};

use super::{HostError, submit};
use crate::limits;
use crate::server::App;

/// Key of the durable list of entries whose seals are kept.
const KEPT: &str = "custody";

/// What opens a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opening {
    /// Hash of the code; the code itself is a blob.
    pub(crate) code: Hash,
    /// Its size.
    pub(crate) bytes: u64,
    /// Its salt.
    pub(crate) salt: Hash,
}

/// The kept seals.
pub(crate) struct Custody {
    log: Arc<dyn LogStore>,
    kept: Mutex<BTreeSet<Hash>>,
    /// One writer of the durable list at a time.
    writing: tokio::sync::Mutex<()>,
    changed: Notify,
}

impl Custody {
    pub(crate) async fn open(log: Arc<dyn LogStore>) -> Result<Self, LogError> {
        let kept = log.get(KEPT).await?.and_then(|bytes| wire::from_bytes(&bytes).ok()).unwrap_or_default();
        Ok(Self {
            log,
            kept: Mutex::new(kept),
            writing: tokio::sync::Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Keeps what opens a seal; durable when this returns.
    pub(crate) async fn keep(&self, seal: Hash, opening: Opening) -> Result<(), LogError> {
        self.log.put(&key(&seal), wire::to_bytes(&opening).into()).await?;
        self.change(|kept| kept.insert(seal)).await?;
        self.changed.notify_one();
        Ok(())
    }

    /// Whether a seal is kept here.
    pub(crate) fn has(&self, seal: &Hash) -> bool {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).contains(seal)
    }

    pub(crate) async fn forget(&self, seal: &Hash) -> Result<(), LogError> {
        self.change(|kept| kept.remove(seal)).await?;
        self.log.remove(&key(seal)).await
    }

    async fn change(&self, change: impl FnOnce(&mut BTreeSet<Hash>) -> bool) -> Result<(), LogError> {
        let _one = self.writing.lock().await;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !change(&mut kept) {
            return Ok(());
        }
        self.log.put(KEPT, wire::to_bytes(&kept).into()).await?;
        // Shown once it is durable: what failed or was cut off before is done again by the next try.
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        Ok(())
    }

    fn all(&self) -> Vec<Hash> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

fn key(seal: &Hash) -> String {
    format!("custody {seal}")
}

/// The key under which the host states for somebody who has no key of the arena's kind (Epistula).
pub(crate) fn ward(host: &SigningKey, hotkey: &[u8; 32]) -> SigningKey {
    SigningKey::from_bytes(&host.derive("epistula hotkey", &[hotkey]).0)
}

/// What a kept seal needs now.
enum Need {
    Wait,
    Open(EntryId),
    Forget,
}

fn need(state: &State, seal: &Hash) -> Need {
    // Kept before it is entered, so that a crash in between loses nothing.
    let Some(entry) = state.entry_of_seal(seal) else { return Need::Wait };
    let round = state.competition(&entry.competition).and_then(|found| found.live.get(&entry.round));
    match (entry.state, round.map(|round| round.step)) {
        (EntryState::Sealed, Some(Step::Opening)) => Need::Open(entry.id),
        (EntryState::Sealed, Some(Step::Open | Step::Pooling)) => Need::Wait,
        _ => Need::Forget,
    }
}

/// Opens kept seals when their time comes, until `stop`.
pub(super) async fn keep(app: Arc<App>, stop: CancellationToken) -> Result<(), HostError> {
    let mut heads = app.shared.heads();
    // Whoever was cut off before it entered what it gave, enters it anew.
    for seal in app.custody.all() {
        if app.shared.view().state.entry_of_seal(&seal).is_none() {
            app.custody.forget(&seal).await?;
        }
    }
    loop {
        heads.borrow_and_update();
        for seal in app.custody.all() {
            let what = need(&app.shared.view().state, &seal);
            match what {
                Need::Wait => {}
                Need::Forget => app.custody.forget(&seal).await?,
                Need::Open(entry) => open(&app, entry, &seal).await?,
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = app.custody.changed.notified() => {}
            changed = heads.changed(), if !app.custody.all().is_empty() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(limits::CUSTODY_LOOK) => {}
        }
    }
}

async fn open(app: &App, entry: EntryId, seal: &Hash) -> Result<(), HostError> {
    let bytes = app.custody.log.get(&key(seal)).await?;
    let Some(opening) = bytes.and_then(|bytes| wire::from_bytes::<Opening>(&bytes).ok()) else {
        tracing::warn!(entry = entry.0, "an entrusted seal is not readable");
        return Ok(app.custody.forget(seal).await?);
    };
    let Opening { code, bytes, salt } = opening;
    match state(app, &app.key, &Statement::Unseal { entry, code, bytes, salt }).await {
        Some(Ok(_) | Err(Refusal::Repeated { .. })) => app.custody.forget(seal).await?,
        Some(Err(refusal)) => tracing::warn!(entry = entry.0, %refusal, "an entrusted seal did not open yet"),
        None => {}
    }
    Ok(())
}

/// States something under a key that the host holds.
pub(crate) async fn state(app: &App, key: &SigningKey, statement: &Statement) -> Option<super::Outcome> {
    let body = wire::to_bytes(statement);
    let len = body.len() + 256;
    let now = app.shared.clock.now();
    let envelope = Envelope::sign(key, app.run(), STATEMENT_KIND, body, now, app.next_nonce());
    submit(&app.inputs, Input::Stated(envelope), len).await
}

/// The entrant of what somebody without a key of the arena's kind enters.
pub(crate) fn ward_id(host: &SigningKey, hotkey: &[u8; 32]) -> NodeId {
    ward(host, hotkey).node_id()
}
