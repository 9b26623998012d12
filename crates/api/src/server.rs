//! The HTTP server: routes, who may ask for what, bounds.

mod auth;
mod listen;
mod metrics;
mod patient;
mod problem;
mod routes;
mod show;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arena::State;
use arena::record::Input;
use arena::state::{Leader, LeaderMode, rank_leaders};
use governor::DefaultKeyedRateLimiter;
use store::{Blobs, LogStore};
use tokio::sync::{Semaphore, oneshot};
use utoipa::OpenApi;
use wire::{Hash, Millis, NodeId, RunId, Seq, SigningKey};

use crate::host::{Custody, HostError, Inputs, Outcome, Parts, Pending, Shared};
use crate::limits;
use crate::quota::Uploads;
use crate::replay::Replays;
pub(crate) use listen::listen;
use metrics::Metrics;
use problem::ApiError;

/// Everything that a request may need.
pub(crate) struct App {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inputs: Inputs,
    pub(crate) key: SigningKey,
    pub(crate) custody: Custody,
    blobs: Arc<dyn Blobs>,
    /// Bytes of all blobs, and the bound.
    stored: AtomicU64,
    blobs_max: u64,
    run: RunId,
    nonce: AtomicU64,
    replays: Mutex<Replays>,
    rates: DefaultKeyedRateLimiter<NodeId>,
    uploads: Mutex<Uploads>,
    /// Items of manifests of samples, by the manifest's hash.
    samples: Mutex<HashMap<Hash, Arc<HashSet<Hash>>>>,
    streams: Arc<Semaphore>,
    metrics: Metrics,
    boards: Mutex<BTreeMap<LeaderMode, Cached>>,
    verdicts: Arc<dyn LogStore>,
}

/// A leaderboard as it was some seconds ago.
#[derive(Clone)]
struct Cached {
    generation: u64,
    made: Instant,
    at: Millis,
    rows: Arc<Vec<Leader>>,
}

impl App {
    pub(crate) async fn new(parts: &Parts, shared: Arc<Shared>, inputs: Inputs) -> Result<Self, HostError> {
        let mut stored = 0;
        for hash in parts.blobs.list().await? {
            stored += parts.blobs.size(hash).await?.unwrap_or(0);
        }
        Ok(Self {
            shared,
            inputs,
            key: parts.key.clone(),
            custody: Custody::open(Arc::clone(&parts.log)).await?,
            blobs: Arc::clone(&parts.blobs),
            stored: AtomicU64::new(stored),
            blobs_max: parts.blobs_max,
            run: parts.spec.run_id(),
            nonce: AtomicU64::new(0),
            replays: Mutex::default(),
            rates: DefaultKeyedRateLimiter::keyed(limits::STATEMENT_RATE),
            uploads: Mutex::new(Uploads::of(parts.upload_quota)),
            samples: Mutex::default(),
            streams: Arc::new(Semaphore::new(limits::STREAMS)),
            metrics: Metrics::default(),
            boards: Mutex::default(),
            verdicts: Arc::clone(&parts.log),
        })
    }

    pub(crate) fn run(&self) -> RunId {
        self.run
    }

    fn now(&self) -> Millis {
        self.shared.clock.now()
    }

    pub(crate) fn next_nonce(&self) -> u64 {
        self.nonce.fetch_add(1, Ordering::Relaxed)
    }

    /// Commits an input; the answer comes when it is durable.
    async fn commit(&self, input: Input, len: usize) -> Result<Seq, ApiError> {
        self.outcome(self.hand_in(input, len)).await
    }

    /// Puts an input in the queue; none if that is full.
    fn hand_in(&self, input: Input, len: usize) -> Option<oneshot::Receiver<Outcome>> {
        let (answer, outcome) = oneshot::channel();
        self.inputs.try_send(Pending { input, len, answer }).ok()?;
        Some(outcome)
    }

    async fn outcome(&self, outcome: Option<oneshot::Receiver<Outcome>>) -> Result<Seq, ApiError> {
        let outcome = outcome.ok_or(ApiError::Busy)?.await.map_err(|_| ApiError::Busy)?;
        self.metrics.inputs(outcome.is_ok());
        Ok(outcome?)
    }

    /// Whether a key is in charge of the whole arena.
    fn in_charge(state: &State, key: NodeId) -> bool {
        key == state.host() || state.is_owner(key)
    }

    /// One more statement of a key.
    fn rate(&self, key: NodeId) -> Result<(), ApiError> {
        if self.rates.len() > limits::RATED_KEYS {
            self.rates.retain_recent();
        }
        self.rates.check_key(&key).map_err(|_| ApiError::TooMany(1))
    }

    /// Counts bytes that a key uploads.
    fn upload(&self, key: NodeId, bytes: u64) -> Result<(), ApiError> {
        if Self::in_charge(&self.shared.view().state, key) {
            return Ok(());
        }
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.spend(key, bytes, self.now()).map_err(ApiError::Quota)
    }

    /// Refuses an upload of which it is known that it will not fit, before its first byte is read.
    fn announced(&self, key: NodeId, bytes: u64) -> Result<(), ApiError> {
        if Self::in_charge(&self.shared.view().state, key) {
            return Ok(());
        }
        let uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.check(key, bytes, self.now()).map_err(ApiError::Quota)
    }

    /// The arena's leaderboard, some seconds old at most.
    fn leaderboard(&self, mode: LeaderMode) -> (Millis, Arc<Vec<Leader>>) {
        let at = self.now();
        let cached = self.boards.lock().unwrap_or_else(PoisonError::into_inner).get(&mode).cloned();
        let view = self.shared.view();
        let fresh = |cached: &Cached| {
            cached.made.elapsed() < limits::LEADERBOARD_AGE && cached.generation == view.index.generation
        };
        // A busy arena changes with each entry: the board is made once in a while, not for each reader.
        let recent = |cached: &Cached| cached.made.elapsed() < limits::LEADERBOARD_AGE / 5;
        if let Some(cached) = cached.filter(|cached| fresh(cached) || recent(cached)) {
            return (cached.at, cached.rows);
        }
        let generation = view.index.generation;
        let mut rows: Vec<Leader> = view.index.leaders.values().cloned().collect();
        let earned = view.state.earnings(at);
        drop(view);
        for row in &mut rows {
            row.earned = earned.get(&row.entrant).copied().unwrap_or(0);
        }
        rank_leaders(mode, &mut rows);
        let rows = Arc::new(rows);
        let cached = Cached { generation, made: Instant::now(), at, rows: Arc::clone(&rows) };
        self.boards.lock().unwrap_or_else(PoisonError::into_inner).insert(mode, cached);
        (at, rows)
    }
}

/// The OpenAPI document.
pub(crate) fn openapi() -> utoipa::openapi::OpenApi {
    routes::router().split_for_parts().1
}

/// What the document says about the whole.
#[derive(OpenApi)]
#[openapi(info(
    title = "shoal arena",
    description = "Open competitions: sealed entries, judges who agree, boards that anybody can recompute from the log.\n\n\
        Reading is free. What a key may see before others, and what it does, is signed: `Authorization: Shoal \
        BASE64URL(envelope)` over method, path with query and the hash of the body, or the Epistula headers for sr25519 \
        hotkeys. Each signature counts once, for one minute. What changes the arena is a statement: a signed envelope of \
        its own, admitted in the order of the signer's clock."
))]
struct Document;

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("run", &self.run).finish_non_exhaustive()
    }
}
