//! Champions in production (protocol §7 "Production", "Swap"): pinned, made ready, in force, off.
//!
//! A codec switches only where an epoch opens, and only if every stage keeps its quorum among those who can run it; else
//! the next openings try again. No codec may give back another tensor than its sender signed for: one stated fault takes it
//! away at once. What a wrong accusation costs is bytes, and who made it stands in the log. A lossy codec works in the
//! shadow first: see [`super::shadow`].

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use wire::{Direction, Epoch, Hash, MicroBatch, NodeId};

use super::accept::{limit, not_now, number, require};
use super::node::Node;
use super::shadow::{self, Shadow};
use super::{CodecSummary, Phase, State};
use crate::limits;
use crate::record::{CodecCounts, CodecEffect, CodecFault, CodecPin, Derived, LossyBounds, OffCause, Role};
use crate::refusal::Refusal;

/// All that a run knows of champions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Codecs {
    active: Option<ActiveCodec>,
    pending: Option<CodecPin>,
    /// Epoch at whose opening it is looked at next.
    pending_at: Epoch,
    /// What was in force when the present epoch opened, and what it did since.
    epoch: Option<ActiveCodec>,
    counts: CodecCounts,
    shadow: Shadow,
    /// What was in force before a codec that is in its shadow.
    before: Option<ActiveCodec>,
    /// Who stated a fault of the codec in force.
    fault: Option<NodeId>,
    events: VecDeque<CodecEvent>,
    /// Events that there ever were.
    told: u64,
}

/// A codec in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveCodec {
    /// As it was pinned.
    pub pin: CodecPin,
    /// First epoch that used it.
    pub since: Epoch,
    /// Only micro-batches drawn by seed cross by it: it is lossy, and not known to be harmless yet.
    pub shadow: bool,
}

impl ActiveCodec {
    /// Whether tensors of this micro-batch may cross by it this way, in an epoch with this seed.
    pub fn carries(&self, seed: &Hash, micro_batch: MicroBatch, direction: Direction) -> bool {
        self.pin.carries(direction) && (!self.shadow || shadow::drawn(seed, micro_batch))
    }
}

/// Something that happened to a codec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodecEvent {
    /// Epoch under way, or about to open.
    pub epoch: Epoch,
    /// Component.
    pub component: Hash,
    /// What.
    pub news: CodecNews,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CodecNews {
    /// It is to be used from an epoch on.
    Pinned {
        /// First epoch that may use it.
        from: Epoch,
        /// Where it comes from.
        source: String,
    },
    /// A node cannot run it.
    Unfit {
        /// Which.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// It is in force.
    Switched {
        /// For micro-batches drawn by seed only.
        shadow: bool,
    },
    /// A validator said what it does, in its shadow.
    Measured {
        /// Which.
        by: NodeId,
        /// What.
        effect: CodecEffect,
    },
    /// It did no harm in its shadow, and carries everything.
    Passed,
    /// Too few were ready. It is tried again at the next opening, unless it was given up.
    Declined {
        /// Whether it was.
        given_up: bool,
    },
    /// It carries nothing any more.
    Off {
        /// Why.
        cause: OffCause,
        /// Who stated the fault, if that is why.
        by: Option<NodeId>,
    },
}

impl Codecs {
    /// The codec in force.
    pub fn active(&self) -> Option<&ActiveCodec> {
        self.active.as_ref()
    }

    /// The codec in force when the present epoch opened: who says that a tensor crossed by it holds to this one.
    pub fn of_epoch(&self) -> Option<&ActiveCodec> {
        self.epoch.as_ref()
    }

    /// The codec in force, if a validator's word on it is wanted, and not here yet.
    pub fn wants_effect(&self, validator: &NodeId) -> Option<&ActiveCodec> {
        self.active.as_ref().filter(|active| active.pin.lossy.is_some() && !self.shadow.heard(validator))
    }

    /// The codec that is to be in force.
    pub fn pending(&self) -> Option<&CodecPin> {
        self.pending.as_ref()
    }

    /// Codecs that nodes are to have ready: in force, before it, and to come.
    pub fn wanted(&self) -> impl Iterator<Item = &CodecPin> {
        self.active.iter().chain(&self.before).map(|active| &active.pin).chain(&self.pending)
    }

    /// What the champion of the present epoch did so far.
    pub fn summary(&self) -> Option<CodecSummary> {
        let codec = self.epoch.as_ref()?;
        Some(CodecSummary { component: codec.pin.component, shadow: codec.shadow, counts: self.counts })
    }

    /// What happened, oldest first, with its number from 0: at most [`limits::CODEC_EVENTS_MAX`].
    pub fn events(&self) -> impl Iterator<Item = (u64, &CodecEvent)> {
        (self.told - self.events.len() as u64..).zip(&self.events)
    }

    fn wants(&self, component: &Hash) -> bool {
        self.wanted().any(|pin| pin.component == *component)
    }

    fn tell(&mut self, epoch: Epoch, component: Hash, news: CodecNews) {
        if self.events.len() >= limits::CODEC_EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(CodecEvent { epoch, component, news });
        self.told += 1;
    }

    pub(super) fn pin(&mut self, pin: &CodecPin) {
        let news = CodecNews::Pinned { from: pin.from, source: pin.source.clone() };
        self.tell(pin.from, pin.component, news);
        self.pending = Some(pin.clone());
        self.pending_at = pin.from;
    }

    pub(super) fn work(&mut self, counts: &CodecCounts) {
        self.counts.add(counts);
    }

    pub(super) fn fault(&mut self, by: NodeId) {
        self.fault.get_or_insert(by);
    }

    pub(super) fn switch(&mut self, epoch: Epoch, component: Hash) {
        if let Some(pin) = self.pending.take() {
            let shadow = pin.lossy.is_some();
            let old = self.active.replace(ActiveCodec { pin, since: epoch, shadow });
            self.before = old.filter(|old| !old.shadow).or(self.before.take()).filter(|_| shadow);
            self.fault = None;
            self.shadow = Shadow::default();
            self.tell(epoch, component, CodecNews::Switched { shadow });
        }
    }

    /// A micro-batch's loss is known.
    pub(super) fn loss(&mut self, seed: &Hash, micro_batch: MicroBatch, micro_nats: u64) {
        if self.epoch.as_ref().is_some_and(|codec| codec.shadow) {
            self.shadow.loss(shadow::drawn(seed, micro_batch), micro_nats);
        }
    }

    pub(super) fn passed(&mut self, epoch: Epoch, component: Hash) {
        if let Some(active) = &mut self.active {
            active.shadow = false;
        }
        self.before = None;
        self.tell(epoch, component, CodecNews::Passed);
    }

    pub(super) fn decline(&mut self, epoch: Epoch, component: Hash) {
        let last = |pin: &CodecPin| epoch.0 >= pin.from.0.saturating_add(limits::CODEC_TRIES - 1);
        let given_up = self.pending.as_ref().is_none_or(last);
        if given_up {
            self.pending = None;
        }
        self.pending_at = epoch.next();
        self.tell(epoch, component, CodecNews::Declined { given_up });
    }

    fn take_away(&mut self, epoch: Epoch) {
        self.before = None;
        if let Some(component) = self.active.as_ref().map(|active| active.pin.component) {
            self.off(epoch, component, OffCause::Owner);
        }
        if let Some(pin) = self.pending.take() {
            self.tell(epoch, pin.component, CodecNews::Declined { given_up: true });
        }
    }

    pub(super) fn off(&mut self, epoch: Epoch, component: Hash, cause: OffCause) {
        self.active = self.before.take();
        let by = self.fault.take().filter(|_| cause == OffCause::Fault);
        self.tell(epoch, component, CodecNews::Off { cause, by });
        if let Some(back) = self.active.as_ref().map(|active| active.pin.component) {
            self.tell(epoch, back, CodecNews::Switched { shadow: false });
        }
    }

    /// An epoch opens: its counts begin.
    pub(super) fn open(&mut self) {
        self.epoch.clone_from(&self.active);
        self.counts = CodecCounts::default();
        self.shadow.open();
    }

    /// Why the codec in force has no place in the next epoch, by what it did in the last one.
    fn spent(&self) -> Option<(Hash, OffCause)> {
        let component = self.active.as_ref()?.pin.component;
        if self.epoch.as_ref().map(|codec| codec.pin.component) != Some(component) {
            return None;
        }
        let counts = &self.counts;
        let share = counts.tensors.saturating_mul(limits::CODEC_FALLBACK_PERCENT);
        if counts.fallbacks >= limits::CODEC_FALLBACKS_MIN && counts.fallbacks.saturating_mul(100) > share {
            return Some((component, OffCause::Fallbacks));
        }
        let compared = counts.sampled >= limits::CODEC_SAMPLE_MIN;
        (compared && counts.sampled_bytes >= counts.previous_bytes).then_some((component, OffCause::NoBetter))
    }
}

impl State {
    /// First epoch that a codec pinned now may be used in: every node has a whole epoch to get ready.
    pub fn codec_from(&self) -> Epoch {
        match self.phase {
            Phase::Gathering { epoch, .. } => epoch.next(),
            _ => self.epoch().next().next(),
        }
    }

    pub(super) fn check_pin(&self, pin: &CodecPin) -> Result<(), Refusal> {
        if let Phase::Finished { .. } = self.phase {
            return Err(not_now("the run is over"));
        }
        limit("bytes of the engine's version", pin.wasmtime.len(), limits::NAME_BYTES)?;
        limit("bytes of the codec's source", pin.source.len(), limits::CODEC_SOURCE_BYTES)?;
        require(pin.activations || pin.gradients, || not_now("a codec that carries nothing"))?;
        let bounds = |bounds: LossyBounds| bounds.similarity_ppm > 0 && bounds.similarity_ppm <= 1_000_000;
        number("similarity", pin.lossy.is_none_or(bounds))?;
        let least = self.codec_from();
        require(pin.from >= least, || Refusal::WrongEpoch { theirs: pin.from, ours: least })?;
        let in_force =
            self.codecs.active.as_ref().is_some_and(|active| active.pin.component == pin.component);
        let again = self.codecs.pending.as_ref().is_some_and(|pending| pending.component == pin.component);
        require(!in_force && !again, || Refusal::Repeated { what: "this codec is pinned".to_owned() })
    }

    pub(super) fn check_unpinned(&self) -> Result<(), Refusal> {
        let any = self.codecs.wanted().next().is_some();
        require(any, || Refusal::Repeated { what: "no codec is pinned".to_owned() })
    }

    pub(super) fn fold_unpinned(&mut self) {
        let epoch = self.epoch();
        self.codecs.take_away(epoch);
    }

    pub(super) fn check_codec_ready(&self, node: &Node, component: &Hash) -> Result<(), Refusal> {
        require(self.codecs.wants(component), || not_now("no such codec is pinned"))?;
        let said = node.codecs.contains(component);
        require(!said, || Refusal::Repeated { what: "ready for this codec".to_owned() })
    }

    pub(super) fn fold_codec_ready(&mut self, sender: &NodeId, component: Hash) {
        let Self { nodes, codecs, .. } = self;
        let Some(node) = nodes.get_mut(sender) else { return };
        node.codecs.retain(|known| codecs.wants(known));
        if node.codecs.len() < limits::CODECS_READY {
            node.codecs.insert(component);
        }
    }

    pub(super) fn check_codec_unfit(
        &self,
        sender: &NodeId,
        component: &Hash,
        reason: &str,
    ) -> Result<(), Refusal> {
        limit("bytes of the reason", reason.len(), limits::NAME_BYTES)?;
        require(self.codecs.wants(component), || not_now("no such codec is pinned"))?;
        let said = self.codecs.events.iter().any(|event| {
            event.component == *component
                && matches!(event.news, CodecNews::Unfit { node, .. } if node == *sender)
        });
        require(!said, || Refusal::Repeated { what: "unfit for this codec".to_owned() })
    }

    pub(super) fn fold_codec_unfit(&mut self, sender: NodeId, component: Hash, reason: String) {
        if let Some(node) = self.nodes.get_mut(&sender) {
            node.codecs.remove(&component);
        }
        let epoch = self.epoch();
        self.codecs.tell(epoch, component, CodecNews::Unfit { node: sender, reason });
    }

    /// A champion's work and its faults are told by members, while their epoch lasts.
    fn check_codec_epoch(&self, sender: &NodeId, epoch: Epoch) -> Result<(), Refusal> {
        self.check_epoch(epoch)?;
        require(self.work.is_live(sender), || Refusal::NotMember)
    }

    pub(super) fn check_codec_work(
        &self,
        sender: &NodeId,
        epoch: Epoch,
        component: &Hash,
        counts: &CodecCounts,
    ) -> Result<(), Refusal> {
        self.check_codec_epoch(sender, epoch)?;
        let ours = self.codecs.epoch.as_ref().is_some_and(|codec| codec.pin.component == *component);
        require(ours, || not_now("this codec is not this epoch's"))?;
        number("fallbacks", counts.fallbacks <= counts.tensors)?;
        number("sampled", counts.sampled <= counts.tensors)?;
        let possible = counts.fields().into_iter().all(|field| field <= limits::CODEC_COUNT_MAX);
        number("codec counts", possible)
    }

    pub(super) fn check_codec_fault(&self, sender: &NodeId, fault: &CodecFault) -> Result<(), Refusal> {
        self.check_codec_epoch(sender, fault.epoch)?;
        self.check_micro_batch(fault.micro_batch)?;
        let active =
            self.codecs.active.as_ref().is_some_and(|active| active.pin.component == fault.component);
        require(active, || not_now("this codec is not in force"))?;
        // A decoded tensor that is the tensor is no fault.
        number("decoded", fault.decoded != Some(fault.tensor))?;
        let Some(frame) = &fault.frame else { return Ok(()) };
        let header = &frame.header;
        let same = (header.run, header.epoch, header.micro_batch, header.direction, header.to)
            == (self.run(), fault.epoch, fault.micro_batch, fault.direction, *sender);
        // Else whoever signs a bad frame could end it from outside the epoch.
        require(self.work.is_live(&header.from), || Refusal::NotMember)?;
        let hashes = (header.tensor_hash, header.enc_hash) == (fault.tensor, fault.encoded);
        let named = header.codec == fault.component.to_string();
        require(same && hashes && named && frame.signed(), || Refusal::WrongOpening {
            what: "a frame that is not the fault's".to_owned(),
        })
    }

    pub(super) fn check_codec_effect(&self, sender: &NodeId, effect: &CodecEffect) -> Result<(), Refusal> {
        number("micro-batches", effect.micro_batches >= limits::SHADOW_BATCHES_MIN)?;
        let wanted = self.codecs.wants_effect(sender);
        let wanted = wanted.is_some_and(|active| active.pin.component == effect.component);
        let able = self.nodes.get(sender).is_some_and(|node| node.codecs.contains(&effect.component));
        require(wanted && able, || not_now("no word on this codec is wanted from this node"))
    }

    pub(super) fn fold_codec_effect(&mut self, by: NodeId, effect: CodecEffect) {
        let epoch = self.epoch();
        self.codecs.shadow.effect(by, effect.is_harmless());
        self.codecs.tell(epoch, effect.component, CodecNews::Measured { by, effect });
    }

    /// What becomes of a lossy codec before `epoch` opens: it passes by the words of most validators that can run it.
    fn shadow_due(&self, epoch: Epoch) -> Option<Derived> {
        let lossy = |active: &&ActiveCodec| active.pin.lossy.is_some() && active.since < epoch;
        let active = self.codecs.active.as_ref().filter(lossy)?;
        let component = active.pin.component;
        let (able, said) = self.present(Role::Validator).fold((0, 0), |(able, said), (id, node)| {
            let runs = usize::from(node.codecs.contains(&component));
            (able + runs, said + runs * usize::from(self.codecs.shadow.heard(id)))
        });
        let enough = able.min(usize::from(self.spec.validators_min)).max(able / 2 + 1);
        let off = |cause| Some(Derived::CodecOff { epoch, component, cause });
        match () {
            () if self.codecs.shadow.harmful() => off(OffCause::Effect),
            () if !active.shadow => None,
            () if self.codecs.shadow.losses_rose() => off(OffCause::Losses),
            () if said >= enough => Some(Derived::CodecPassed { epoch, component }),
            () if epoch.0 - active.since.0 >= limits::CODEC_TRIES => off(OffCause::Unproven),
            () => None,
        }
    }

    pub(super) fn codec_fault_due(&self) -> Option<Derived> {
        let active = self.codecs.active.as_ref().filter(|_| self.codecs.fault.is_some())?;
        let component = active.pin.component;
        Some(Derived::CodecOff { epoch: self.epoch(), component, cause: OffCause::Fault })
    }

    /// What becomes of codecs before `epoch` opens with `ready` nodes, by stage.
    pub(super) fn codec_due(&self, epoch: Epoch, ready: &[&[NodeId]]) -> Option<Derived> {
        if let Some((component, cause)) = self.codecs.spent() {
            return Some(Derived::CodecOff { epoch, component, cause });
        }
        if let Some(due) = self.shadow_due(epoch) {
            return Some(due);
        }
        let pin = self.codecs.pending.as_ref().filter(|_| self.codecs.pending_at <= epoch)?;
        let component = pin.component;
        let able = |id: &NodeId| self.nodes.get(id).is_some_and(|node| node.codecs.contains(&component));
        let least = |asked: u16, there: usize| usize::from(asked).min(there);
        let miners = ready.iter().all(|nodes| {
            let enough = least(self.spec.miners_min, nodes.len()).max(1);
            nodes.iter().filter(|id| able(id)).count() >= enough
        });
        let validators: Vec<_> = self.present(Role::Validator).map(|(id, _)| *id).collect();
        // Without a validator that measures it a lossy one would never leave its shadow.
        let watchers =
            least(self.spec.validators_min, validators.len()).max(usize::from(pin.lossy.is_some()));
        let watched = validators.iter().filter(|id| able(id)).count() >= watchers;
        Some(if miners && watched {
            Derived::CodecSwitched { epoch, component }
        } else {
            Derived::CodecDeclined { epoch, component }
        })
    }
}
