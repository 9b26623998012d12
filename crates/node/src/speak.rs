//! Stating: signed statements to the orchestrator, one in flight, in order, sent again until they are answered.

use ledger::fold::Unfit;
use std::sync::Arc;

use net::Link;
use swarm::record::{STATEMENT_KIND, Statement};
use swarm::refusal::Refusal;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::{Envelope, Hash, NodeId, RunId, Seq, SigningKey};

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::limits;
use crate::rpc::{Reply, Request};

/// The orchestrator's answer to a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It stands in the log.
    Accepted(Seq),
    /// The protocol refuses it.
    Refused(Refusal),
}

impl Answer {
    /// Whether it stands in the log.
    pub fn accepted(&self) -> bool {
        matches!(self, Self::Accepted(_))
    }
}

/// The node stops, no answer will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node stops: the statement has no answer")]
pub struct Stopped;

/// A node's voice. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Speaker {
    queue: mpsc::Sender<Said>,
}

#[derive(Debug)]
struct Said {
    statement: Statement,
    answer: oneshot::Sender<Answer>,
}

/// What a speaker needs.
#[derive(Clone)]
pub struct Speak {
    /// Link of this node.
    pub link: Arc<dyn Link>,
    /// Key of this node.
    pub key: SigningKey,
    /// Whom to tell.
    pub orchestrator: NodeId,
    /// Run.
    pub run: RunId,
}

impl Speak {
    /// Sends in the background until `stop`, in one task of `tasks`.
    pub fn start(self, tasks: &mut JoinSet<()>, stop: &CancellationToken) -> Speaker {
        let (queue, waiting) = mpsc::channel(limits::STATEMENT_QUEUE);
        let stop = stop.clone();
        tasks.spawn(async move {
            let mut voice = Voice {
                backoff: Backoff::new(self.link.id()),
                clock: Clock::default(),
                nonce: 0,
                speak: self,
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = voice.run(waiting) => {}
            }
        });
        Speaker { queue }
    }
}

impl Speaker {
    /// States something and waits for the answer, through restarts of the orchestrator. Statements of one node are
    /// answered in the order in which this is first polled.
    pub async fn say(&self, statement: Statement) -> Result<Answer, Stopped> {
        self.queue(statement).await?.await.map_err(|_| Stopped)
    }

    /// Queues a statement; the receiver gets its answer.
    pub async fn queue(&self, statement: Statement) -> Result<oneshot::Receiver<Answer>, Stopped> {
        let (answer, receiver) = oneshot::channel();
        self.queue.send(Said { statement, answer }).await.map_err(|_| Stopped)?;
        Ok(receiver)
    }
}

struct Voice {
    speak: Speak,
    clock: Clock,
    nonce: u64,
    backoff: Backoff,
}

impl Voice {
    async fn run(&mut self, mut waiting: mpsc::Receiver<Said>) {
        while let Some(said) = waiting.recv().await {
            let answer = self.state(&said.statement).await;
            drop(said.answer.send(answer)); // whoever asked may have gone
        }
    }

    async fn state(&mut self, statement: &Statement) -> Answer {
        let body = wire::to_bytes(statement);
        let mut envelope = self.sign(body.clone());
        let mut resigned = 0;
        loop {
            match self.hand_in(&envelope).await {
                Some(Answer::Refused(Refusal::Unfit(Unfit::NotNewer { last })))
                    if resigned < limits::SIGNATURES =>
                {
                    // An earlier life of this node had a faster clock.
                    resigned += 1;
                    self.clock.after(last);
                    envelope = self.sign(body.clone());
                }
                Some(Answer::Refused(Refusal::Unfit(Unfit::Stale { .. })))
                    if resigned < limits::SIGNATURES =>
                {
                    // It waited too long for an orchestrator that was away, and was never accepted.
                    resigned += 1;
                    envelope = self.sign(body.clone());
                }
                Some(answer) => {
                    self.backoff.reset();
                    if let Answer::Accepted(seq) = &answer {
                        tracing::debug!(%seq, statement = %Hash::of(&body), "acknowledged");
                    }
                    return answer;
                }
                None => tokio::time::sleep(self.backoff.pause()).await,
            }
        }
    }

    fn sign(&mut self, body: Vec<u8>) -> Envelope {
        self.nonce += 1;
        let Speak { key, run, .. } = &self.speak;
        Envelope::sign(key, *run, STATEMENT_KIND, body, self.clock.now(), self.nonce)
    }

    async fn hand_in(&self, envelope: &Envelope) -> Option<Answer> {
        let Speak { link, orchestrator, run, .. } = &self.speak;
        let message = Request::State(envelope.clone()).message(*run);
        let answer = match link.call(orchestrator, message, limits::STATEMENT_TRY).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, "statement not handed in");
                return None;
            }
        };
        match Reply::parse(&answer) {
            Ok(Reply::Accepted { seq }) => Some(Answer::Accepted(seq)),
            Ok(Reply::Refused { refusal }) => Some(Answer::Refused(refusal)),
            Ok(other) => {
                tracing::warn!(reply = other.name(), "the orchestrator answered a statement with nonsense");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "the orchestrator's answer does not decode");
                None
            }
        }
    }
}

impl std::fmt::Debug for Speak {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Speak")
            .field("key", &self.key)
            .field("orchestrator", &self.orchestrator)
            .finish_non_exhaustive()
    }
}
