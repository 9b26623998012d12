//! An output on its way to a peer: by the champion where it may, else by the built-in codec; sampled; sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use codec::Predictor;
use model::config::Message;
use net::Link;
use swarm::miner::Item;
use swarm::miner::pipeline::{self, Sent};
use swarm::record::Statement;
use tokio::sync::OnceCell;
use wire::{Direction, FrameHeader, Hash, Millis, NodeId, SignedFrame, SigningKey};

use super::core::{Inner, Miner};
use super::door::Door;
use super::frames::{self, Encoded};
use super::predict::{Heard, Means};
use super::samples::Samples;
use crate::champion::{self, Champion, Choice, Fell, Outcome};
use crate::limits;
use crate::rpc::{Reply, Request, code};
use crate::spec::TensorCodec;

/// An output and its encodings, each made once by whoever sends it first.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) message: Message,
    built_in: OnceCell<Encoded>,
    /// By a predictor, for whoever holds it.
    predicted: OnceCell<Encoded>,
    /// None inside: the champion fell back.
    champion: OnceCell<Option<Encoded>>,
}

/// What sending needs beside the output.
struct Sender {
    link: Arc<dyn Link>,
    door: Arc<Door>,
    key: SigningKey,
    inner: tokio::sync::mpsc::Sender<Inner>,
    /// The codec of this binary for this direction.
    built_in: TensorCodec,
    choice: Choice,
    /// Whether what the champion made is decoded before it is sent.
    check: bool,
    deadline: Duration,
}

/// What came of one try.
struct Tried {
    frame: SignedFrame,
    answer: Result<net::Message, net::LinkError>,
    bytes: u64,
}

impl Miner {
    pub(super) fn send(
        &mut self,
        item: Item,
        direction: Direction,
        to: NodeId,
        ttl: Millis,
        header: FrameHeader,
    ) {
        let output = self.tensors.output(&item, direction);
        let (tokens, inner) = (Arc::clone(&self.core.tokens), self.inner.clone());
        let (door, me) = (Arc::clone(&self.core.door), self.core.node);
        let (choice, check) = self.core.log.read(|view| {
            (door.champions.choose(&view.state, &me, &header), champion::checks(&view.state, &header))
        });
        let sender = Sender {
            link: Arc::clone(&self.core.link),
            door,
            key: self.core.key.clone(),
            inner: inner.clone(),
            built_in: self.core.spec.codec.built_in(direction),
            choice,
            check,
            deadline: Duration::from_millis(ttl.0).clamp(limits::TICK, limits::FRAME_DEADLINE),
        };
        let full = self.core.spec.tokens_per_micro_batch() * self.core.spec.model.d_model as u64 * 2;
        self.tasks.spawn(async move {
            let attempt = async {
                let output = output?;
                let tokens_hash = tokens.micro_batch(item.micro_batch.0).await.ok()?.hash;
                sender.send(&output, FrameHeader { tokens_hash, ..header }).await
            };
            let (outcome, kept, bytes) = match attempt.await {
                None => (Sent::Failed, None, 0),
                Some(Tried { frame, answer: Ok(answer), bytes }) => match Reply::parse(&answer) {
                    Ok(Reply::Received(receipt)) if receipt.verify(&to, &frame) => {
                        (Sent::Accepted, Some((frame, receipt)), bytes)
                    }
                    Ok(Reply::Busy(busy)) if busy.verify(&to, &frame) => (Sent::Busy, None, bytes),
                    _ => (Sent::Failed, None, bytes),
                },
                Some(Tried { answer: Err(net::LinkError::Refused { refusal, .. }), bytes, .. }) => {
                    tracing::debug!(%refusal, to = %to.short(), "a frame was refused");
                    let for_good = refusal.code == code::REFUSED;
                    (if for_good { Sent::Refused } else { Sent::Failed }, None, bytes)
                }
                Some(Tried { answer: Err(error), .. }) => {
                    tracing::debug!(%error, "a frame was not sent");
                    (Sent::Failed, None, 0)
                }
            };
            let full = if bytes > 0 { full } else { 0 };
            let event = pipeline::Event::Sent { item, direction, to, outcome };
            let kept = kept.map(Box::new);
            drop(inner.send(Inner::Sent { event, item, kept, bytes, full }).await);
        });
    }
}

/// Whether the receiver lacks what it takes to decode the frame.
fn asks_again(tried: &Tried) -> bool {
    matches!(&tried.answer, Err(net::LinkError::Refused { refusal, .. }) if refusal.code == code::RESEND)
}

impl Sender {
    async fn send(&self, output: &Arc<Output>, header: FrameHeader) -> Option<Tried> {
        let by_champion = match &self.choice {
            Choice::BuiltIn => None,
            Choice::Spared(component) => {
                let count = async {
                    self.door.champions.count(header.epoch, *component, Outcome::Spared);
                    None
                };
                output.champion.get_or_init(|| count).await.clone()
            }
            Choice::Champion(champion) => self.by_champion(output, &header, champion).await,
        };
        self.sample(output, &header);
        let mut wasted = 0;
        if let Some(encoded) = by_champion {
            let tried = self.attempt(&header, &encoded).await;
            if !asks_again(&tried) {
                return Some(tried);
            }
            if let Choice::Champion(champion) = &self.choice {
                tracing::warn!(to = %header.to.short(), "the champion's frame was refused; the built-in codec takes over");
                self.door.champions.count(header.epoch, champion.component(), Outcome::Refused);
            }
            wasted = tried.bytes;
        }
        let speed = self.link.speed(Some(&header.to));
        if let Some(predictor) = self.predictor(output, &header, speed) {
            let encode = || self.encode(output, &header, speed, Some(Arc::clone(&predictor)));
            let encoded = output.predicted.get_or_try_init(encode).await.ok()?;
            let tried = self.attempt(&header, encoded).await;
            if !asks_again(&tried) {
                return Some(self.with(tried, wasted));
            }
            self.door.predictors.lost(header.to, predictor.id());
            wasted += tried.bytes;
        }
        let encode = || self.encode(output, &header, speed, None);
        let encoded = output.built_in.get_or_try_init(encode).await.ok()?;
        let tried = self.attempt(&header, encoded).await;
        Some(self.with(tried, wasted))
    }

    /// Counts what else crossed.
    fn with(&self, tried: Tried, wasted: u64) -> Tried {
        Tried { bytes: tried.bytes + wasted + self.door.predictors.take_crossed(), ..tried }
    }

    /// By what this output may be encoded for its receiver, if it holds it. One that does not is told meanwhile.
    fn predictor(
        &self,
        output: &Arc<Output>,
        header: &FrameHeader,
        speed: Option<f64>,
    ) -> Option<Arc<Predictor>> {
        let predictors = &self.door.predictors;
        if !predictors.is_worth_it(self.built_in, frames::view(&output.message).ok()?, speed) {
            return None;
        }
        let (direction, epoch, to) = (header.direction, header.epoch, header.to);
        let fresh = output.predicted.get().is_none() && output.built_in.get().is_none();
        if fresh && predictors.wants(direction, epoch) {
            let (output, door) = (Arc::clone(output), Arc::clone(&self.door));
            drop(tokio::task::spawn_blocking(move || {
                let tensor = frames::view(&output.message);
                tensor.map(|tensor| door.predictors.learn(door.node, direction, epoch, tensor))
            }));
        }
        let made = output.predicted.get().and_then(|encoded| encoded.predictor.as_ref());
        match predictors.means(direction, to, made) {
            Means::Held(predictor) => Some(predictor),
            Means::None => None,
            Means::Tell(predictor) => {
                let (link, door, run) = (Arc::clone(&self.link), Arc::clone(&self.door), header.run);
                tokio::spawn(async move {
                    let bytes = Bytes::copy_from_slice(predictor.to_bytes());
                    let len = bytes.len();
                    let _sending = door.meter.sending(len);
                    let message = Request::Predictor.with_payload(run, bytes);
                    let heard = match link.call(&to, message, limits::FRAME_DEADLINE).await {
                        Ok(_) => Heard::Taken(len),
                        Err(error) => {
                            tracing::debug!(%error, to = %to.short(), "a predictor was not told");
                            match error {
                                net::LinkError::Refused { refusal, .. } if refusal.code == code::REFUSED => {
                                    Heard::Refused
                                }
                                _ => Heard::NotYet,
                            }
                        }
                    };
                    door.predictors.told(to, predictor.id(), heard);
                });
                None
            }
        }
    }

    /// Encodes off the main task.
    async fn encode(
        &self,
        output: &Arc<Output>,
        header: &FrameHeader,
        speed: Option<f64>,
        predictor: Option<Arc<Predictor>>,
    ) -> Result<Encoded, ()> {
        let (output, door, codec) = (Arc::clone(output), Arc::clone(&self.door), self.built_in);
        let encode = move || frames::encode(codec, &output.message, speed, &door.meter, predictor);
        match tokio::task::spawn_blocking(encode).await {
            Ok(Ok(encoded)) => Ok(encoded),
            Ok(Err(error)) => {
                let what = header.micro_batch;
                tracing::warn!(%error, micro_batch = %what, "an output could not be encoded");
                Err(())
            }
            Err(_) => Err(()),
        }
    }

    async fn attempt(&self, header: &FrameHeader, encoded: &Encoded) -> Tried {
        let frame = frames::sign(&self.key, header, encoded);
        let request = Request::Frame(Box::new(frame.clone()));
        let message = request.with_payload(header.run, encoded.payload.clone());
        let _sending = self.door.meter.sending(encoded.payload.len());
        let answer = self.link.call(&header.to, message, self.deadline).await;
        Tried { frame, answer, bytes: encoded.payload.len() as u64 }
    }

    /// One in so many outputs goes to a folder too; nobody waits for it.
    fn sample(&self, output: &Arc<Output>, header: &FrameHeader) {
        let Some(place) = self.door.samples.as_ref().and_then(|samples| samples.next(header)) else { return };
        let output = Arc::clone(output);
        drop(tokio::task::spawn_blocking(move || Samples::write(&place, &output.message)));
    }

    /// What the champion makes of an output, once; none if it falls back.
    async fn by_champion(
        &self,
        output: &Arc<Output>,
        header: &FrameHeader,
        champion: &Arc<Champion>,
    ) -> Option<Encoded> {
        let make = async {
            let lane = self.door.champions.lane().await?;
            let (door, output, champion) = (Arc::clone(&self.door), Arc::clone(output), Arc::clone(champion));
            let (header, check, built_in) = (header.clone(), self.check, self.built_in);
            let work = move || {
                let _lane = lane;
                output.carry(&door, &header, &champion, check, built_in)
            };
            let (encoded, fault) = tokio::task::spawn_blocking(work).await.ok()?;
            if let Some(fault) = fault {
                drop(self.inner.send(Inner::State(Box::new(fault))).await);
            }
            encoded
        };
        output.champion.get_or_init(|| make).await.clone()
    }
}

impl Output {
    pub(super) fn new(message: Message) -> Self {
        let (built_in, predicted, champion) = Default::default();
        Self { message, built_in, predicted, champion }
    }

    /// Compresses, checks, compares and counts; with what the log is to hear of a fault.
    fn carry(
        &self,
        door: &Door,
        header: &FrameHeader,
        champion: &Champion,
        check: bool,
        built_in: TensorCodec,
    ) -> (Option<Encoded>, Option<Statement>) {
        let (message, component) = (&self.message, champion.component());
        let count = |outcome| door.champions.count(header.epoch, component, outcome);
        let start = Instant::now();
        let fell = match champion.encode(header.direction, message, check) {
            Ok(carried) => {
                door.meter.codec_time(carried.time);
                let previous = champion::is_compared(header)
                    .then(|| frames::timed(built_in, message, &door.meter))
                    .flatten();
                let (raw, bytes, time) = (message.bytes.len(), carried.payload.len(), carried.time);
                count(Outcome::Carried { raw, bytes, time, previous });
                // The tensor that crosses is the one that comes back.
                let tensor = frames::tensor_hash(carried.lossy.as_ref().unwrap_or(message));
                let hash = Hash::of(&carried.payload);
                let codec = champion.name().into();
                let payload = carried.payload.into();
                return (Some(Encoded { payload, hash, tensor, codec, predictor: None }), None);
            }
            Err(fell) => fell,
        };
        let time = start.elapsed();
        door.meter.codec_time(time);
        let wrong = matches!(fell, Fell::Wrong { .. });
        count(Outcome::Fell { time, wrong });
        match fell {
            Fell::Larger => tracing::debug!("the champion saves nothing of a tensor"),
            Fell::Failed(failed) => tracing::debug!(%failed, "the champion failed"),
            Fell::Beyond(beyond) => {
                tracing::debug!(%beyond, "the champion gave a tensor back that is too far off");
            }
            Fell::Host(reason) => tracing::warn!(reason, "the champion could not be run"),
            Fell::Wrong { payload, decoded } => {
                door.champions.keep_evidence(&payload, Some(message));
                let encoded = Hash::of(&payload);
                tracing::warn!(component = %component.short(), "the champion gave another tensor back; nothing of it was sent");
                let which = (header.epoch, header.micro_batch, header.direction);
                let (tensor, decoded) = (frames::tensor_hash(message), frames::tensor_hash(&decoded));
                let fault = champion::fault(which, component, tensor, encoded, Some(decoded), None);
                return (None, Some(fault));
            }
        }
        (None, None)
    }
}
