//! What the orchestrator's tasks see of the log: only what is durable.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use leader::{Audience, Written};
use store::{LogError, LogStore};
use swarm::state::{Phase, State};
use tokio::sync::watch;
use tokio::time::Instant;
use wire::{Head, NodeId, Seq};

use crate::limits;

/// An input on its way into a block.
pub(crate) type Pending = leader::Pending<State>;
/// Hands inputs to the leader.
pub(crate) type Inputs = leader::Inputs<State>;

/// Durable part of the log, as the desk and the other tasks see it.
pub(crate) struct Shared {
    store: Arc<dyn LogStore>,
    recent: RwLock<Recent>,
    head: watch::Sender<Option<Head>>,
    state: watch::Sender<Arc<State>>,
    /// Newest block that each node said it has.
    seen: Mutex<BTreeMap<NodeId, Seq>>,
}

#[derive(Debug, Default)]
struct Recent {
    first: Seq,
    blocks: VecDeque<Bytes>,
    bytes: usize,
}

impl Shared {
    pub(crate) fn new(store: Arc<dyn LogStore>, head: Option<Head>, state: State) -> Self {
        let first = head.map_or(Seq(0), |head| head.seq.next());
        Self {
            store,
            recent: RwLock::new(Recent { first, ..Recent::default() }),
            head: watch::Sender::new(head),
            state: watch::Sender::new(Arc::new(state)),
            seen: Mutex::default(),
        }
    }

    /// Shows a block that is durable.
    pub(crate) fn publish(&self, head: Head, block: Bytes) {
        {
            let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
            recent.bytes += block.len();
            recent.blocks.push_back(block);
            while recent.bytes > limits::RECENT_BYTES && recent.blocks.len() > 1 {
                let Some(oldest) = recent.blocks.pop_front() else { break };
                recent.bytes -= oldest.len();
                recent.first = recent.first.next();
            }
        }
        self.head.send_replace(Some(head));
    }

    /// Shows the state behind a durable block.
    pub(crate) fn show(&self, state: Arc<State>) {
        self.state.send_replace(state);
    }

    pub(crate) fn head(&self) -> Option<Head> {
        *self.head.borrow()
    }

    pub(crate) fn heads(&self) -> watch::Receiver<Option<Head>> {
        self.head.subscribe()
    }

    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }

    pub(crate) fn states(&self) -> watch::Receiver<Arc<State>> {
        self.state.subscribe()
    }

    /// Notes what `node` has, by what it asks for.
    pub(crate) fn note_seen(&self, node: NodeId, after: Option<Seq>) {
        let Some(after) = after else { return };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < swarm::limits::NODES_MAX || seen.contains_key(&node) {
            seen.insert(node, after);
        }
    }

    /// Whether `node` has block `seq`.
    pub(crate) fn has_seen(&self, node: &NodeId, seq: Seq) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(node).is_some_and(|seen| *seen >= seq)
    }

    /// Durable blocks from `from` on, as many as one answer may hold.
    pub(crate) async fn blocks(&self, from: Seq) -> Result<Vec<Bytes>, LogError> {
        if let Some(blocks) = self.recent_blocks(from) {
            return Ok(bounded(blocks));
        }
        // The store may be a block ahead of what was published: that one must stay unseen.
        let Some(head) = self.head() else { return Ok(Vec::new()) };
        let behind = (head.seq.0 + 1).saturating_sub(from.0).min(u64::from(limits::BLOCKS_PER_ANSWER));
        Ok(bounded(self.store.read(from, behind as u32).await?))
    }

    fn recent_blocks(&self, from: Seq) -> Option<Vec<Bytes>> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        let skip = from.0.checked_sub(recent.first.0)?;
        let blocks = recent.blocks.iter().skip(usize::try_from(skip).ok()?);
        Some(blocks.take(limits::BLOCKS_PER_ANSWER as usize).cloned().collect())
    }
}

/// Shows what is durable: every block at once, copies of the state less often but for changes of phase.
pub(crate) struct Shows {
    shared: Arc<Shared>,
    /// When the state was last shown, and its phase.
    shown: Option<(Instant, Phase)>,
    /// Whether it has changed since.
    unshown: bool,
}

impl Shows {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, shown: None, unshown: false }
    }
}

impl Audience<State> for Shows {
    fn show(&mut self, state: &State, written: Written<State>) -> Result<(), String> {
        self.shared.publish(written.head, written.bytes);
        self.unshown = true;
        let same = self.shown.is_some_and(|(_, phase)| phase == state.phase());
        if !same || self.refresh_in().is_some_and(|left| left.is_zero()) {
            self.refresh(state);
        }
        Ok(())
    }

    /// A merge is a chain of short steps, training is not.
    fn pace(&self, state: &State) -> Duration {
        match state.phase() {
            Phase::Merging { .. } | Phase::Gathering { .. } => limits::GROUP_COMMIT_MERGING,
            Phase::Training { .. } | Phase::Finished { .. } => limits::GROUP_COMMIT,
        }
    }

    fn refresh_in(&self) -> Option<Duration> {
        let left = |(at, _): (Instant, Phase)| limits::SHOW_EVERY.saturating_sub(at.elapsed());
        self.unshown.then(|| self.shown.map_or(Duration::ZERO, left))
    }

    fn refresh(&mut self, state: &State) {
        self.shared.show(Arc::new(state.clone()));
        self.shown = Some((Instant::now(), state.phase()));
        self.unshown = false;
    }
}

fn bounded(mut blocks: Vec<Bytes>) -> Vec<Bytes> {
    let mut bytes = 0;
    let fit = blocks.iter().take_while(|block| {
        let room = bytes < limits::BLOCKS_ANSWER_BYTES;
        bytes += block.len();
        room
    });
    let fit = fit.count();
    blocks.truncate(fit);
    blocks
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("head", &self.head()).finish_non_exhaustive()
    }
}
