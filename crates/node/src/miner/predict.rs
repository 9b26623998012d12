//! Predictors of the predictive codec: learned from what this node sends, told once to whoever receives it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use codec::{CodecError, CodecId, DType, Learner, Level, Predictor, Shared, TensorRef};
use tokio::sync::OnceCell;
use wire::{Direction, Epoch, NodeId};

use crate::limits;
use crate::spec::TensorCodec;

/// What a node learns, has told, and was told.
#[derive(Debug, Default)]
pub(super) struct Predictors {
    learning: [Mutex<Learning>; 2],
    /// One more than the epoch of which nothing is to be learned any more.
    learned: [AtomicU64; 2],
    held: Mutex<Held>,
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
    /// Own ones and others', oldest first. Ids are short hashes, so each counts for its sender only.
    known: VecDeque<(NodeId, Arc<Predictor>)>,
    /// Who was told of which own one.
    told: BTreeMap<(NodeId, u64), Arc<OnceCell<()>>>,
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

/// Whether tensors of this type and width, by this codec, over a link of this speed in bytes per second, are predicted.
pub(super) fn is_worth_it(codec: TensorCodec, tensor: TensorRef<'_>, speed: Option<f64>) -> bool {
    let slow = speed.is_none_or(|speed| speed < limits::PREDICTOR_LINK_BYTES_PER_S);
    let wanted = codec == TensorCodec::Predictive || codec == TensorCodec::Auto && slow;
    wanted && tensor.dtype() == DType::Bf16 && (1..=limits::PREDICTOR_COLUMNS).contains(&tensor.rows_cols().1)
}

impl Predictors {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By which tensors of this direction are encoded now.
    pub(super) fn current(&self, direction: Direction) -> Option<Arc<Predictor>> {
        self.held().current[index(direction)].clone()
    }

    /// Whether a tensor of this epoch would be learned from.
    pub(super) fn wants(&self, direction: Direction, epoch: Epoch) -> bool {
        self.learned[index(direction)].load(Ordering::Relaxed) <= u64::from(epoch.0)
    }

    /// Learns from a tensor that `me` sends in an epoch; takes a while. Of several at a time one is taken.
    ///
    /// A version is made of some rows, tried on the next tensor, and used from then on if it pays for its own bytes.
    pub(super) fn learn(&self, me: NodeId, direction: Direction, epoch: Epoch, tensor: TensorRef<'_>) {
        let Ok(mut learning) = self.learning[index(direction)].try_lock() else { return };
        if !self.wants(direction, epoch) {
            return;
        }
        let columns = tensor.rows_cols().1;
        if let Some(candidate) = learning.candidate.take() {
            let present = self.current(direction);
            if pays(&candidate, present.as_deref(), tensor).unwrap_or(false) {
                tracing::debug!(?direction, bytes = candidate.to_bytes().len(), "tensors are predicted anew");
                self.install(me, direction, candidate);
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
        let rows = learning.rows + tensor.rows_cols().0;
        let enough = rows >= columns * limits::PREDICTOR_ROWS_PER_COLUMN;
        learning.candidate =
            learning.learner.as_ref().filter(|_| enough).and_then(|learner| learner.predictor().ok());
        learning.rows = rows;
    }

    fn install(&self, me: NodeId, direction: Direction, predictor: Predictor) {
        let predictor = Arc::new(predictor);
        let mut held = self.held();
        held.current[index(direction)] = Some(Arc::clone(&predictor));
        held.keep(me, predictor);
        let Held { current, told, .. } = &mut *held;
        told.retain(|(_, id), _| current.iter().flatten().any(|predictor| predictor.id() == *id));
    }

    /// Takes what `from` will encode tensors of at most `columns` columns by.
    ///
    /// # Errors
    /// Bytes that are no predictor, or one for other tensors.
    pub(super) fn take(&self, from: NodeId, columns: usize, bytes: &[u8]) -> Result<(), CodecError> {
        let other =
            CodecError::OutOfRange { what: "predictor", range: "for tensors that cross this run's cuts" };
        let columns = columns.min(limits::PREDICTOR_COLUMNS);
        if bytes.len() > most_bytes(columns) {
            return Err(other);
        }
        let predictor = Predictor::from_bytes(bytes)?;
        if predictor.columns() > columns {
            return Err(other);
        }
        self.held().keep(from, Arc::new(predictor));
        Ok(())
    }

    /// What frames of `from` may name.
    pub(super) fn of(&self, from: &NodeId) -> Shared {
        let mut shared = Shared::new();
        for (_, predictor) in self.held().known.iter().filter(|(node, _)| node == from) {
            shared.add_predictor(Arc::clone(predictor));
        }
        shared
    }

    /// The bytes of one.
    pub(super) fn bytes(&self, of: &NodeId, id: u64) -> Option<Bytes> {
        let held = self.held();
        let found = held.known.iter().find(|(node, predictor)| node == of && predictor.id() == id)?;
        Some(Bytes::copy_from_slice(found.1.to_bytes()))
    }

    /// Set once `to` holds an own predictor.
    pub(super) fn told(&self, to: NodeId, id: u64) -> Arc<OnceCell<()>> {
        Arc::clone(self.held().told.entry((to, id)).or_default())
    }

    /// `to` does not hold it any more.
    pub(super) fn forgotten(&self, to: NodeId, id: u64) {
        self.held().told.remove(&(to, id));
    }
}

impl Held {
    fn keep(&mut self, from: NodeId, predictor: Arc<Predictor>) {
        self.known.retain(|(node, known)| (*node, known.id()) != (from, predictor.id()));
        self.known.push_back((from, predictor));
        let mut of_one = self.known.iter().enumerate().filter(|(_, (node, _))| *node == from);
        let oldest_of_one = of_one.next().map(|(at, _)| at);
        if of_one.count() >= limits::PREDICTORS_OF_ONE {
            self.known.remove(oldest_of_one.unwrap_or_default());
        } else if self.known.len() > limits::PREDICTORS {
            self.known.pop_front();
        }
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

    #[test]
    fn a_version_an_epoch_is_learned_tried_and_kept_while_frames_may_name_it() {
        let (predictors, forward) = (Predictors::default(), Direction::Forward);
        let mut ids = Vec::new();
        for epoch in 0..6 {
            let mut tensors = 0;
            while predictors.wants(forward, Epoch(epoch)) {
                predictors.learn(ME, forward, Epoch(epoch), view(&tensor(u64::from(epoch) * 100 + tensors)));
                tensors += 1;
            }
            assert!(tensors > 2, "some rows, and one tensor more to try it on");
            ids.extend(predictors.current(forward).map(|predictor| predictor.id()));
        }
        assert_eq!(ids.len(), 6, "the first one pays at once");
        assert!(predictors.current(Direction::Backward).is_none());
        // Later ones of the same kind of tensors hardly do.
        ids.dedup();
        assert!(ids.len() < 4, "{ids:?}");
        let last = ids[ids.len() - 1];
        assert!(predictors.bytes(&ME, last).is_some());
        assert!(predictors.bytes(&NodeId([2; 32]), last).is_none(), "an id counts for its sender only");
    }

    #[test]
    fn each_sender_has_a_few_and_nobody_takes_another_s_place() {
        let predictors = Predictors::default();
        let bytes = |seed: u64| {
            let mut learner = Learner::new(COLUMNS).unwrap();
            learner.add(view(&tensor(seed))).unwrap();
            learner.predictor().unwrap().to_bytes().to_vec()
        };
        let (first, many) = (bytes(0), (1..8).map(bytes).collect::<Vec<_>>());
        let quiet = NodeId([9; 32]);
        predictors.take(quiet, COLUMNS, &first).unwrap();
        for bytes in &many {
            predictors.take(ME, COLUMNS, bytes).unwrap();
            predictors.take(ME, COLUMNS, bytes).unwrap();
        }
        let id = |bytes: &[u8]| Predictor::from_bytes(bytes).unwrap().id();
        assert!(predictors.bytes(&quiet, id(&first)).is_some());
        let held = many.iter().filter(|bytes| predictors.bytes(&ME, id(bytes)).is_some()).count();
        assert_eq!(held, limits::PREDICTORS_OF_ONE);
        assert!(predictors.bytes(&ME, id(&many[6])).is_some(), "the newest");
        assert!(predictors.of(&ME).predictor(id(&many[6])).is_ok());
        assert!(predictors.take(ME, COLUMNS - 1, &first).is_err(), "too wide for the run");
        assert!(predictors.take(ME, COLUMNS, &first[..first.len() / 2]).is_err());
        assert!(predictors.take(ME, COLUMNS, &vec![0; most_bytes(COLUMNS) + 1]).is_err());
    }

    #[test]
    fn who_was_told_is_told_once_and_again_if_it_forgot() {
        let predictors = Predictors::default();
        let to = NodeId([3; 32]);
        predictors.told(to, 5).set(()).unwrap();
        assert!(predictors.told(to, 5).initialized() && !predictors.told(to, 6).initialized());
        predictors.forgotten(to, 5);
        assert!(!predictors.told(to, 5).initialized());
    }
}
