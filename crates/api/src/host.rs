//! The host: a leader of the arena's log and what it serves, which can be killed at any instruction and resumes from its log.

mod custody;
pub(crate) mod index;
pub(crate) mod shared;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arena::record::{Control, Input, Record};
use arena::spec::ArenaSpec;
use arena::state::State;
use leader::{Leader, LeaderError};
use store::{BlobError, Blobs, LogStore};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::{NodeId, SigningKey};

use crate::limits;
use crate::server::{self, App};
pub(crate) use custody::{Custody, Opening, state as state_under, ward, ward_id};
use index::Index;
pub(crate) use shared::{Inputs, Outcome, Pending, Shared};
use shared::{Shows, View};

/// Why a host did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The log cannot be led.
    #[error(transparent)]
    Lead(#[from] LeaderError<State>),
    /// The log's store failed.
    #[error(transparent)]
    Store(#[from] store::LogError),
    /// The blob store failed.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// A judge or a payment could not be entered.
    #[error("cannot enter {what}: {reason}")]
    Refused {
        /// What.
        what: String,
        /// Why.
        reason: String,
    },
    /// The socket failed.
    #[error("the listening socket failed: {0}")]
    Socket(#[source] std::io::Error),
    /// A task ended in a panic: a defect.
    #[error("a part of the host failed ({0}): please report it; the log is safe, start again")]
    Task(#[from] tokio::task::JoinError),
}

/// What a host is made of: the stores decide where it lives.
pub struct Parts {
    /// The host's key: it signs the log, and what it states for those who entrust their seals to it.
    pub key: SigningKey,
    /// The arena.
    pub spec: ArenaSpec,
    /// Its log.
    pub log: Arc<dyn LogStore>,
    /// Its blobs. They must be durable: nobody else has them.
    pub blobs: Arc<dyn Blobs>,
    /// Judges to admit, with their operators.
    pub judges: Vec<(NodeId, String)>,
    /// Bytes of all blobs after which uploads are refused.
    pub blobs_max: u64,
    /// Bytes that one key may upload in [`limits::UPLOAD_WINDOW`], in the long run and at once. The host and the arena's
    /// owners may upload what there is room for.
    pub upload_quota: u64,
    /// Bytes of judgements' logs that one judge may upload in [`limits::UPLOAD_WINDOW`](crate::limits::UPLOAD_WINDOW).
    pub log_quota: u64,
    /// Time in which something of an upload must come ([`limits::UPLOAD_STALL`](crate::limits::UPLOAD_STALL)); else it ends.
    pub upload_stall: Duration,
}

/// A host whose log is open, and which serves nobody yet.
pub struct Host {
    leader: Leader<State, Shows>,
    app: Arc<App>,
}

impl Host {
    /// Opens the log: begins it, or folds it and writes that the host is back. Admits the judges.
    ///
    /// # Errors
    /// The log is another arena's or damaged, or a store failed.
    pub async fn open(parts: Parts) -> Result<Self, HostError> {
        let Parts { key, spec, log, .. } = &parts;
        let genesis = || Control::Genesis { spec: spec.canonical(), host: key.node_id() };
        let mut index = Index::default();
        let mut changed = BTreeSet::new();
        let look = |state: &State, seq, records: &[Record]| index.follow(state, seq, records, &mut changed);
        let opened = leader::open(spec.run_id(), key.clone(), Arc::clone(log), genesis, look).await?;
        index.refresh(opened.state(), changed);
        let view = View { state: opened.state().clone(), index };
        let shared = Arc::new(Shared::new(Arc::clone(log), opened.head(), view, opened.clock()));
        let (inputs, queue) = leader::queue();
        let mut leader = opened.lead(queue, Shows(Arc::clone(&shared))).await?;
        for (judge, operator) in &parts.judges {
            let known = leader.state().judges().get(judge);
            if known.is_some_and(|known| known.admitted && known.operator == *operator) {
                continue;
            }
            let admitted = Control::Admitted { judge: *judge, operator: operator.clone() };
            leader.control(admitted).await?.map_err(|reason| HostError::Refused {
                what: format!("judge {}", judge.short()),
                reason: reason.to_string(),
            })?;
        }
        let app = App::new(&parts, shared, inputs).await?;
        Ok(Self { leader, app: Arc::new(app) })
    }

    /// The OpenAPI document of what it serves.
    pub fn openapi() -> String {
        server::openapi().to_pretty_json().expect("a document of strings and numbers")
    }

    /// Serves until it is told to stop, or until a store fails.
    ///
    /// # Errors
    /// A store or the socket failed. Nothing that was acknowledged is lost.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<(), HostError> {
        let Self { leader, app } = self;
        let end = CancellationToken::new();
        let _end_with_this = end.clone().drop_guard();
        let mut tasks: JoinSet<Result<(), HostError>> = JoinSet::new();
        let stop_leading = end.clone();
        tasks.spawn(async move { Ok(leader.run(stop_leading).await?) });
        let custody = Arc::clone(&app);
        let custody_end = end.clone();
        tasks.spawn(async move { custody::keep(custody, custody_end).await });
        tasks.spawn(server::listen(listener, Arc::clone(&app), end.clone()));
        let outcome = tokio::select! {
            () = stop.cancelled() => Ok(()),
            Some(ended) = tasks.join_next() => ended.map_err(HostError::from).flatten(),
        };
        end.cancel();
        let rest = async {
            while let Some(ended) = tasks.join_next().await {
                ended??;
            }
            Ok::<(), HostError>(())
        };
        let rest = tokio::time::timeout(limits::CLOSE, rest).await;
        outcome?;
        rest.unwrap_or(Ok(()))
    }
}

/// Hands an input of the host's own to the leader, behind those that wait, and waits until its block is durable. None: the
/// leader has ended.
pub(crate) async fn submit(inputs: &Inputs, input: Input, len: usize) -> Option<Outcome> {
    let (answer, outcome) = oneshot::channel();
    inputs.send(Pending { input, len, answer }).await.ok()?;
    outcome.await.ok()
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}
