//! The validator: measures held-out loss of merged weights, replays sampled work from signed inputs, logs what it finds.
//!
//! It believes nobody: weights count when they hash to what the log agreed on, inputs when both sides signed for them.

mod draw;
mod effect;
mod memory;
mod process;
mod replay;
mod weights;

use std::collections::VecDeque;
use std::sync::Arc;

use model::stage::StageError;
use net::{BindError, Link};
use store::{BlobError, LogError};
use swarm::record::{CodecEffect, CodecPin, Join, Outcome, Record, Role, STATEMENT_KIND, Statement, Verdict};
use swarm::state::{ActiveCodec, Phase, State};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::{Epoch, MicroBatch, NodeId, RunId, SigningKey};

use crate::champion::{self, Champion, Champions, Ready};
use crate::fetch::FetchError;
use crate::follow::{Follow, FollowError, Log};
use crate::key::KeyError;
use crate::limits;
use crate::speak::{Answer, Speak, Speaker, Stopped};
use crate::spec::{RunSpec, SpecError};
use crate::tokens::{TokenSource, TokensError};
use draw::{Draw, Item};
use effect::{Measured, Step};
pub use memory::memory;
pub use process::{Options, run};
use replay::Bench;
use weights::Opening;

/// Why a validator did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValidatorError {
    /// The log cannot be followed.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The log stopped being one.
    #[error("the log cannot be followed any further: {0}")]
    Log(String),
    /// The run's spec is not one.
    #[error("the run's spec: {0}")]
    Spec(#[from] SpecError),
    /// Tokens are not there.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The model cannot be run.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// Initial weights could not be fetched.
    #[error("initial weights: {0}")]
    Fetch(#[from] Box<FetchError>),
    /// The run does not take it.
    #[error("the run refuses this validator: {0}")]
    Refused(String),
    /// The key is of no use.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The socket could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The node's own blobs.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The node's own state.
    #[error(transparent)]
    Store(#[from] LogError),
    /// The folder cannot be used.
    #[error("cannot use {path} as this node's folder: {source}")]
    Folder {
        /// Folder.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The threads could not be started.
    #[error("cannot start {threads} threads: {reason}; ask for fewer with --threads")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// Why.
        reason: String,
    },
    /// The sandbox is not there.
    #[error(transparent)]
    Sandbox(#[from] sandbox::HostError),
    /// A task ended in a panic: a defect.
    #[error("a part of the validator failed ({0}): please report it")]
    Task(#[from] tokio::task::JoinError),
    /// It was stopped.
    #[error("stopped")]
    Stopped(#[from] Stopped),
}

impl ValidatorError {
    /// Starting again is of no use until somebody has done what the words say.
    pub fn is_for_hands(&self) -> bool {
        match self {
            Self::Key(_) | Self::Folder { .. } => true,
            Self::Blobs(error) => error.is_for_hands(),
            Self::Store(error) => error.is_for_hands(),
            Self::Tokens(error) => error.is_for_hands(),
            _ => false,
        }
    }
}

/// What a validator is made of.
pub struct Parts {
    /// Its key.
    pub key: SigningKey,
    /// Its link.
    pub link: Arc<dyn Link>,
    /// The orchestrator.
    pub orchestrator: NodeId,
    /// Run.
    pub run: RunId,
    /// Data shards that were fetched.
    pub blobs: Arc<dyn store::Blobs>,
    /// Threads to compute with.
    pub threads: usize,
    /// How components of champions are compiled: by this binary, started again.
    pub child: sandbox::Child,
    /// The validator's folder; none: what was compiled is not kept.
    pub folder: Option<std::path::PathBuf>,
}

/// Follows, measures and replays until the run is over or `stop`.
pub async fn serve(parts: Parts, stop: CancellationToken) -> Result<(), ValidatorError> {
    let Parts { key, link, orchestrator, run, blobs, threads, child, folder } = parts;
    // Not with `stop`: the word of its leaving is said and heard after that.
    let end = CancellationToken::new();
    let _end_with_this = end.clone().drop_guard();
    let mut tasks = JoinSet::new();
    let (tap, records) = mpsc::channel(limits::TAPPED_BLOCKS);
    let patience = limits::FIRST_BLOCK;
    let follow = Follow { link: Arc::clone(&link), orchestrator, run, patience };
    let log = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        log = follow.start_tapped(&mut tasks, &end, Some(tap)) => log?,
    };
    let spec = log.read(|view| RunSpec::from_canonical(&view.run_spec, run))?;
    let speaker =
        Speak { link: Arc::clone(&link), key: key.clone(), orchestrator, run }.start(&mut tasks, &end);
    let champions = Arc::new(Champions::new(child, folder));
    let ready = Ready {
        champions: Arc::clone(&champions),
        link: Arc::clone(&link),
        blobs: Arc::clone(&blobs),
        orchestrator,
        run,
        log: log.clone(),
        speaker: speaker.clone(),
        numbers: champion::numbers(&spec),
        lossy: spec.codec.lossy,
        no_room: None,
    };
    tasks.spawn(ready.run(end.clone()));
    let tokens = TokenSource::new(&spec, blobs, Arc::clone(&link), run, orchestrator)?;
    let bench = Bench::new(&spec, threads)?;
    let draw = Draw::new(key, log.read(|view| view.state.spec().audit_rate_ppm));
    tasks.spawn(pulse(log.clone(), speaker.clone(), link.id(), end.clone()));
    let mut validator = Validator {
        me: link.id(),
        link,
        orchestrator,
        run,
        log,
        speaker,
        champions,
        spec,
        tokens: Arc::new(tokens),
        bench: Arc::new(bench),
        draw,
        queue: VecDeque::new(),
        records,
        opening: None,
        measured: None,
        measuring: Measuring::default(),
        effect: Measured::default(),
        replayed: false,
    };
    let over = validator.log.clone();
    let outcome = tokio::select! {
        biased;
        // The run is over and the orchestrator is gone: nothing that this node says would be heard.
        () = over.over() => Ok(()),
        () = stop.cancelled() => {
            // In good order; if the orchestrator is away, silence says the same.
            drop(tokio::time::timeout(limits::STATEMENT_TRY, validator.speaker.say(Statement::Leave)).await);
            Ok(())
        }
        outcome = validator.run() => outcome,
    };
    end.cancel();
    drop(tokio::time::timeout(limits::CLOSE, async { while tasks.join_next().await.is_some() {} }).await);
    outcome
}

struct Validator {
    me: NodeId,
    link: Arc<dyn Link>,
    orchestrator: NodeId,
    run: RunId,
    log: Log,
    speaker: Speaker,
    champions: Arc<Champions>,
    spec: RunSpec,
    tokens: Arc<TokenSource>,
    bench: Arc<Bench>,
    draw: Draw,
    /// Drawn items, oldest first.
    queue: VecDeque<Item>,
    records: mpsc::Receiver<Arc<Vec<Record>>>,
    opening: Option<Opening>,
    measured: Option<Epoch>,
    measuring: Measuring,
    /// Of a lossy champion in its shadow.
    effect: Measured,
    /// The last thing done was a replay.
    replayed: bool,
}

/// Held-out micro-batches of an epoch that were measured so far.
#[derive(Debug, Default)]
struct Measuring {
    epoch: Option<Epoch>,
    batches: u64,
    sum: f64,
}

/// What is to be done next.
enum Next {
    Join,
    Load,
    Measure,
    Effect(MicroBatch, Box<CodecPin>, Arc<Champion>),
    State(Box<CodecEffect>),
    Replay(Item),
    Wait,
    Over,
}

impl Validator {
    async fn run(&mut self) -> Result<(), ValidatorError> {
        loop {
            self.draw_new();
            match self.next() {
                Next::Join => self.join().await?,
                Next::Load => self.load().await?,
                Next::Measure => self.measure().await?,
                Next::Effect(micro_batch, pin, champion) => self.effect(micro_batch, *pin, champion).await?,
                Next::State(effect) => self.say(Statement::CodecEffect(*effect)).await?,
                Next::Replay(item) => self.replay(item).await?,
                Next::Wait => {
                    // The log never rests: this node's own pulse stands in it.
                    self.log.changed().await.map_err(|_| self.lost_log())?;
                }
                Next::Over => std::future::pending().await,
            }
        }
    }

    fn lost_log(&self) -> ValidatorError {
        let reason =
            self.log.failure().map_or_else(|| "the follower stopped".to_owned(), ToString::to_string);
        ValidatorError::Log(reason)
    }

    fn next(&mut self) -> Next {
        let me = self.me;
        let (present, over, epoch) = self.log.read_new(|view| {
            let state = &view.state;
            let present = state.node(&me).is_some_and(swarm::state::Node::present);
            let over = matches!(state.phase(), Phase::Finished { .. });
            (present, over, weights::opening_epoch(state))
        });
        if !present {
            return if over { Next::Over } else { Next::Join };
        }
        let Some(epoch) = epoch else { return Next::Wait };
        if self.opening.as_ref().is_none_or(|opening| opening.epoch != epoch) {
            return Next::Load;
        }
        // In turns: miners keep what is to be replayed for a few heartbeats only, but whoever never answers must not
        // keep this node from measuring.
        // Once for a champion, so before what comes with every epoch.
        let mut measure = if over { None } else { self.next_effect() };
        if measure.is_none() && self.measured != Some(epoch) {
            measure = Some(Next::Measure);
        }
        if let Some(measure) = measure.take_if(|_| std::mem::take(&mut self.replayed)) {
            return measure;
        }
        while let Some(item) = self.queue.pop_front() {
            if item.epoch == epoch {
                self.replayed = true;
                return Next::Replay(item);
            }
        }
        measure.unwrap_or(if over { Next::Over } else { Next::Wait })
    }

    /// What is to be found out of a lossy champion that waits for this node's word.
    fn next_effect(&mut self) -> Option<Next> {
        let (me, champions, effect) = (self.me, &self.champions, &mut self.effect);
        self.log.read(|view| {
            let active = view.state.codecs().wants_effect(&me)?;
            let component = active.pin.component;
            let said = view.state.node(&me).is_some_and(|node| node.codecs.contains(&component));
            let champion = champions.get(&component).filter(|_| said)?;
            Some(match effect.next(&view.state, active)? {
                Step::Compute(micro_batch) => {
                    Next::Effect(micro_batch, Box::new(active.pin.clone()), champion)
                }
                Step::State(effect) => Next::State(Box::new(effect)),
            })
        })
    }

    /// Draws among the work that stands in blocks which came since the last look.
    fn draw_new(&mut self) {
        while let Ok(records) = self.records.try_recv() {
            for record in records.iter() {
                let Record::Stated(envelope) = record else { continue };
                if envelope.kind != STATEMENT_KIND {
                    continue;
                }
                let Ok(Statement::Work(work)) = wire::from_bytes(&envelope.body) else { continue };
                let stage =
                    self.log.read(|view| view.state.node(&envelope.sender).and_then(|node| node.stage));
                let Some(stage) = stage else { continue };
                for item in self.draw.among(envelope.sender, stage, &work) {
                    if self.queue.len() >= limits::REPLAY_QUEUE {
                        self.queue.pop_front();
                    }
                    self.queue.push_back(item);
                }
            }
        }
    }

    async fn join(&mut self) -> Result<(), ValidatorError> {
        let join = Join {
            role: Role::Validator,
            address: wire::to_bytes(&self.link.address()),
            agent: concat!("shoal ", env!("CARGO_PKG_VERSION")).to_owned(),
            device: model::stage::device_class(),
            mflops: 0,
            memory: 0,
            stage: None,
        };
        match self.speaker.say(Statement::Join(join)).await? {
            Answer::Accepted(seq) => {
                let seen = |view: &crate::follow::View| (view.head.seq >= seq).then_some(());
                self.log.until(limits::LONG_POLL, seen).await.map_err(|_| self.lost_log())?;
                Ok(())
            }
            Answer::Refused(refusal) => Err(ValidatorError::Refused(refusal.to_string())),
        }
    }

    async fn say(&self, statement: Statement) -> Result<(), ValidatorError> {
        if let Answer::Refused(refusal) = self.speaker.say(statement).await? {
            tracing::debug!(%refusal, "a statement of this validator was refused");
        }
        Ok(())
    }

    /// Gets the weights that the present epoch opened with.
    async fn load(&mut self) -> Result<(), ValidatorError> {
        let wanted = self.log.read(|view| weights::Wanted::of(&view.state, self.orchestrator));
        let Some(wanted) = wanted else { return Ok(()) };
        match weights::fetch(&self.link, self.run, self.orchestrator, &self.spec, &wanted).await {
            Ok(opening) => {
                let (bench, weights) = (Arc::clone(&self.bench), opening.weights.clone());
                tokio::task::spawn_blocking(move || bench.load(&weights)).await??;
                self.opening = Some(opening);
            }
            Err(error) => {
                tracing::debug!(%error, epoch = %wanted.epoch, "merged weights not fetched yet");
                tokio::time::sleep(limits::KEEP_RETRY).await;
            }
        }
        Ok(())
    }

    /// Held-out loss of the loaded weights, one micro-batch a call, so that replays need not wait; stated once per epoch.
    async fn measure(&mut self) -> Result<(), ValidatorError> {
        let Some(epoch) = self.opening.as_ref().map(|opening| opening.epoch) else { return Ok(()) };
        if self.measuring.epoch != Some(epoch) {
            self.measuring = Measuring { epoch: Some(epoch), ..Measuring::default() };
        }
        let count = self.tokens.held_out_batches().min(limits::HELDOUT_MICRO_BATCHES as u64);
        if self.measuring.batches < count {
            let tokens = self.tokens.held_out(self.measuring.batches).await?;
            let bench = Arc::clone(&self.bench);
            let loss = tokio::task::spawn_blocking(move || bench.loss(&tokens.tokens)).await??;
            self.measuring.sum += f64::from(loss);
            self.measuring.batches += 1;
        }
        if self.measuring.batches < count {
            return Ok(());
        }
        self.measured = Some(epoch);
        if count > 0 {
            let tokens = count * self.spec.tokens_per_micro_batch();
            let loss = (self.measuring.sum / count as f64) as f32;
            self.say(Statement::HeldOut { epoch, loss, tokens }).await?;
        }
        Ok(())
    }

    /// One micro-batch a call, so that replays need not wait.
    async fn effect(
        &mut self,
        micro_batch: MicroBatch,
        pin: CodecPin,
        champion: Arc<Champion>,
    ) -> Result<(), ValidatorError> {
        let MicroBatch(index) = micro_batch;
        let tokens = self.tokens.micro_batch(index).await?;
        let (bench, lane) = (Arc::clone(&self.bench), self.champions.lane().await);
        let pair = move || {
            let _lane = lane;
            bench.pair(micro_batch, &tokens.tokens, &champion, &pin)
        };
        let pair = match tokio::task::spawn_blocking(pair).await? {
            Ok(pair) => Some(pair),
            Err(error) => {
                tracing::warn!(%error, %micro_batch, "the champion could not be measured on a micro-batch");
                None
            }
        };
        self.effect.take(micro_batch, pair);
        Ok(())
    }

    async fn replay(&mut self, item: Item) -> Result<(), ValidatorError> {
        let theirs = self.log.read(|view| device_of(&view.state, &item.node));
        let Some(theirs) = theirs else { return Ok(()) };
        let ours = model::stage::device_class();
        let outcome = if theirs == ours { self.outcome(&item).await? } else { Some(Outcome::OtherClass) };
        let Some(outcome) = outcome else { return Ok(()) };
        if outcome == Outcome::Fail {
            tracing::warn!(node = %item.node.short(), micro_batch = %item.micro_batch, "a replay gives other bits");
        }
        let Item { epoch, node, micro_batch, direction, .. } = item;
        self.say(Statement::Verdict(Verdict { epoch, node, micro_batch, direction, device: ours, outcome }))
            .await
    }

    /// The lossy champion by which this item's output may cross, if any; an error if this node cannot tell.
    fn lossy(&self, item: &Item) -> Result<Option<Arc<Champion>>, replay::NotOpened> {
        let component = self.log.read(|view| {
            let state = &view.state;
            let known = state.work().epoch == item.epoch;
            let codec = state.codecs().of_epoch().filter(|codec| codec.pin.lossy.is_some());
            let carries =
                |codec: &&ActiveCodec| codec.carries(&state.seed(), item.micro_batch, item.direction);
            known.then(|| codec.filter(carries).map(|codec| codec.pin.component))
        });
        match component.ok_or(replay::NotOpened::Version)? {
            None => Ok(None),
            Some(component) => self.champions.get(&component).ok_or(replay::NotOpened::Version).map(Some),
        }
    }

    /// None if there is nothing to compare.
    async fn outcome(&self, item: &Item) -> Result<Option<Outcome>, ValidatorError> {
        let most = crate::miner::frames::most_bytes(&self.spec);
        let columns = self.spec.predicted_columns().unwrap_or(0);
        let opened = match replay::open(&self.link, self.run, item, most, columns, &self.champions).await {
            Ok(opened) => opened,
            Err(replay::NotOpened::Version) => return Ok(None),
            Err(replay::NotOpened::Reason(reason)) => {
                tracing::debug!(reason, node = %item.node.short(), "not opened");
                return Ok(Some(Outcome::NotOpened));
            }
        };
        let MicroBatch(index) = item.micro_batch;
        let tokens = self.tokens.micro_batch(index).await?;
        let Ok(lossy) = self.lossy(item) else { return Ok(None) };
        let (bench, item) = (Arc::clone(&self.bench), item.clone());
        let replay = move || bench.replay(&item, &opened, &tokens, lossy.as_deref());
        Ok(tokio::task::spawn_blocking(replay).await?)
    }
}

/// Shows every heartbeat that this node lives, whatever it computes, for as long as the run has it.
async fn pulse(log: Log, speaker: Speaker, me: NodeId, stop: CancellationToken) {
    let every = log.read(|view| std::time::Duration::from_millis(view.state.spec().heartbeat.0));
    let beat = async {
        loop {
            tokio::time::sleep(every).await;
            let present = log.read(|view| view.state.node(&me).is_some_and(swarm::state::Node::present));
            if present && speaker.say(Statement::Heartbeat).await.is_err() {
                return;
            }
        }
    };
    stop.run_until_cancelled(beat).await;
}

fn device_of(state: &State, node: &NodeId) -> Option<String> {
    state.node(node).map(|node| node.join.device.clone())
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("run", &self.run).finish_non_exhaustive()
    }
}
