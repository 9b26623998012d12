//! Champions of the arena at work in this node: run in the sandbox, checked tensor by tensor (protocol §7 "Production").
//!
//! What crosses is decided by the log and by what the component did so far: it must be in force, the receiver must have
//! said that it can run it, and the sender has decoded what it sends and found the same bits, or of a lossy component a
//! tensor within its bounds. Frames and receipts name the tensor that comes back. Everything else crosses by the built-in
//! codec.

mod bounds;
mod breaker;
mod carry;
mod evidence;
mod pin;
mod ready;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use swarm::record::{CodecFault, CodecPin, Statement};
use swarm::state::{ActiveCodec, State};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::{Direction, Epoch, FrameHeader, Hash, MicroBatch, NodeId};

use crate::limits;
use crate::spec::LossySpec;
pub(crate) use bounds::floats;
use breaker::Breaker;
pub(crate) use breaker::Outcome;
pub(crate) use carry::{Champion, Fell, Undecoded, call_memory, is_component_name};
pub use evidence::{Rerun, rerun};
pub(crate) use pin::numbers;
pub use pin::{PinError, pin};
pub(crate) use ready::Ready;

/// Components that this node has compiled, and how the one in force does.
#[derive(Debug)]
pub struct Champions {
    child: sandbox::Child,
    /// Folder for compiled code and for evidence; none: nothing is kept.
    folder: Option<PathBuf>,
    runtime: OnceLock<sandbox::Runtime>,
    /// Newest last: those in force, to come and of the epoch before.
    loaded: RwLock<VecDeque<Arc<Champion>>>,
    breaker: Breaker,
    /// Calls at a time: each takes the memory that a component may use.
    lanes: Arc<Semaphore>,
}

/// What a tensor is to cross by.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// The built-in codec.
    BuiltIn,
    /// The champion, unless it fails.
    Champion(Arc<Champion>),
    /// The champion would be due, but it failed too often in this epoch: the built-in codec, and that is counted.
    Spared(Hash),
}

impl Champions {
    /// None loaded yet. `child` compiles; `folder`, the node's own, keeps what it made, and evidence of faults.
    pub fn new(child: sandbox::Child, folder: Option<PathBuf>) -> Self {
        Self {
            child,
            folder,
            runtime: OnceLock::new(),
            loaded: RwLock::default(),
            breaker: Breaker::default(),
            lanes: Arc::new(Semaphore::new(limits::CHAMPION_LANES)),
        }
    }

    /// A component that this node can run.
    pub(crate) fn get(&self, component: &Hash) -> Option<Arc<Champion>> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.iter().find(|champion| champion.component() == *component).cloned()
    }

    /// The component that a frame names, if it names one.
    pub(crate) fn named(&self, codec: &str) -> Option<Arc<Champion>> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.iter().find(|champion| champion.name() == codec).cloned()
    }

    /// Compiles a pinned component and has it do the golden tensors; from then on it can be used. Takes seconds.
    pub(crate) fn load(
        &self,
        pin: &CodecPin,
        component: &[u8],
        numbers: codec::DType,
        lossy: &LossySpec,
    ) -> Result<(), PinError> {
        pin::check_engine(pin)?;
        pin::check_bounds(pin, lossy)?;
        let codec = self.runtime()?.compile(component).map_err(PinError::from)?;
        let champion = Champion::new(codec, pin.lossy);
        let golden = pin::golden(&champion, numbers)?;
        if golden != pin.golden {
            return Err(PinError::Golden { expected: pin.golden, found: golden });
        }
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        loaded.push_back(Arc::new(champion));
        while loaded.len() > limits::CHAMPIONS_LOADED {
            loaded.pop_front();
        }
        Ok(())
    }

    fn runtime(&self) -> Result<&sandbox::Runtime, sandbox::HostError> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        sandbox::contained()?;
        let cache = self.folder.as_ref().map(|folder| folder.join("compiled"));
        let made = sandbox::Runtime::new(self.child.clone(), cache)?;
        Ok(self.runtime.get_or_init(|| made))
    }

    /// What a tensor crosses by, from `me` to `to`.
    pub(crate) fn choose(&self, state: &State, me: &NodeId, header: &FrameHeader) -> Choice {
        // Which micro-batches are drawn is known of the present epoch only.
        let now = |active: &&ActiveCodec| !active.shadow || header.epoch == state.work().epoch;
        let due = |active: &&ActiveCodec| {
            active.carries(&state.seed(), header.micro_batch, header.direction) && now(active)
        };
        let Some(active) = state.codecs().active().filter(due) else {
            return Choice::BuiltIn;
        };
        let component = active.pin.component;
        let able = |id: &NodeId| state.node(id).is_some_and(|node| node.codecs.contains(&component));
        let Some(champion) = self.get(&component).filter(|_| able(me) && able(&header.to)) else {
            return Choice::BuiltIn;
        };
        if self.breaker.is_off(header.epoch, component) {
            Choice::Spared(component)
        } else {
            Choice::Champion(champion)
        }
    }

    /// Counts what became of a tensor; a fault is for the log.
    pub(crate) fn count(&self, epoch: Epoch, component: Hash, outcome: Outcome) {
        self.breaker.count(epoch, component, outcome);
    }

    /// What was counted since the last call.
    pub(crate) fn report(&self) -> Option<Statement> {
        self.breaker.report()
    }

    /// A turn among the calls that may run at a time: each may take much memory.
    pub(crate) async fn lane(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.lanes).acquire_owned().await.ok()
    }

    /// A turn, if a frame's codec is a component.
    pub(crate) async fn lane_for(&self, codec: &str) -> Option<OwnedSemaphorePermit> {
        if is_component_name(codec) { self.lane().await } else { None }
    }
}

/// Whether the sender decodes what this tensor of a lossless codec became: always while the codec is new, then a share by
/// seed, and whatever is compared. The receiver checks every tensor.
pub(crate) fn checks(state: &State, header: &FrameHeader) -> bool {
    let old_from = |since: Epoch| since.0.saturating_add(limits::CHAMPION_YOUNG_EPOCHS);
    let young = state.codecs().active().is_none_or(|active| header.epoch.0 < old_from(active.since));
    young || is_compared(header) || drawn("champion check", header, limits::CHAMPION_CHECK_EVERY)
}

/// Whether the codec before does this tensor too, to be compared with.
pub(crate) fn is_compared(header: &FrameHeader) -> bool {
    drawn("champion sample", header, limits::CHAMPION_COMPARE_EVERY)
}

/// One in `every` tensors, by a hash of which it is: nobody chooses, and everybody can recompute it.
fn drawn(label: &str, header: &FrameHeader, every: u64) -> bool {
    let FrameHeader { run, micro_batch, direction, stage, .. } = header;
    let way = [u8::from(*direction == Direction::Backward)];
    let seed = Hash::of_parts(label, &[&run.0, &micro_batch.0.to_le_bytes(), &way, &stage.0.to_le_bytes()]);
    let (first, _) = seed.0.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*first).is_multiple_of(every)
}

/// The log's words on a tensor that came back as another one.
pub(crate) fn fault(
    header: (Epoch, MicroBatch, Direction),
    component: Hash,
    tensor: Hash,
    encoded: Hash,
    decoded: Option<Hash>,
    frame: Option<Box<wire::SignedFrame>>,
) -> Statement {
    let (epoch, micro_batch, direction) = header;
    Statement::CodecFault(CodecFault {
        epoch,
        component,
        micro_batch,
        direction,
        tensor,
        encoded,
        decoded,
        frame,
    })
}
