//! The HTTP server: routes, who may ask for what, bounds.

mod auth;
mod brought;
mod listen;
mod metrics;
mod pace;
mod params;
mod patient;
mod problem;
mod routes;
mod show;
mod space;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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
use crate::replay::{Ahead, Replays};
use brought::Brought;
pub(crate) use listen::{listen, serve};
use metrics::Metrics;
use problem::ApiError;
use space::Space;

/// Everything that a request may need.
pub(crate) struct App {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inputs: Inputs,
    pub(crate) key: SigningKey,
    pub(crate) custody: Custody,
    blobs: Arc<dyn Blobs>,
    space: Arc<Space>,
    run: RunId,
    nonce: AtomicU64,
    replays: Mutex<Replays>,
    /// When this process began to serve: what was signed before does not count.
    started: Millis,
    /// Requests signed ahead of the clock, durable, and the newest time among those of an earlier process.
    ahead: tokio::sync::Mutex<Ahead>,
    ahead_until: Millis,
    rates: DefaultKeyedRateLimiter<NodeId>,
    /// Time in which something of an upload must come.
    upload_stall: Duration,
    uploads: Mutex<Uploads>,
    /// Logs of judgements have a quota of their own: a judge that judges much still enters and opens.
    logs: Mutex<Uploads>,
    /// Items of manifests of samples, by the manifest's hash.
    samples: Mutex<HashMap<Hash, Arc<HashSet<Hash>>>>,
    streams: Arc<Semaphore>,
    /// Turns to read on what was refused.
    lingering: Arc<Semaphore>,
    /// Turns to end what must not be cut off.
    ending: Arc<Semaphore>,
    brought: Mutex<Brought>,
    metrics: Metrics,
    boards: Mutex<BTreeMap<LeaderMode, Cached>>,
    verdicts: Arc<dyn LogStore>,
}

/// What an upload has counted and not used yet. Where it ends early, that is given back.
struct Reserved<'a> {
    app: &'a App,
    /// `None`: those in charge have no quota.
    quota: Option<&'a Mutex<Uploads>>,
    key: NodeId,
    left: u64,
}

impl Reserved<'_> {
    fn more(&mut self, bytes: u64) -> Result<(), ApiError> {
        if let Some(quota) = self.quota {
            let mut uploads = quota.lock().unwrap_or_else(PoisonError::into_inner);
            uploads.spend(self.key, bytes, self.app.now()).map_err(ApiError::Quota)?;
            self.left += bytes;
        }
        Ok(())
    }

    /// Bytes that came: counted before, or now where the upload announced nothing.
    fn came(&mut self, bytes: u64) -> Result<(), ApiError> {
        if let Some(missing) = bytes.checked_sub(self.left).filter(|missing| *missing > 0) {
            self.more(missing)?;
        }
        self.left = self.left.saturating_sub(bytes);
        Ok(())
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(quota) = self.quota.filter(|_| self.left > 0) {
            let mut uploads = quota.lock().unwrap_or_else(PoisonError::into_inner);
            uploads.give_back(self.key, self.left, self.app.now());
        }
    }
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
        // A clock that was set back while nobody served does not make old signatures new.
        let mut started = shared.clock.now().max(shared.view().state.now());
        let ahead: Ahead = match parts.log.get(auth::AHEAD).await?.map(|bytes| wire::from_bytes(&bytes)) {
            None => Ahead::default(),
            Some(Ok(ahead)) => ahead,
            Some(Err(error)) => {
                let wait_s = limits::REQUEST_SKEW_MS / 1000;
                tracing::warn!(%error, wait_s, "the list of requests from ahead of the clock cannot be read: none of that time is taken");
                started = started.plus(Millis(limits::REQUEST_SKEW_MS));
                Ahead::default()
            }
        };
        Ok(Self {
            started,
            ahead_until: ahead.until(),
            ahead: tokio::sync::Mutex::new(ahead),
            shared,
            inputs,
            key: parts.key.clone(),
            custody: Custody::open(Arc::clone(&parts.log)).await?,
            blobs: Arc::clone(&parts.blobs),
            space: Space::new(parts.blobs_max, stored),
            run: parts.spec.run_id(),
            nonce: AtomicU64::new(0),
            replays: Mutex::default(),
            rates: DefaultKeyedRateLimiter::keyed(limits::STATEMENT_RATE),
            upload_stall: parts.upload_stall,
            uploads: Mutex::new(Uploads::of(parts.upload_quota)),
            logs: Mutex::new(Uploads::of(parts.log_quota)),
            samples: Mutex::default(),
            streams: Arc::new(Semaphore::new(limits::STREAMS)),
            lingering: Arc::new(Semaphore::new(limits::LINGERING)),
            ending: Arc::new(Semaphore::new(limits::ENDING)),
            brought: Mutex::default(),
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

    /// Counts what an upload announces before its first byte is read: of two at a time neither is cut off half-way.
    fn reserve<'a>(
        &'a self,
        quota: &'a Mutex<Uploads>,
        key: NodeId,
        bytes: u64,
    ) -> Result<Reserved<'a>, ApiError> {
        let free = Self::in_charge(&self.shared.view().state, key);
        let mut reserved = Reserved { app: self, quota: (!free).then_some(quota), key, left: 0 };
        reserved.more(bytes)?;
        Ok(reserved)
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

    /// Does what must not be cut off half-way to its end, also where whoever asked has gone; so many at a time.
    async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = Arc::clone(&self.ending).acquire_owned().await.map_err(|_| ApiError::Busy)?;
        let done = tokio::spawn(async move {
            let done = work.await;
            drop(turn);
            done
        });
        match done.await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that is shutting down cancels it.
                Err(_) => Err(ApiError::Busy),
            },
        }
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
