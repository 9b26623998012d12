//! The one task that owns the state: inputs in, blocks out, effects only behind a durable block (protocol §6 "Order").

use ledger::fold::Unfit;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ledger::Chain;
use store::LogStore;
use swarm::commit;
use swarm::record::{Input, Record};
use swarm::refusal::Refusal;
use swarm::state::{Phase, State};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::{Millis, NodeId, Seq, SigningKey, Term};

use super::OrchestratorError;
use super::shared::{Outcome, Pending, Shared};
use crate::clock::{self, Clock};
use crate::limits;

/// Owner of the state.
pub(crate) struct Driver {
    pub(crate) state: State,
    pub(crate) chain: Chain,
    pub(crate) term: Term,
    pub(crate) key: SigningKey,
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) inputs: mpsc::Receiver<Pending>,
    /// Block of each node's last accepted statement: what a resend is answered with.
    pub(crate) acknowledged: BTreeMap<NodeId, Seq>,
    pub(crate) clock: Clock,
    /// Up to when deadlines were looked at.
    pub(crate) checked: Millis,
    /// When the newest block was made.
    pub(crate) last_block: Option<Instant>,
    /// When the state was last shown to the other tasks, and whether it has changed since.
    pub(crate) shown: Option<Instant>,
    pub(crate) unshown: bool,
}

impl Driver {
    /// Commits inputs until `stop`, or until the store fails.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), OrchestratorError> {
        loop {
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                batch = self.collect() => batch,
            };
            let Some(batch) = batch else { return Ok(()) };
            self.commit(batch).await?;
        }
    }

    /// Inputs of the next block; empty when only time has passed. None when nobody is left to send any.
    async fn collect(&mut self) -> Option<Vec<Pending>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut take = |pending: Pending, batch: &mut Vec<Pending>| {
            bytes += pending.len;
            batch.push(pending);
            bytes >= limits::GROUP_COMMIT_BYTES || batch.len() >= limits::GROUP_COMMIT_INPUTS
        };
        loop {
            let now = self.clock.now();
            let due = self.state.next_deadline(self.checked).map(|at| clock::until(now, at));
            let show =
                self.unshown.then(|| self.shown.map_or(Duration::ZERO, |at| left(at, limits::SHOW_EVERY)));
            tokio::select! {
                biased;
                pending = self.inputs.recv() => {
                    if take(pending?, &mut batch) {
                        return Some(batch);
                    }
                    break;
                }
                () = sleep_or_never(due) => return Some(batch),
                () = sleep_or_never(show) => self.show(),
            }
        }
        // Group commit: at once when idle, else not more often than every few milliseconds.
        let pause = self.last_block.map_or(Duration::ZERO, |at| left(at, self.pace()));
        let end = tokio::time::sleep(pause);
        tokio::pin!(end);
        loop {
            tokio::select! {
                biased;
                pending = self.inputs.recv() => match pending {
                    Some(pending) => if take(pending, &mut batch) { return Some(batch) },
                    None => return Some(batch),
                },
                () = &mut end => return Some(batch),
            }
        }
    }

    /// How far blocks lie apart at least: a merge is a chain of short steps, training is not.
    fn pace(&self) -> Duration {
        match self.state.phase() {
            Phase::Merging { .. } | Phase::Gathering { .. } => limits::GROUP_COMMIT_MERGING,
            Phase::Training { .. } | Phase::Finished { .. } => limits::GROUP_COMMIT,
        }
    }

    /// Makes a block of what the inputs and the time lead to, waits until it is durable, then answers.
    async fn commit(&mut self, batch: Vec<Pending>) -> Result<(), OrchestratorError> {
        let (inputs, answers): (Vec<Input>, Vec<_>) =
            batch.into_iter().map(|pending| (pending.input, pending.answer)).unzip();
        let senders: Vec<Option<NodeId>> = inputs.iter().map(sender).collect();
        let phase = self.state.phase();
        self.checked = self.clock.now();
        let committed = commit::commit(&mut self.state, self.checked, inputs);
        let wrote = !committed.records.is_empty();
        let seq = if wrote { self.write(&committed.records).await? } else { Seq(0) };
        for ((outcome, sender), answer) in committed.outcomes.into_iter().zip(senders).zip(answers) {
            let outcome = self.outcome(outcome, sender, seq);
            drop(answer.send(outcome)); // whoever asked may have gone; it will ask again
        }
        if wrote {
            self.unshown = true;
            let waited = self.shown.is_none_or(|at| left(at, limits::SHOW_EVERY).is_zero());
            if waited || phase != self.state.phase() {
                self.show();
            }
        }
        Ok(())
    }

    fn outcome(&mut self, outcome: Result<(), Refusal>, sender: Option<NodeId>, seq: Seq) -> Outcome {
        match (outcome, sender) {
            (Ok(()), Some(sender)) => {
                self.acknowledged.insert(sender, seq);
                Ok(seq)
            }
            (Ok(()), None) => Ok(seq),
            (Err(Refusal::Unfit(Unfit::Duplicate)), Some(sender)) => {
                self.acknowledged.get(&sender).copied().ok_or(Refusal::Unfit(Unfit::Duplicate))
            }
            (Err(refusal), _) => Err(refusal),
        }
    }

    pub(super) async fn write(&mut self, records: &[Record]) -> Result<Seq, OrchestratorError> {
        let records = records.iter().map(wire::to_bytes).collect();
        let block = self.chain.append(&self.key, self.state.now(), records)?;
        let head = block.header().head();
        let bytes = Bytes::from(wire::to_bytes(&block));
        let append = self.store.append(self.term, head.seq, bytes.clone());
        tokio::time::timeout(limits::APPEND, append).await.map_err(|_| OrchestratorError::SlowDisk)??;
        self.last_block = Some(Instant::now());
        self.shared.publish(head, bytes);
        Ok(head.seq)
    }

    pub(super) fn show(&mut self) {
        self.shared.show(Arc::new(self.state.clone()));
        self.shown = Some(Instant::now());
        self.unshown = false;
    }
}

fn sender(input: &Input) -> Option<NodeId> {
    match input {
        Input::Stated(envelope) => Some(envelope.sender),
        Input::Control(_) => None,
    }
}

fn left(since: Instant, span: Duration) -> Duration {
    span.saturating_sub(since.elapsed())
}

async fn sleep_or_never(span: Option<Duration>) {
    match span {
        Some(span) => tokio::time::sleep(span).await,
        None => std::future::pending().await,
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("term", &self.term).finish_non_exhaustive()
    }
}
