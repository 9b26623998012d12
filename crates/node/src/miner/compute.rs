//! The compute thread: it alone owns the stage, and does one command after the other.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use model::config::{Message, StageSpec};
use model::optim::OptimiserConfig;
use model::stage::{Clip, CpuStage, Output, Stage, StageError, StepInput};
use rayon::ThreadPool;
use swarm::limits::LOSS_MAX;
use swarm::miner::Item;
use tokio::sync::{mpsc, oneshot};
use wire::Step;

use super::keep::Keep;
use super::shelf::Opening;
use crate::limits;

/// What the stage is asked to do.
pub(super) enum Command {
    /// Build the stage, or give it other weights.
    Install { spec: Box<StageSpec>, opening: Arc<Opening>, done: oneshot::Sender<Result<(), StageError>> },
    /// Forward of an item.
    Forward { item: Item, tokens: Arc<Vec<u32>>, input: Option<Arc<Message>> },
    /// Backward of an item; its forward runs `again` first if its graph was set aside.
    Backward { item: Item, gradient: Option<Arc<Message>>, accumulate: bool, again: Option<Again> },
    /// Sums of squares of the mean gradient.
    Squares { step: Step },
    /// Step; with a copy of the weights if `copy`.
    Step { step: Step, rate: f32, clip: Clip, copy: bool },
    /// A copy of the weights.
    Copy(oneshot::Sender<Option<Vec<f32>>>),
    /// Drop a graph.
    Discard(Item),
    /// Drop the gradient.
    Clear,
}

/// What a forward that runs again is given.
pub(super) struct Again {
    pub(super) tokens: Arc<Vec<u32>>,
    pub(super) input: Option<Arc<Message>>,
}

/// What came of it.
pub(super) enum Done {
    Forward { item: Item, output: Output },
    Backward { item: Item, output: Option<Message> },
    Failed { item: Item },
    Squares { step: Step, sums: Vec<f64> },
    Stepped { step: Step, scale: f32, weights: Option<Vec<f32>> },
    Diverged { step: Step },
}

/// A finished job and the time it took.
pub(super) struct Finished {
    pub(super) done: Done,
    pub(super) time: Duration,
}

/// Starts the thread; it ends when the sender of commands is dropped.
pub(super) fn start(
    optimiser: OptimiserConfig,
    pool: Arc<ThreadPool>,
    when_idle: bool,
    keep: Keep,
    finished: mpsc::Sender<Finished>,
) -> std::io::Result<mpsc::Sender<Command>> {
    let (commands, mut waiting) = mpsc::channel(limits::COMPUTE_QUEUE);
    thread::Builder::new().name("compute".into()).spawn(move || {
        if when_idle {
            super::idle::yield_to_others();
        }
        let mut worker = Worker { optimiser, pool, keep, stage: None, whole: None };
        while let Some(command) = waiting.blocking_recv() {
            let start = Instant::now();
            if let Some(done) = worker.execute(command)
                && finished.blocking_send(Finished { done, time: start.elapsed() }).is_err()
            {
                return;
            }
        }
    })?;
    Ok(commands)
}

struct Worker {
    optimiser: OptimiserConfig,
    pool: Arc<ThreadPool>,
    keep: Keep,
    stage: Option<Box<dyn Stage>>,
    /// The micro-batch that has a graph, if only one may.
    whole: Option<u64>,
}

impl Worker {
    fn execute(&mut self, command: Command) -> Option<Done> {
        match command {
            Command::Install { spec, opening, done } => {
                drop(done.send(self.install(*spec, &opening)));
                None
            }
            Command::Copy(copy) => {
                drop(copy.send(self.stage.as_ref().map(|stage| stage.weights().to_vec())));
                None
            }
            Command::Discard(item) => {
                self.whole.take_if(|whole| *whole == item.micro_batch.0);
                self.stage.as_mut()?.discard(item.micro_batch.0);
                None
            }
            Command::Clear => {
                self.stage.as_mut()?.clear();
                None
            }
            Command::Forward { item, tokens, input } => {
                self.put_aside();
                let forward = |stage: &mut Box<dyn Stage>| {
                    let output = stage.forward(item.micro_batch.0, &tokens, input.as_deref());
                    // A loss that no log believes: the graph is of no use to anybody.
                    if let Ok(Output::Loss(loss)) = output
                        && !(0.0..=LOSS_MAX).contains(&loss)
                    {
                        stage.discard(item.micro_batch.0);
                        return None;
                    }
                    said(output)
                };
                let output = self.stage.as_mut().and_then(forward);
                if self.keep == Keep::Inputs && output.is_some() {
                    self.whole = Some(item.micro_batch.0);
                }
                Some(output.map_or(Done::Failed { item }, |output| Done::Forward { item, output }))
            }
            Command::Backward { item, gradient, accumulate, again } => {
                let micro_batch = item.micro_batch.0;
                if again.is_some() {
                    self.put_aside();
                }
                self.whole.take_if(|whole| *whole == micro_batch);
                let output = self.stage.as_mut().and_then(|stage| {
                    if let Some(Again { tokens, input }) = again {
                        said(stage.restore(micro_batch, &tokens, input.as_deref()))?;
                    }
                    said(stage.backward(micro_batch, gradient.as_deref(), accumulate))
                });
                if output.is_none()
                    && let Some(stage) = &mut self.stage
                {
                    stage.discard(item.micro_batch.0);
                }
                Some(output.map_or(Done::Failed { item }, |output| Done::Backward { item, output }))
            }
            Command::Squares { step } => {
                let sums = self.stage.as_ref().map_or_else(Vec::new, |stage| stage.square_sums());
                Some(Done::Squares { step, sums })
            }
            Command::Step { step, rate, clip, copy } => {
                let report = self.stage.as_mut().and_then(|stage| said(stage.step(StepInput { rate, clip })));
                let Some(report) = report else { return Some(Done::Diverged { step }) };
                let weights = self.stage.as_ref().filter(|_| copy).map(|stage| stage.weights().to_vec());
                Some(Done::Stepped { step, scale: report.scale, weights })
            }
        }
    }

    /// Makes room for another graph, if only one may be kept.
    fn put_aside(&mut self) {
        if let (Some(stage), Some(whole)) = (&mut self.stage, self.whole.take()) {
            stage.set_aside(whole);
        }
    }

    fn install(&mut self, spec: StageSpec, opening: &Opening) -> Result<(), StageError> {
        if let Some(stage) = &mut self.stage
            && *stage.spec() == spec
        {
            return stage.set_weights(&opening.weights);
        }
        (self.stage, self.whole) = (None, None);
        let stage = CpuStage::new(spec, opening.weights.clone(), self.optimiser, Arc::clone(&self.pool))?;
        self.stage = Some(Box::new(stage));
        Ok(())
    }
}

fn said<T>(result: Result<T, StageError>) -> Option<T> {
    result.inspect_err(|error| tracing::warn!(%error, "a micro-batch or step is dropped")).ok()
}
