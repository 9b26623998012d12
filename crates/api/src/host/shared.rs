//! What everybody but the leader sees of the log: only what is durable.
//!
//! The served state is a second copy that follows block by block, so that reads never wait for a disk and never see what
//! a crash could take back.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use arena::record::Record;
use arena::state::{Signatures, State};
use arena::verify;
use leader::{Audience, Written};
use store::{LogError, LogStore};
use tokio::sync::watch;
use wire::{Head, Millis, Seq};

use super::index::Index;
use crate::clock::Clock;
use crate::limits;

/// An input on its way into a block.
pub(crate) type Pending = leader::Pending<State>;
/// What became of an input, told once its block is durable and shown.
pub(crate) type Outcome = leader::Outcome<State>;
/// Hands inputs to the leader.
pub(crate) type Inputs = leader::Inputs<State>;

/// A block's records, for event streams.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) seq: Seq,
    pub(crate) time: Millis,
    pub(crate) records: Arc<Vec<Record>>,
}

/// The served state with its indexes.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) state: State,
    pub(crate) index: Index,
}

impl View {
    /// Follows one block.
    fn fold(&mut self, seq: Seq, time: Millis, records: &[Record]) -> Result<(), String> {
        // The state began as the one behind the first block.
        if seq > Seq(0) {
            verify::replay_with(&mut self.state, time, records, |_| Signatures::Trust)
                .map_err(|lie| lie.to_string())?;
        }
        self.index.note(&self.state, seq, records);
        Ok(())
    }
}

/// Durable part of the log.
pub(crate) struct Shared {
    pub(crate) clock: Arc<Clock>,
    store: Arc<dyn LogStore>,
    view: RwLock<View>,
    recent: RwLock<Recent>,
    head: watch::Sender<Option<Head>>,
}

#[derive(Debug, Default)]
struct Recent {
    blocks: VecDeque<Told>,
    bytes: usize,
}

impl Shared {
    pub(super) fn new(store: Arc<dyn LogStore>, head: Option<Head>, view: View, clock: Arc<Clock>) -> Self {
        Self {
            clock,
            store,
            view: RwLock::new(view),
            recent: RwLock::default(),
            head: watch::Sender::new(head),
        }
    }

    fn show(&self, state: &State, written: Written<State>) -> Result<(), String> {
        let Written { head, time, records, .. } = written;
        {
            let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
            view.fold(head.seq, time, &records)?;
            if view.state.digest() != state.digest() {
                return Err("their digests differ".to_owned());
            }
        }
        {
            let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
            recent.bytes += weight(&records);
            recent.blocks.push_back(Told { seq: head.seq, time, records: Arc::new(records) });
            while recent.bytes > limits::RECENT_BYTES && recent.blocks.len() > 1 {
                let Some(oldest) = recent.blocks.pop_front() else { break };
                recent.bytes -= weight(&oldest.records);
            }
        }
        self.head.send_replace(Some(head));
        Ok(())
    }

    /// The served state. Held for as long as an answer takes to make, never across an await.
    pub(crate) fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn head(&self) -> Option<Head> {
        *self.head.borrow()
    }

    pub(crate) fn heads(&self) -> watch::Receiver<Option<Head>> {
        self.head.subscribe()
    }

    /// Blocks from `from` on that are shown, at most `limit`.
    pub(crate) async fn blocks(&self, from: Seq, limit: u32) -> Result<Vec<Told>, LogError> {
        let Some(head) = self.head().filter(|head| head.seq >= from) else { return Ok(Vec::new()) };
        {
            let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
            if recent.blocks.front().is_some_and(|first| first.seq <= from) {
                let wanted = recent.blocks.iter().filter(|told| told.seq >= from);
                return Ok(wanted.take(limit as usize).cloned().collect());
            }
        }
        let behind = (head.seq.0 + 1 - from.0).min(u64::from(limit)) as u32;
        let blocks = self.store.read(from, behind).await?;
        blocks.iter().map(|bytes| decode(bytes)).collect()
    }
}

/// Shows every block to all who are served.
pub(crate) struct Shows(pub(super) Arc<Shared>);

impl Audience<State> for Shows {
    fn show(&mut self, state: &State, written: Written<State>) -> Result<(), String> {
        self.0.show(state, written)
    }

    fn pace(&self, _state: &State) -> Duration {
        limits::GROUP_COMMIT
    }
}

/// Decodes a block of the own log.
pub(crate) fn decode(bytes: &[u8]) -> Result<Told, LogError> {
    let corrupt = |reason: String| LogError::Corrupt { place: "the log".into(), reason };
    let block: ledger::Block = wire::from_bytes(bytes).map_err(|error| corrupt(error.to_string()))?;
    let records = arena::verify::records(&block.records).map_err(|(_, error)| corrupt(error.to_string()))?;
    let header = block.header();
    Ok(Told { seq: header.seq, time: header.time, records: Arc::new(records) })
}

/// About how much memory records take, bytes.
fn weight(records: &[Record]) -> usize {
    let body = |record: &Record| match record {
        Record::Stated(envelope) => envelope.body.len(),
        Record::Control(_) | Record::Derived(_) => 64,
    };
    records.iter().map(|record| 256 + body(record)).sum()
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("head", &self.head()).finish_non_exhaustive()
    }
}
