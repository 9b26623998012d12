//! What the machines ask for, carried out: frames sent, jobs handed to the compute thread, vectors merged.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use model::config::Message;
use model::stage::Clip;
use swarm::miner::pipeline::{self, Answer, Computed, Job};
use swarm::miner::{Item, merger};
use tokio::sync::oneshot;
use wire::{Direction, Epoch, FrameHeader, Hash, Receipt};

use super::MinerError;
use super::compute::{Again, Command};
use super::core::{Inner, Miner, Who};
use super::door::Taken;
use super::frames;
use super::merge::{self, Merging};
use super::shelf::Opening;
use crate::champion::Champions;
use crate::limits;
use crate::packed::Meter;
use crate::rpc::Busy;
use crate::tokens::{TokenSource, TokensError};

impl Miner {
    pub(super) fn pipeline_action(&mut self, action: pipeline::Action) {
        match action {
            pipeline::Action::Answer { offer, answer } => self.answer(offer, answer),
            pipeline::Action::Compute(job) => self.compute(job),
            pipeline::Action::Send { item, direction, to, epoch, ttl, grad_mask, version, loss } => {
                let head = self.core.log.head();
                let Some(stage) = self.stage else { return };
                let nothing = Hash([0; 32]);
                // What the tensor says of itself is filled in when it is signed.
                let header = FrameHeader {
                    run: self.core.run,
                    epoch,
                    micro_batch: item.micro_batch,
                    lease: item.lease,
                    direction,
                    stage,
                    from: self.core.node,
                    to,
                    grad_mask,
                    version,
                    ttl,
                    enc_len: 0,
                    enc_hash: nothing,
                    tensor_hash: nothing,
                    tokens_hash: nothing,
                    codec: String::new(),
                    loss,
                    head,
                };
                self.send(item, direction, to, ttl, header);
            }
            pipeline::Action::State { token, statement } => self.say(Who::Pipeline(token), statement),
            pipeline::Action::Release(item) => {
                self.kept.drop(item);
                self.tensors.release(item);
            }
            pipeline::Action::Done { epoch, steps } => {
                self.merger_event(merger::Event::Trained { epoch, steps });
            }
        }
    }

    fn answer(&mut self, offer: u64, answer: Answer) {
        let Some(arrived) = self.offers.remove(&offer) else { return };
        let item = Item { micro_batch: arrived.frame.header.micro_batch, lease: arrived.frame.header.lease };
        let taken = match answer {
            Answer::Accept => {
                let receipt = Receipt::sign(&self.core.key, &arrived.frame);
                self.evidence.extend([arrived.frame.hash(), Hash::of(&wire::to_bytes(&receipt))]);
                let (tensor, payload, encoded) = (arrived.tensor, arrived.payload, self.kept.inputs());
                self.tensors.came(item, arrived.frame, receipt.clone(), tensor, payload, encoded);
                self.note_spared();
                Taken::Received(receipt)
            }
            Answer::Busy => Taken::Busy(Busy::sign(&self.core.key, &arrived.frame)),
            Answer::Refuse(refused) => Taken::Refused(refused.to_string()),
        };
        drop(arrived.answer.send(taken));
    }

    fn compute(&mut self, job: Job) {
        let command = match job {
            Job::Forward(item) => return self.forward(item),
            Job::Backward { item, accumulate } => {
                let gradient = self.tensors.input(&item, Direction::Backward);
                if self.kept.backward(item) {
                    return self.forward_again(item, gradient, accumulate);
                }
                Command::Backward { item, gradient, accumulate, again: None }
            }
            Job::Squares { step } => Command::Squares { step },
            Job::Step { step, scale, root } => {
                let epoch = self.core.log.read(|view| view.state.work().epoch);
                let clip = scale.map_or_else(|| self.core.spec.clip(), Clip::Scale);
                Command::Step { step, rate: self.core.spec.rate(epoch, step), clip, copy: root }
            }
            Job::Discard(item) => {
                self.kept.drop(item);
                Command::Discard(item)
            }
            Job::Clear => Command::Clear,
        };
        self.command(command);
    }

    /// The compute thread takes commands faster than the machines make them: one job is out at a time.
    fn command(&mut self, command: Command) {
        if self.core.commands.try_send(command).is_err() {
            let inner = self.inner.clone();
            self.tasks.spawn(async move {
                drop(inner.send(Inner::Fatal(Box::new(MinerError::Compute))).await);
            });
        }
    }

    fn forward(&mut self, item: Item) {
        self.kept.forward(item);
        let inputs = self.inputs(&item);
        self.note_spared();
        self.command_with(item, inputs, move |Again { tokens, input }| Command::Forward {
            item,
            tokens,
            input,
        });
    }

    /// Backward of an item whose graph is gone.
    fn forward_again(&mut self, item: Item, gradient: Option<Arc<Message>>, accumulate: bool) {
        let inputs = self.inputs(&item);
        self.note_spared();
        self.command_with(item, inputs, move |again| Command::Backward {
            item,
            gradient,
            accumulate,
            again: Some(again),
        });
    }

    /// Where an item's forward finds what it needs.
    fn inputs(&mut self, item: &Item) -> Inputs {
        let decoded = self.tensors.input(item, Direction::Forward);
        let encoded = if decoded.is_none() { self.tensors.encoded_input(item) } else { None };
        let (tokens, door) = (Arc::clone(&self.core.tokens), &self.core.door);
        let (meter, champions) = (Arc::clone(&door.meter), Arc::clone(&door.champions));
        let most = door.most.get().copied().unwrap_or(0);
        let from = encoded.as_ref().map(|(header, _)| header.from);
        let shared = from.map(|from| door.predictors.of(&from)).unwrap_or_default();
        Inputs { tokens, decoded, encoded, meter, champions, shared, most }
    }

    /// Hands the compute thread a command made from an item's inputs, as soon as they are there.
    fn command_with(
        &mut self,
        item: Item,
        inputs: Inputs,
        command: impl FnOnce(Again) -> Command + Send + 'static,
    ) {
        let (commands, inner) = (self.core.commands.clone(), self.inner.clone());
        let starved = Arc::clone(&self.starved);
        self.tasks.spawn(async move {
            match inputs.get(item).await {
                Ok(inputs) => {
                    starved.store(0, Ordering::Relaxed);
                    drop(commands.send(command(inputs)).await);
                }
                Err(error) => {
                    tracing::warn!(%error, micro_batch = item.micro_batch.0, "a forward lacks its input");
                    let in_a_row = starved.fetch_add(1, Ordering::Relaxed) + 1;
                    if let Unfed::Tokens(error) = error
                        && (error.is_for_hands() || in_a_row >= limits::STARVED_MAX)
                    {
                        return drop(inner.send(Inner::Fatal(Box::new(MinerError::Tokens(error)))).await);
                    }
                    let failed = pipeline::Event::Computed(Computed::Failed(item));
                    drop(inner.send(Inner::Pipeline(failed)).await);
                }
            }
        });
    }

    pub(super) fn merger_action(&mut self, action: merger::Action) {
        let Some(merging) = self.merging.clone() else { return };
        let inner = self.inner.clone();
        match action {
            merger::Action::State { token, statement } => self.say(Who::Merger(token), statement),
            merger::Action::Serve { epoch } => {
                let partition = self.core.log.read(|view| {
                    let merge = view.state.merge(merging.shelf.stage);
                    merge.filter(|merge| merge.epoch == epoch).map(|merge| merge.partition)
                });
                if let Some(partition) = partition {
                    merging.shelf.serve(epoch, partition);
                }
            }
            merger::Action::Fetch { want, from } => {
                self.tasks.spawn(async move {
                    let outcome = merging.fetch(&want, from).await;
                    drop(inner.send(Inner::Merger(merger::Event::Fetched { want, from, outcome })).await);
                });
            }
            merger::Action::Forget { before } => {
                self.tasks.spawn(async move { merging.shelf.forget(before).await });
            }
            merger::Action::Restore { epoch, parts } => {
                self.tasks.spawn(async move {
                    let missing = merging.restore(epoch, &parts).await;
                    drop(inner.send(Inner::Merger(merger::Event::Restored { epoch, missing })).await);
                });
            }
            merger::Action::MakeUpload { epoch } => self.make_upload(merging, epoch),
            merger::Action::Reduce { epoch, shard, summands, seed, own } => {
                let trained = self.trained_of(epoch);
                self.tasks.spawn(async move {
                    let Some(opening) = merging.shelf.opening(epoch).await else { return };
                    let work = move || {
                        let own = if own { Some(trained.as_ref()?.as_slice()) } else { None };
                        merging.reduce(epoch, &shard, &summands, &seed, &opening, own)
                    };
                    if let Ok(Some(event)) = tokio::task::spawn_blocking(work).await {
                        drop(inner.send(Inner::Merger(event)).await);
                    }
                });
            }
            merger::Action::Apply { epoch, shards, residual, report } => {
                let install = self.installer();
                self.tasks.spawn(async move {
                    let Some(opening) = merging.shelf.opening(epoch).await else { return };
                    let (this, count) = (Arc::clone(&merging), report.len() as u16);
                    let work = move || this.apply(epoch, &opening, &shards, residual, &report);
                    let applied = tokio::task::spawn_blocking(work).await.ok().flatten();
                    install.finish(merging, epoch.next(), count, applied).await;
                });
            }
            merger::Action::Initialise { stage } => {
                let install = self.installer();
                let spec = self.core.stages.get(usize::from(stage.0)).cloned();
                let given = self.core.spec.init.get(usize::from(stage.0)).map(|hash| Hash(hash.0));
                let (link, run, origin) =
                    (Arc::clone(&self.core.link), self.core.run, self.core.orchestrator);
                self.tasks.spawn(async move {
                    let Some(spec) = spec else { return };
                    match merge::initial_weights(spec, given, link.as_ref(), run, origin).await {
                        Ok(weights) => {
                            let this = Arc::clone(&merging);
                            let made = tokio::task::spawn_blocking(move || this.initial(weights)).await;
                            install.finish(merging, Epoch(0), 1, made.ok().flatten()).await;
                        }
                        Err(error) => {
                            drop(inner.send(Inner::Fatal(Box::new(MinerError::Initial(error)))).await);
                        }
                    }
                });
            }
            merger::Action::Adopt { epoch, parts } => {
                let install = self.installer();
                self.tasks.spawn(async move {
                    let mut residual = None;
                    for candidate in [Some(epoch), epoch.0.checked_sub(1).map(Epoch)].into_iter().flatten() {
                        if residual.is_none() {
                            let opening = merging.shelf.opening(candidate).await;
                            residual = opening.map(|opening| opening.residual.clone());
                        }
                    }
                    let (this, count) = (Arc::clone(&merging), parts.len() as u16);
                    let states = parts.iter().map(|(_, state)| *state).collect();
                    let work = move || this.adopt(epoch, &parts, residual);
                    let adopted = tokio::task::spawn_blocking(work).await.ok().flatten();
                    install.finish(merging, epoch, count, adopted.map(|opening| (opening, states))).await;
                });
            }
        }
    }

    fn trained_of(&self, epoch: Epoch) -> Option<Arc<Vec<f32>>> {
        self.trained.as_ref().filter(|(of, _)| *of == epoch).map(|(_, weights)| Arc::clone(weights))
    }

    fn make_upload(&mut self, merging: Arc<Merging>, epoch: Epoch) {
        let trained = self.trained_of(epoch);
        let (commands, inner) = (self.core.commands.clone(), self.inner.clone());
        self.tasks.spawn(async move {
            let Some(opening) = merging.shelf.opening(epoch).await else { return };
            let trained = if let Some(trained) = trained {
                trained
            } else {
                let (copy, copied) = oneshot::channel();
                if commands.send(Command::Copy(copy)).await.is_err() {
                    return;
                }
                let Ok(Some(weights)) = copied.await else { return };
                let weights = Arc::new(weights);
                drop(inner.send(Inner::Trained { epoch, weights: Arc::clone(&weights) }).await);
                weights
            };
            if trained.len() != opening.weights.len() {
                return;
            }
            let work = move || merging.make_upload(epoch, &opening, &trained);
            if let Ok(Some(event)) = tokio::task::spawn_blocking(work).await {
                drop(inner.send(Inner::Merger(event)).await);
            }
        });
    }

    fn installer(&self) -> Installer {
        let stage = self.stage.and_then(|stage| self.core.stages.get(usize::from(stage.0)).cloned());
        Installer {
            stage: stage.map(Box::new),
            commands: self.core.commands.clone(),
            inner: self.inner.clone(),
        }
    }
}

/// Gives new weights to the stage, keeps them, and says so.
struct Installer {
    stage: Option<Box<model::config::StageSpec>>,
    commands: tokio::sync::mpsc::Sender<Command>,
    inner: tokio::sync::mpsc::Sender<Inner>,
}

impl Installer {
    async fn finish(
        self,
        merging: Arc<Merging>,
        epoch: Epoch,
        shards: u16,
        made: Option<(Opening, Vec<Hash>)>,
    ) {
        let (Some((opening, states)), Some(spec)) = (made, self.stage) else {
            tracing::warn!(%epoch, "the weights of this epoch could not be made; they will be fetched");
            return;
        };
        let opening = Arc::new(opening);
        merging.shelf.open(epoch, shards, Arc::clone(&opening));
        let (done, installed) = oneshot::channel();
        let install = Command::Install { spec, opening: Arc::clone(&opening), done };
        if self.commands.send(install).await.is_err() {
            return;
        }
        match installed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                drop(self.inner.send(Inner::Fatal(Box::new(MinerError::Stage(error)))).await);
                return;
            }
            Err(_) => return,
        }
        drop(self.inner.send(Inner::Merger(merger::Event::Applied { epoch, states })).await);
        // Writing takes a copy: the state before makes room for it.
        merging.shelf.let_go_before(epoch);
        if let Err(error) = merging.shelf.save(epoch, shards, &opening).await {
            tracing::warn!(%error, %epoch, "weights were not written to disk; a restart would fetch them");
        }
    }
}

/// Where a forward finds its tokens and its input.
struct Inputs {
    tokens: Arc<TokenSource>,
    decoded: Option<Arc<Message>>,
    encoded: Option<(FrameHeader, Bytes)>,
    meter: Arc<Meter>,
    champions: Arc<Champions>,
    shared: codec::Shared,
    /// Most bytes of the input.
    most: usize,
}

/// Why a forward lacks its input.
#[derive(Debug, thiserror::Error)]
enum Unfed {
    #[error(transparent)]
    Tokens(#[from] TokensError),
    #[error(transparent)]
    Frame(#[from] frames::BadFrame),
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
}

impl Inputs {
    /// Fetches and decodes, off the threads that compute.
    async fn get(self, item: Item) -> Result<Again, Unfed> {
        let Self { tokens, mut decoded, encoded, meter, champions, shared, most } = self;
        let tokens = tokens.micro_batch(item.micro_batch.0).await?;
        if let Some((header, payload)) = encoded {
            let lane = champions.lane_for(&header.codec).await;
            let decode = move || {
                let _lane = lane;
                let decoded = frames::decode(&header, &payload, most, &champions, &shared)?;
                meter.decoded(&decoded);
                Ok::<_, frames::BadFrame>(Arc::new(decoded.message))
            };
            decoded = Some(tokio::task::spawn_blocking(decode).await??);
        }
        Ok(Again { tokens: tokens.tokens, input: decoded })
    }
}
