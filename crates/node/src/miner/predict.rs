//! Predictors of the predictive codec: learned from what this node sends, told once to whoever receives it.
//!
//! Nobody waits for any of it: until a receiver holds a predictor, and once it has lost it, tensors cross without one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use codec::{CodecError, CodecId, DType, Learner, Level, Predictor, Shared, TensorRef};
use wire::{Direction, Epoch, NodeId};

use crate::limits;
use crate::spec::TensorCodec;

/// What a node learns, has told, and was told.
#[derive(Debug, Default)]
pub(super) struct Predictors {
    /// Columns of this run's tensors; 0, and unset: they are not predicted.
    columns: OnceLock<usize>,
    /// By direction. One lock: of all that is learned, one thing at a time.
    learning: Mutex<[Learning; 2]>,
    /// One more than the epoch of which nothing is to be learned any more, by direction.
    learned: [AtomicU64; 2],
    held: Mutex<Held>,
    /// Bytes that crossed for telling, and are not reported yet.
    crossed: AtomicU64,
}

/// What is learned from the tensors of one direction.
#[derive(Debug, Default)]
struct Learning {
    learner: Option<Learner>,
    /// Rows since the last version.
    rows: usize,
    /// Learned, and to be tried on a tensor that it has not seen.
    candidate: Option<Predictor>,
}

#[derive(Debug, Default)]
struct Held {
    /// By which this node encodes, by direction.
    current: [Option<Arc<Predictor>>; 2],
    /// Own ones and others' by sender, oldest first. Ids are short hashes, so each counts for its sender only.
    known: BTreeMap<NodeId, Vec<Known>>,
    /// What became of telling a receiver of an own one.
    told: BTreeMap<(NodeId, u64), Told>,
}

#[derive(Debug)]
struct Known {
    predictor: Arc<Predictor>,
    /// In which it came.
    epoch: Epoch,
}

/// How a receiver stands with an own predictor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    state: Telling,
    /// How often it had lost it.
    lost: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Telling {
    #[default]
    Untold,
    UnderWay,
    Held,
    /// It does not take it, or keeps losing it.
    Never,
}

/// What a tensor for a receiver may do.
#[derive(Debug)]
pub(super) enum Means {
    /// The receiver holds this one.
    Held(Arc<Predictor>),
    /// It is to be told of this one; until then tensors cross without.
    Tell(Arc<Predictor>),
    /// Nothing to be done.
    None,
}

/// What became of a predictor that was told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Heard {
    /// The receiver holds it; so many bytes crossed.
    Taken(usize),
    /// The receiver does not want it.
    Refused,
    /// It did not arrive, as far as this node knows.
    NotYet,
}

/// Why a predictor is not taken from a peer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    /// This run's tensors are not predicted.
    #[error("the tensors of this run are not predicted")]
    Unused,
    /// Longer than one for this run's tensors can be.
    #[error("{0} bytes, more than a predictor of this run has")]
    Length(usize),
    /// No predictor.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// For other tensors.
    #[error("for tensors of {0} columns, not of this run")]
    Columns(usize),
    /// Too many in one epoch.
    #[error("more new predictors than an epoch can have")]
    Often,
    /// Too many senders.
    #[error("no room for another predictor")]
    Full,
}

fn index(direction: Direction) -> usize {
    match direction {
        Direction::Forward => 0,
        Direction::Backward => 1,
    }
}

/// Longest predictor for so many columns, bytes: a weight for each pair, at worst 20 bits long, scales and a header.
fn most_bytes(columns: usize) -> usize {
    columns * columns * 5 / 4 + 16 * columns + 64
}

/// A predictor from a peer's bytes, for tensors of `columns` columns; takes a while.
///
/// # Errors
/// Bytes that are no predictor, or one for other tensors; found before any work is done that the run's own do not need.
pub(crate) fn parse(bytes: &[u8], columns: usize) -> Result<Predictor, NotTaken> {
    if columns == 0 {
        return Err(NotTaken::Unused);
    }
    if bytes.len() > most_bytes(columns) {
        return Err(NotTaken::Length(bytes.len()));
    }
    match Predictor::columns_in(bytes)? {
        found if found == columns => Ok(Predictor::from_bytes(bytes)?),
        found => Err(NotTaken::Columns(found)),
    }
}

impl Predictors {
    /// Says what is predicted, if anything: tensors of so many columns.
    pub(super) fn begin(&self, columns: Option<usize>) {
        let _ = self.columns.set(columns.unwrap_or(0));
    }

    /// Columns of the run's tensors; 0 if they are not predicted.
    pub(super) fn columns(&self) -> usize {
        self.columns.get().copied().unwrap_or(0)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether tensors like this one, by this codec, over a link of this speed in bytes per second, are predicted.
    pub(super) fn is_worth_it(&self, codec: TensorCodec, tensor: TensorRef<'_>, speed: Option<f64>) -> bool {
        let slow = speed.is_none_or(|speed| speed < limits::PREDICTOR_LINK_BYTES_PER_S);
        let wanted = codec == TensorCodec::Predictive || codec == TensorCodec::Auto && slow;
        let columns = self.columns();
        wanted && columns > 0 && tensor.dtype() == DType::Bf16 && tensor.rows_cols().1 == columns
    }

    /// By what a tensor for `to` may be encoded: `made` by, if it was, else by the newest.
    pub(super) fn means(&self, direction: Direction, to: NodeId, made: Option<&Arc<Predictor>>) -> Means {
        let mut held = self.held();
        let Some(predictor) = made.or(held.current[index(direction)].as_ref()).cloned() else {
            return Means::None;
        };
        let told = held.told.entry((to, predictor.id())).or_default();
        match told.state {
            Telling::Held => Means::Held(predictor),
            Telling::Untold => {
                told.state = Telling::UnderWay;
                Means::Tell(predictor)
            }
            Telling::UnderWay | Telling::Never => Means::None,
        }
    }

    /// Notes how telling ended.
    pub(super) fn told(&self, to: NodeId, id: u64, heard: Heard) {
        let mut held = self.held();
        let Some(told) = held.told.get_mut(&(to, id)) else { return };
        told.state = match heard {
            Heard::Taken(bytes) => {
                self.crossed.fetch_add(bytes as u64, Ordering::Relaxed);
                Telling::Held
            }
            Heard::Refused => Telling::Never,
            Heard::NotYet => Telling::Untold,
        };
    }

    /// `to` does not hold it any more.
    pub(super) fn lost(&self, to: NodeId, id: u64) {
        let mut held = self.held();
        let Some(told) = held.told.get_mut(&(to, id)).filter(|told| told.state == Telling::Held) else {
            return;
        };
        told.lost += 1;
        told.state = if told.lost < limits::PREDICTOR_LOSSES { Telling::Untold } else { Telling::Never };
    }

    /// Bytes that crossed for telling since the last call.
    pub(super) fn take_crossed(&self) -> u64 {
        self.crossed.swap(0, Ordering::Relaxed)
    }

    /// Whether a tensor of this epoch would be learned from.
    pub(super) fn wants(&self, direction: Direction, epoch: Epoch) -> bool {
        self.learned[index(direction)].load(Ordering::Relaxed) <= u64::from(epoch.0)
    }

    /// Learns from a tensor that `me` sends in an epoch; takes a while. Of several at a time one is taken.
    ///
    /// A version is made of some rows, tried on the next tensor, and used from then on if it pays for its own bytes.
    pub(super) fn learn(&self, me: NodeId, direction: Direction, epoch: Epoch, tensor: TensorRef<'_>) {
        let Ok(mut learning) = self.learning.try_lock() else { return };
        if !self.wants(direction, epoch) {
            return;
        }
        let learning = &mut learning[index(direction)];
        let columns = self.columns();
        if let Some(candidate) = learning.candidate.take() {
            let present = self.held().current[index(direction)].clone();
            if pays(&candidate, present.as_deref(), tensor).unwrap_or(false) {
                tracing::debug!(?direction, bytes = candidate.to_bytes().len(), "tensors are predicted anew");
                self.install(me, direction, epoch, candidate);
            }
            learning.rows = 0;
            if let Some(learner) = &mut learning.learner {
                learner.fade(limits::PREDICTOR_FADE);
            }
            self.learned[index(direction)].store(u64::from(epoch.0) + 1, Ordering::Relaxed);
            return;
        }
        if learning.learner.is_none() {
            learning.learner = Learner::new(columns).ok();
        }
        if learning.learner.as_mut().is_none_or(|learner| learner.add(tensor).is_err()) {
            return;
        }
        learning.rows += tensor.rows_cols().0;
        if learning.rows >= columns * limits::PREDICTOR_ROWS_PER_COLUMN {
            learning.candidate = learning.learner.as_ref().and_then(|learner| learner.predictor().ok());
        }
    }

    fn install(&self, me: NodeId, direction: Direction, epoch: Epoch, predictor: Predictor) {
        let predictor = Arc::new(predictor);
        let mut held = self.held();
        held.current[index(direction)] = Some(Arc::clone(&predictor));
        let own = held.known.entry(me).or_default();
        own.push(Known { predictor, epoch });
        if own.len() > limits::PREDICTORS_OF_ONE {
            own.remove(0);
        }
        let ids: Vec<u64> = own.iter().map(|known| known.predictor.id()).collect();
        held.told.retain(|(_, id), _| ids.contains(id));
    }

    /// Takes what `from` will encode tensors by, in an epoch; `is_member` says who takes part in it.
    ///
    /// Each sender has room for so many that what frames of this epoch and the one before name is still here, as
    /// validators may ask for it.
    ///
    /// # Errors
    /// Too many of one sender in one epoch, or of too many senders.
    pub(super) fn take(
        &self,
        from: NodeId,
        epoch: Epoch,
        predictor: Predictor,
        is_member: impl Fn(&NodeId) -> bool,
    ) -> Result<(), NotTaken> {
        let mut held = self.held();
        let of_one = held.known.get(&from).map_or(&[][..], |known| known);
        if of_one.iter().any(|known| known.predictor.id() == predictor.id()) {
            return Ok(());
        }
        if of_one.iter().filter(|known| known.epoch == epoch).count() >= limits::PREDICTORS_OF_EPOCH {
            return Err(NotTaken::Often);
        }
        if of_one.len() < limits::PREDICTORS_OF_ONE {
            let count = |held: &Held| held.known.values().map(Vec::len).sum::<usize>();
            if count(&held) >= limits::PREDICTORS {
                held.known.retain(|node, _| is_member(node));
            }
            if count(&held) >= limits::PREDICTORS {
                return Err(NotTaken::Full);
            }
        }
        let of_one = held.known.entry(from).or_default();
        of_one.push(Known { predictor: Arc::new(predictor), epoch });
        if of_one.len() > limits::PREDICTORS_OF_ONE {
            of_one.remove(0);
        }
        Ok(())
    }

    /// What frames of `from` may name.
    pub(super) fn of(&self, from: &NodeId) -> Shared {
        let mut shared = Shared::new();
        for known in self.held().known.get(from).into_iter().flatten() {
            shared.add_predictor(Arc::clone(&known.predictor));
        }
        shared
    }

    /// The bytes of one.
    pub(super) fn bytes(&self, of: &NodeId, id: u64) -> Option<Bytes> {
        let held = self.held();
        let found = held.known.get(of)?.iter().find(|known| known.predictor.id() == id)?;
        Some(Bytes::copy_from_slice(found.predictor.to_bytes()))
    }
}

/// Whether a predictor saves more than its own bytes, in some tensors like this one, beside what is used now.
fn pays(
    candidate: &Predictor,
    present: Option<&Predictor>,
    tensor: TensorRef<'_>,
) -> Result<bool, CodecError> {
    let level = Level::detect();
    let mut payload = Vec::new();
    let with = codec::encode_predictive(level, candidate, tensor, &mut payload)?;
    payload.clear();
    let without = match present {
        Some(present) => codec::encode_predictive(level, present, tensor, &mut payload)?,
        None => codec::encode(CodecId::Context, tensor, &mut payload)?,
    };
    let own = candidate.to_bytes().len();
    Ok(own <= most_bytes(candidate.columns())
        && without.saturating_sub(with) * limits::PREDICTOR_PAYS_IN > own)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId([1; 32]);
    const COLUMNS: usize = 32;

    fn predictors() -> Predictors {
        let predictors = Predictors::default();
        predictors.begin(Some(COLUMNS));
        predictors
    }

    /// Rows whose columns follow from a few numbers.
    fn tensor(seed: u64) -> Vec<u8> {
        let mut x = seed;
        let mut bytes = Vec::new();
        for _ in 0..128 {
            let numbers = [0; 3].map(|_| {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (x >> 40) as f32 / (1 << 23) as f32 - 1.0
            });
            for j in 0..COLUMNS {
                let value: f32 = (0..3).map(|k| numbers[k] * ((j * (k + 2)) as f32).sin()).sum();
                bytes.extend(((value.to_bits() >> 16) as u16).to_le_bytes());
            }
        }
        bytes
    }

    fn view(bytes: &[u8]) -> TensorRef<'_> {
        TensorRef::new(DType::Bf16, &[128, COLUMNS], bytes).unwrap()
    }

    fn learned(seed: u64) -> Predictor {
        let mut learner = Learner::new(COLUMNS).unwrap();
        learner.add(view(&tensor(seed))).unwrap();
        learner.predictor().unwrap()
    }

    #[test]
    fn a_version_an_epoch_is_learned_tried_and_kept_while_frames_may_name_it() {
        let (predictors, forward) = (predictors(), Direction::Forward);
        let mut ids = Vec::new();
        for epoch in 0..6 {
            let mut tensors = 0;
            while predictors.wants(forward, Epoch(epoch)) {
                predictors.learn(ME, forward, Epoch(epoch), view(&tensor(u64::from(epoch) * 100 + tensors)));
                tensors += 1;
            }
            assert!(tensors > 2, "some rows, and one tensor more to try it on");
            ids.extend(predictors.held().current[0].as_ref().map(|predictor| predictor.id()));
        }
        assert_eq!(ids.len(), 6, "the first one pays at once");
        assert!(predictors.held().current[1].is_none());
        // Later ones of the same kind of tensors hardly do.
        ids.dedup();
        assert!(ids.len() < 4, "{ids:?}");
        let last = ids[ids.len() - 1];
        assert!(predictors.bytes(&ME, last).is_some());
        assert!(predictors.bytes(&NodeId([2; 32]), last).is_none(), "an id counts for its sender only");
    }

    #[test]
    fn no_sender_takes_another_s_place_or_its_own_too_soon() {
        let predictors = predictors();
        let member = |_: &NodeId| true;
        let take = |from: u8, epoch: u32, seed: u64| {
            predictors.take(NodeId([from; 32]), Epoch(epoch), learned(seed), member)
        };
        let has = |from: u8, seed: u64| predictors.bytes(&NodeId([from; 32]), learned(seed).id()).is_some();
        take(9, 0, 0).unwrap();
        take(9, 0, 0).unwrap();
        take(9, 0, 1).unwrap();
        assert!(matches!(take(9, 0, 2), Err(NotTaken::Often)));
        // As many more as an epoch can have: what the epoch before used is still here.
        for epoch in 1..=2 {
            for at in 0..2 {
                take(9, epoch, u64::from(10 * epoch + at)).unwrap();
            }
            assert!(has(9, 0) && has(9, 1));
        }
        take(9, 3, 30).unwrap();
        assert!(!has(9, 0) && has(9, 1) && has(9, 30));
        assert!(predictors.of(&NodeId([9; 32])).predictor(learned(30).id()).is_ok());
        // However many come, nobody who takes part loses what it told.
        let full = (10..=200).find(|from| take(*from, 3, 0).is_err()).expect("an end");
        assert!(matches!(take(full, 3, 0), Err(NotTaken::Full)));
        assert!(has(9, 30) && has(10, 0));
        predictors.take(NodeId([full; 32]), Epoch(3), learned(0), |node| *node != NodeId([10; 32])).unwrap();
        assert!(has(9, 30) && has(full, 0) && !has(10, 0), "who has gone makes room");
    }

    #[test]
    fn what_is_no_predictor_of_this_run_is_refused_before_it_is_worked_on() {
        let bytes = learned(0).to_bytes().to_vec();
        assert!(parse(&bytes, COLUMNS).is_ok());
        assert!(matches!(parse(&bytes, 0), Err(NotTaken::Unused)));
        assert!(matches!(parse(&bytes, COLUMNS - 1), Err(NotTaken::Columns(COLUMNS))));
        assert!(matches!(parse(&vec![0; most_bytes(COLUMNS) + 1], COLUMNS), Err(NotTaken::Length(_))));
        for cut in 0..12 {
            assert!(matches!(parse(&bytes[..cut], COLUMNS), Err(NotTaken::Codec(_))), "{cut}");
        }
        // The count alone, with as many bytes as that many columns need at least.
        let mut wide = bytes[..4].to_vec();
        wide.extend(4096_u32.to_le_bytes());
        wide.resize(most_bytes(COLUMNS), 0);
        assert!(matches!(parse(&wide, COLUMNS), Err(NotTaken::Columns(4096))));
    }

    #[test]
    fn a_receiver_is_told_once_again_if_it_forgot_and_not_for_ever() {
        let predictors = predictors();
        let (to, forward) = (NodeId([3; 32]), Direction::Forward);
        assert!(matches!(predictors.means(forward, to, None), Means::None));
        predictors.install(ME, forward, Epoch(0), learned(0));
        let id = learned(0).id();
        for loss in 0..limits::PREDICTOR_LOSSES {
            assert!(matches!(predictors.means(forward, to, None), Means::Tell(_)), "{loss}");
            assert!(matches!(predictors.means(forward, to, None), Means::None), "it is under way");
            predictors.told(to, id, Heard::NotYet);
            assert!(matches!(predictors.means(forward, to, None), Means::Tell(_)), "it may be tried again");
            predictors.told(to, id, Heard::Taken(5));
            assert!(matches!(predictors.means(forward, to, None), Means::Held(_)));
            predictors.lost(to, id);
            predictors.lost(to, id);
        }
        assert!(matches!(predictors.means(forward, to, None), Means::None));
        assert_eq!(predictors.take_crossed(), 5 * u64::from(limits::PREDICTOR_LOSSES));
        // A version later all is as at first, and a refusal is for good.
        predictors.install(ME, forward, Epoch(1), learned(1));
        assert!(matches!(predictors.means(forward, to, None), Means::Tell(_)));
        predictors.told(to, learned(1).id(), Heard::Refused);
        assert!(matches!(predictors.means(forward, to, None), Means::None));
    }
}
