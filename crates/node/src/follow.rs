//! Following the log: long poll, check, fold, publish.
//!
//! Every node runs one follower. It holds the node's only view of the run: what the node does is a function of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ledger::Chain;
use ledger::fold::Signatures;
use ledger::verify::{self, Fault, Next, Replay};
use net::{Link, LinkError, PeerAddress};
use swarm::record::{Control, Record};
use swarm::state::{Phase, State};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::{Head, Millis, NodeId, RunId, Seq};

use crate::backoff::Backoff;
use crate::limits;
use crate::rpc::{self, Reply, ReplyError, Request};

/// Why a log cannot be followed. All but [`FollowError::Silent`] and [`FollowError::Stopped`] are the orchestrator's
/// fault, and evidence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// No block came.
    #[error("the orchestrator {} gave no log within {} s ({reason}): check the ticket, and that it runs", orchestrator.short(), within.as_secs())]
    Silent {
        /// Who was asked.
        orchestrator: NodeId,
        /// For how long.
        within: Duration,
        /// What the last try said.
        reason: String,
    },
    /// The log does not follow, or is another one.
    #[error(transparent)]
    Log(Box<Fault<State>>),
    /// The first block does not begin a run.
    #[error("the log does not begin as a run: its first block has no genesis record")]
    NoGenesis,
    /// The follower was stopped.
    #[error("the follower was stopped")]
    Stopped,
}

/// What a node knows of the run.
#[derive(Clone, Debug)]
pub struct View {
    /// Everything that the log says.
    pub state: State,
    /// Newest block.
    pub head: Head,
    /// Canonical bytes of the run spec.
    pub run_spec: Arc<[u8]>,
}

impl From<Fault<State>> for FollowError {
    fn from(fault: Fault<State>) -> Self {
        Self::Log(Box::new(fault))
    }
}

/// Canonical bytes of the run spec, from the records of a log's first block.
pub fn run_spec(first: &[Record]) -> Option<&[u8]> {
    match first.first() {
        Some(Record::Control(Control::Genesis { run_spec, .. })) => Some(run_spec),
        _ => None,
    }
}

/// A node's handle on the log it follows. Clones see the same view.
#[derive(Clone, Debug)]
pub struct Log {
    views: watch::Receiver<View>,
    failure: Arc<std::sync::OnceLock<FollowError>>,
    over: CancellationToken,
}

impl Log {
    /// Looks at the newest view. The follower waits meanwhile: be quick, and never hold it over an await.
    pub fn read<R>(&self, look: impl FnOnce(&View) -> R) -> R {
        look(&self.views.borrow())
    }

    /// Looks at the newest view and marks it as seen by [`Log::changed`].
    pub fn read_new<R>(&mut self, look: impl FnOnce(&View) -> R) -> R {
        look(&self.views.borrow_and_update())
    }

    /// Newest head, for frame headers.
    pub fn head(&self) -> Head {
        self.read(|view| view.head)
    }

    /// Waits for a view that was not seen yet.
    ///
    /// # Errors
    /// The follower stopped; [`Log::failure`] may say why.
    pub async fn changed(&mut self) -> Result<(), FollowError> {
        self.views.changed().await.map_err(|_| FollowError::Stopped)
    }

    /// Waits until `holds` does, and returns what it gave; none when `within` passed first.
    ///
    /// # Errors
    /// The follower stopped.
    pub async fn until<R>(
        &mut self,
        within: Duration,
        mut holds: impl FnMut(&View) -> Option<R>,
    ) -> Result<Option<R>, FollowError> {
        let wait = async {
            loop {
                if let Some(result) = self.read_new(&mut holds) {
                    return Ok(result);
                }
                self.changed().await?;
            }
        };
        tokio::time::timeout(within, wait).await.map_or(Ok(None), |result| result.map(Some))
    }

    /// Waits until the run is over and the orchestrator has no more use for this node. Until then a node goes on to
    /// serve what it holds: the last weights are still to be kept and measured.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Why the follower gave up, if it did.
    pub fn failure(&self) -> Option<&FollowError> {
        self.failure.get()
    }
}

/// What a follower needs.
#[derive(Clone)]
pub struct Follow {
    /// Link of this node; it learns the addresses of all nodes in the log.
    pub link: Arc<dyn Link>,
    /// Whom to ask, and who signs.
    pub orchestrator: NodeId,
    /// Run.
    pub run: RunId,
    /// How long the log may be silent before the first answer.
    pub patience: Duration,
}

impl Follow {
    /// Waits until the log is folded up to its present head, then follows in the background until `stop`, in one task of `tasks`.
    ///
    /// # Errors
    /// No log within the patience, or one that is not a run's.
    pub async fn start(self, tasks: &mut JoinSet<()>, stop: &CancellationToken) -> Result<Log, FollowError> {
        self.start_tapped(tasks, stop, None).await
    }

    /// [`Follow::start`]; the records of every block behind the first go to `tap` too, once they are folded. What a
    /// full tap does not take is passed over.
    ///
    /// # Errors
    /// As [`Follow::start`].
    pub async fn start_tapped(
        self,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
        tap: Option<mpsc::Sender<Arc<Vec<Record>>>>,
    ) -> Result<Log, FollowError> {
        let backoff = Backoff::new(self.link.id());
        let mut follower = Follower { backoff, known: BTreeMap::new(), follow: self, tap };
        let (chain, view) = tokio::select! {
            () = stop.cancelled() => return Err(FollowError::Stopped),
            caught_up = follower.catch_up() => caught_up?,
        };
        follower.learn(&view.state);
        let (sender, views) = watch::channel(view);
        let failure = Arc::new(std::sync::OnceLock::new());
        let over = CancellationToken::new();
        let log = Log { views, failure: Arc::clone(&failure), over: over.clone() };
        let stop = stop.clone();
        tasks.spawn(async move {
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = follower.run(chain, &sender, &over) => outcome,
            };
            let Err(error) = outcome;
            tracing::error!(%error, "the log cannot be followed any further");
            drop(failure.set(error));
        });
        Ok(log)
    }
}

/// Why no blocks came.
struct Missed {
    reason: String,
    /// The orchestrator says that it stops.
    stopping: bool,
}

impl From<LinkError> for Missed {
    fn from(error: LinkError) -> Self {
        let stopping =
            matches!(&error, LinkError::Refused { refusal, .. } if refusal.code == rpc::code::STOPPING);
        Self { reason: error.to_string(), stopping }
    }
}

impl From<ReplyError> for Missed {
    fn from(error: ReplyError) -> Self {
        Self { reason: error.to_string(), stopping: false }
    }
}

struct Follower {
    follow: Follow,
    backoff: Backoff,
    known: BTreeMap<NodeId, Vec<u8>>,
    tap: Option<mpsc::Sender<Arc<Vec<Record>>>>,
}

impl Follower {
    /// Folds the log up to the head of the moment: what lies in the past must not be taken for the present.
    async fn catch_up(&mut self) -> Result<(Chain, View), FollowError> {
        let patience = self.follow.patience;
        let mut replay = Replay::<State>::new(self.follow.run, self.follow.orchestrator);
        let mut spec = None;
        let mut reason = "no answer".to_owned();
        let mut heard = Instant::now();
        loop {
            let after = replay.head().map(|head| head.seq);
            let left = patience.saturating_sub(heard.elapsed());
            match tokio::time::timeout(left, self.ask(after)).await {
                Ok(Ok((blocks, newest))) if !blocks.is_empty() => {
                    heard = Instant::now();
                    for block in &blocks {
                        let records = replay.push(block, Signatures::Check)?;
                        spec = spec.or_else(|| run_spec(&records).map(Arc::from));
                        tokio::task::yield_now().await;
                    }
                    if newest.is_none_or(|newest| replay.next_seq() > newest.seq) {
                        self.backoff.reset();
                        let head = replay.head();
                        let (chain, state) = replay.into_parts();
                        let parts = state.zip(head).zip(spec);
                        let ((state, head), run_spec) = parts.ok_or(FollowError::NoGenesis)?;
                        tracing::debug!(seq = %head.seq, hash = %head.hash, "caught up");
                        return Ok((chain, View { state, head, run_spec }));
                    }
                    continue;
                }
                Ok(Ok(_)) => "its log is empty".clone_into(&mut reason),
                Ok(Err(missed)) => reason = missed.reason,
                Err(_) => {
                    let orchestrator = self.follow.orchestrator;
                    return Err(FollowError::Silent { orchestrator, within: patience, reason });
                }
            }
            tokio::time::sleep(self.backoff.pause()).await;
        }
    }

    async fn run(
        &mut self,
        mut chain: Chain,
        sender: &watch::Sender<View>,
        over: &CancellationToken,
    ) -> Result<std::convert::Infallible, FollowError> {
        let mut heard = Instant::now();
        let mut blocks: Vec<bytes::Bytes> = Vec::new();
        loop {
            for bytes in &blocks {
                let Next { head, time, records } = verify::next::<State>(&mut chain, bytes)?;
                let mut outcome = Ok(());
                sender.send_modify(|view| {
                    outcome = verify::replay(&mut view.state, time, &records);
                    view.head = head;
                });
                outcome.map_err(|lie| lie.at(head.seq))?;
                tracing::debug!(seq = %head.seq, hash = %head.hash, "followed");
                if let Some(tap) = &self.tap {
                    drop(tap.try_send(Arc::new(records)));
                }
                tokio::task::yield_now().await;
            }
            if !blocks.is_empty() {
                self.learn(&sender.borrow().state);
            }
            let after = sender.borrow().head.seq;
            blocks = match self.ask(Some(after)).await {
                Ok((blocks, _)) => {
                    self.backoff.reset();
                    heard = Instant::now();
                    blocks
                }
                Err(missed) => {
                    tracing::debug!(reason = missed.reason, "no blocks");
                    let finished = matches!(sender.borrow().state.phase(), Phase::Finished { .. });
                    if finished && (missed.stopping || heard.elapsed() > limits::FAREWELL_SILENCE) {
                        over.cancel();
                    }
                    tokio::time::sleep(self.backoff.pause()).await;
                    Vec::new()
                }
            };
        }
    }

    async fn ask(&self, after: Option<Seq>) -> Result<(Vec<bytes::Bytes>, Option<Head>), Missed> {
        let wait = Millis(limits::LONG_POLL.as_millis() as u64);
        let request = Request::Blocks { after, wait };
        let deadline = request.deadline();
        let call =
            self.follow.link.call(&self.follow.orchestrator, request.message(self.follow.run), deadline);
        let answer = call.await?;
        match Reply::parse(&answer)? {
            Reply::Blocks { lengths, head } => {
                Ok((rpc::split(&answer.payload, lengths.into_iter().map(u64::from)), head))
            }
            other => Err(ReplyError::Unexpected(other.name()).into()),
        }
    }

    /// Tells the link where every node is that joined since the last look.
    fn learn(&mut self, state: &State) {
        learn_addresses(self.follow.link.as_ref(), state, &mut self.known);
    }
}

/// Tells `link` the addresses in `state` that differ from those in `known`.
pub(crate) fn learn_addresses(link: &dyn Link, state: &State, known: &mut BTreeMap<NodeId, Vec<u8>>) {
    for (id, node) in state.nodes() {
        let address = &node.join.address;
        if *id == link.id() || known.get(id).is_some_and(|known| known == address) {
            continue;
        }
        known.insert(*id, address.clone());
        match wire::from_bytes::<PeerAddress>(address) {
            Ok(address) => link.learn(*id, address),
            Err(error) => tracing::warn!(node = %id.short(), %error, "address of a node does not decode"),
        }
    }
}

impl std::fmt::Debug for Follow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow")
            .field("orchestrator", &self.orchestrator)
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}
