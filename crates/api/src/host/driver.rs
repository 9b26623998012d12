//! The one task that owns the leading state: inputs in, blocks out, effects only behind a durable block.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arena::record::{Control, Input, Record};
use arena::{Refusal, State, commit};
use bytes::Bytes;
use ledger::Chain;
use ledger::fold::Unfit;
use store::LogStore;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::{Millis, NodeId, Seq, SigningKey, Term};

use super::HostError;
use super::shared::{Outcome, Pending, Shared};
use crate::limits;

/// Owner of the leading state. It is one block ahead of what is served, while that block is written.
pub(crate) struct Driver {
    pub(super) state: State,
    pub(super) chain: Chain,
    pub(super) term: Term,
    pub(super) key: SigningKey,
    pub(super) store: Arc<dyn LogStore>,
    pub(super) shared: Arc<Shared>,
    pub(super) inputs: mpsc::Receiver<Pending>,
    /// Block of each key's last accepted statement: the answer to the same statement again.
    pub(super) acknowledged: BTreeMap<NodeId, Seq>,
    /// Clock when the state was last asked what follows.
    pub(super) checked: Millis,
    pub(super) last_block: Option<Instant>,
}

impl Driver {
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Commits inputs until `stop`, or until the store fails.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), HostError> {
        loop {
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                batch = self.collect() => batch,
            };
            let Some(batch) = batch else { return Ok(()) };
            // Not cut off by `stop`: what was begun is written and answered.
            self.commit(batch).await?;
        }
    }

    /// The host's own input, before anybody is served.
    pub(super) async fn control(&mut self, control: Control) -> Result<(), HostError> {
        let now = self.shared.clock.now();
        let committed = commit::commit(&mut self.state, now, vec![Input::Control(control)]);
        if !committed.records.is_empty() {
            self.write(committed.records).await?;
        }
        match committed.outcomes.into_iter().next() {
            Some(Err(refusal)) => {
                Err(HostError::Refused { what: "an input of the host".into(), reason: refusal.to_string() })
            }
            _ => Ok(()),
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
        let now = self.shared.clock.now();
        let due = self.state.next_deadline(self.checked).map(|at| Duration::from_millis(at.since(now).0));
        tokio::select! {
            biased;
            pending = self.inputs.recv() => if take(pending?, &mut batch) {
                return Some(batch);
            },
            () = sleep_or_never(due) => return Some(batch),
        }
        // Group commit: at once when idle, else not more often than every few milliseconds.
        let pause =
            self.last_block.map_or(Duration::ZERO, |at| limits::GROUP_COMMIT.saturating_sub(at.elapsed()));
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

    /// Makes a block of what the inputs and the time lead to, waits until it is durable, shows it, then answers.
    async fn commit(&mut self, batch: Vec<Pending>) -> Result<(), HostError> {
        let (inputs, answers): (Vec<Input>, Vec<_>) =
            batch.into_iter().map(|pending| (pending.input, pending.answer)).unzip();
        let senders: Vec<Option<NodeId>> = inputs.iter().map(sender).collect();
        self.checked = self.shared.clock.now();
        let committed = commit::commit(&mut self.state, self.checked, inputs);
        let seq = if committed.records.is_empty() { Seq(0) } else { self.write(committed.records).await? };
        for ((outcome, sender), answer) in committed.outcomes.into_iter().zip(senders).zip(answers) {
            let outcome = self.outcome(outcome, sender, seq);
            drop(answer.send(outcome)); // whoever asked may have gone; it will ask again
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

    /// Appends a block; when it is durable, shows it.
    pub(super) async fn write(&mut self, records: Vec<Record>) -> Result<Seq, HostError> {
        let bytes = records.iter().map(wire::to_bytes).collect();
        let block = self.chain.append(&self.key, self.state.now(), bytes)?;
        let (head, time) = (block.header().head(), block.header().time);
        let bytes = Bytes::from(wire::to_bytes(&block));
        let append = self.store.append(self.term, head.seq, bytes);
        tokio::time::timeout(limits::APPEND, append).await.map_err(|_| HostError::SlowDisk)??;
        self.last_block = Some(Instant::now());
        let digest = self.shared.show(head, time, records);
        if digest == self.state.digest() { Ok(head.seq) } else { Err(HostError::Diverged) }
    }
}

fn sender(input: &Input) -> Option<NodeId> {
    match input {
        Input::Stated(envelope) => Some(envelope.sender),
        Input::Control(_) => None,
    }
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
