//! The one writer of a log: opens it, takes inputs, makes blocks, and shows and acknowledges only what is durable
//! (protocol §6 "Order"). It can be killed at any instruction and goes on from its log.
//!
//! This crate must never know which protocol the log holds ([`Fold`] does) nor who asks over which link: an [`Audience`]
//! is shown what became durable.

pub mod clock;
pub mod limits;
mod open;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ledger::commit::{self, Committed};
use ledger::fold::{Input, InputOf, RecordOf, Unfit};
use ledger::verify::Fault;
use ledger::{Chain, ChainError, Fold};
use store::LogStore;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::{Head, Millis, NodeId, Seq, SigningKey, Term};

pub use clock::Clock;
pub use open::{Opened, open};

/// Why a log cannot be led, or not any longer. Nothing that was acknowledged is lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaderError<F: Fold> {
    /// The log is another one, or its bytes are damaged.
    #[error("the log does not fit: {0}; is it the right folder? Else put back a copy of its log")]
    Log(#[source] Box<Fault<F>>),
    /// A log cannot begin like this.
    #[error(transparent)]
    Genesis(F::GenesisError),
    /// The log's store failed.
    #[error(transparent)]
    Store(#[from] store::LogError),
    /// A block could not be made.
    #[error("a block could not be made: {0}")]
    Chain(#[from] ChainError),
    /// The disk did not answer.
    #[error("the log's disk did not answer within {} s: look at the disk, then start again; nothing acknowledged is lost", limits::APPEND.as_secs())]
    SlowDisk,
    /// What is served does not follow the log: a defect.
    #[error("what is served differs from the log ({reason}): please report it; the log is safe, start again")]
    Diverged {
        /// What was found.
        reason: String,
    },
}

/// An input on its way into a block.
#[derive(Debug)]
pub struct Pending<F: Fold> {
    /// The input.
    pub input: InputOf<F>,
    /// Its size, bytes, for the bound of a group commit.
    pub len: usize,
    /// Told what became of it, once its block is durable and shown.
    pub answer: oneshot::Sender<Outcome<F>>,
}

/// What became of an input: the block that holds it, or why it was refused.
pub type Outcome<F> = Result<Seq, <F as Fold>::Refusal>;
/// Hands inputs to a leader; [`queue`] makes one.
pub type Inputs<F> = mpsc::Sender<Pending<F>>;

/// A queue of inputs.
pub fn queue<F: Fold>() -> (Inputs<F>, mpsc::Receiver<Pending<F>>) {
    mpsc::channel(limits::INPUT_QUEUE)
}

/// A block that is durable.
#[derive(Debug)]
pub struct Written<F: Fold> {
    /// Position and hash.
    pub head: Head,
    /// Time.
    pub time: Millis,
    /// The block, encoded.
    pub bytes: Bytes,
    /// What it holds.
    pub records: Vec<RecordOf<F>>,
}

/// Who is shown the log as it grows.
pub trait Audience<F: Fold>: Send {
    /// Shows a durable block and the state that it led to. An error ends the leader: what is served no longer follows the log.
    fn show(&mut self, state: &F, written: Written<F>) -> Result<(), String>;
    /// How far blocks lie apart at least while a state lasts.
    fn pace(&self, state: &F) -> Duration;
    /// In how long [`Audience::refresh`] wants to be called, if nothing is written before; none: not at all.
    fn refresh_in(&self) -> Option<Duration> {
        None
    }
    /// Shows what [`Audience::show`] put off.
    fn refresh(&mut self, _state: &F) {}
}

/// Owner of the leading state. It is one block ahead of what is shown while that block is written.
pub struct Leader<F: Fold, A> {
    state: F,
    chain: Chain,
    term: Term,
    key: SigningKey,
    store: Arc<dyn LogStore>,
    clock: Arc<Clock>,
    inputs: mpsc::Receiver<Pending<F>>,
    audience: A,
    /// Block of each key's last accepted statement: the answer to the same statement again.
    acknowledged: BTreeMap<NodeId, Seq>,
    /// What the clock showed when the state was last asked what follows.
    checked: Millis,
    last_block: Option<Instant>,
}

impl<F: Fold, A: Audience<F>> Leader<F, A> {
    /// The leading state. All of it is durable and shown whenever no call is under way.
    pub fn state(&self) -> &F {
        &self.state
    }

    /// Commits inputs until `stop`, or until all senders are gone.
    ///
    /// # Errors
    /// The store or the audience failed.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LeaderError<F>> {
        loop {
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                batch = self.collect() => batch,
            };
            let Some(batch) = batch else { return Ok(()) };
            // Not cut off by `stop`: what was begun is written and answered.
            self.answer(batch).await?;
        }
    }

    /// The owner's own input, before anybody is served.
    ///
    /// # Errors
    /// The store or the audience failed; what the fold refuses is the inner result.
    pub async fn control(&mut self, control: F::Control) -> Result<Outcome<F>, LeaderError<F>> {
        let (seq, outcomes) = self.commit(vec![Input::Control(control)]).await?;
        Ok(outcomes.into_iter().next().unwrap_or(Ok(())).map(|()| seq))
    }

    /// Inputs of the next block; empty when only time has passed. None when nobody is left to send any.
    async fn collect(&mut self) -> Option<Vec<Pending<F>>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut take = |pending: Pending<F>, batch: &mut Vec<Pending<F>>| {
            bytes += pending.len;
            batch.push(pending);
            bytes >= limits::GROUP_COMMIT_BYTES || batch.len() >= limits::GROUP_COMMIT_INPUTS
        };
        loop {
            let due = self.state.next_deadline(self.checked).map(|at| clock::until(self.clock.now(), at));
            let refresh = self.audience.refresh_in();
            tokio::select! {
                biased;
                pending = self.inputs.recv() => {
                    if take(pending?, &mut batch) {
                        return Some(batch);
                    }
                    break;
                }
                () = sleep_or_never(due) => return Some(batch),
                () = sleep_or_never(refresh) => self.audience.refresh(&self.state),
            }
        }
        // Group commit: at once when idle, else not more often than the pace.
        let pace = self.audience.pace(&self.state);
        let end = tokio::time::sleep(
            self.last_block.map_or(Duration::ZERO, |at| pace.saturating_sub(at.elapsed())),
        );
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

    async fn answer(&mut self, batch: Vec<Pending<F>>) -> Result<(), LeaderError<F>> {
        let (inputs, answers): (Vec<InputOf<F>>, Vec<_>) =
            batch.into_iter().map(|pending| (pending.input, pending.answer)).unzip();
        let senders: Vec<Option<NodeId>> = inputs.iter().map(sender).collect();
        let (seq, outcomes) = self.commit(inputs).await?;
        for ((outcome, sender), answer) in outcomes.into_iter().zip(senders).zip(answers) {
            let outcome = self.outcome(outcome, sender, seq);
            drop(answer.send(outcome)); // whoever asked may have gone; it will ask again
        }
        Ok(())
    }

    /// Makes a block of what the inputs and the time lead to, and waits until it is durable and shown.
    async fn commit(
        &mut self,
        inputs: Vec<InputOf<F>>,
    ) -> Result<(Seq, Vec<Result<(), F::Refusal>>), LeaderError<F>> {
        self.checked = self.clock.now();
        let Committed { records, outcomes } = commit::commit(&mut self.state, self.checked, inputs);
        let seq = if records.is_empty() { Seq(0) } else { self.write(records).await? };
        Ok((seq, outcomes))
    }

    fn outcome(&mut self, outcome: Result<(), F::Refusal>, sender: Option<NodeId>, seq: Seq) -> Outcome<F> {
        match (outcome, sender) {
            (Ok(()), Some(sender)) => {
                self.acknowledged.insert(sender, seq);
                Ok(seq)
            }
            (Ok(()), None) => Ok(seq),
            (Err(refusal), Some(sender)) if refusal == F::Refusal::from(Unfit::Duplicate) => {
                self.acknowledged.get(&sender).copied().ok_or(refusal)
            }
            (Err(refusal), _) => Err(refusal),
        }
    }

    /// Appends a block; when it is durable, shows it.
    async fn write(&mut self, records: Vec<RecordOf<F>>) -> Result<Seq, LeaderError<F>> {
        let encoded = records.iter().map(wire::to_bytes).collect();
        let block = self.chain.append(&self.key, self.state.tip().now(), encoded)?;
        let (head, time) = (block.header().head(), block.header().time);
        let bytes = Bytes::from(wire::to_bytes(&block));
        let append = self.store.append(self.term, head.seq, bytes.clone());
        tokio::time::timeout(limits::APPEND, append).await.map_err(|_| LeaderError::SlowDisk)??;
        self.last_block = Some(Instant::now());
        let written = Written { head, time, bytes, records };
        self.audience.show(&self.state, written).map_err(|reason| LeaderError::Diverged { reason })?;
        Ok(head.seq)
    }
}

fn sender<C>(input: &Input<C>) -> Option<NodeId> {
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

impl<F: Fold, A> std::fmt::Debug for Leader<F, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leader").field("term", &self.term).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
