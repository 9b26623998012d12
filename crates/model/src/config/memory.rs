//! What a stage will need, in bytes, before it is built.

use super::StageSpec;
use crate::stage::need;

/// Bytes by purpose; see [`StageSpec::memory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryNeed {
    /// Weights: 4 per parameter.
    pub weights: u64,
    /// Gradient: 4 per parameter.
    pub gradient: u64,
    /// Optimiser's moments: 8 per parameter with AdamW; Muon's matrices need only 4.
    pub moments: u64,
    /// A second version of the weights, while a graph of the old one is open: 4 per parameter. Whoever steps only when no
    /// graph is open does without it.
    pub stash: u64,
    /// What backward needs, of all micro-batches in flight.
    pub activations: u64,
    /// Buffers of a running forward or backward.
    pub scratch: u64,
}

impl MemoryNeed {
    /// The sum.
    pub fn total(&self) -> u64 {
        self.weights + self.gradient + self.moments + self.stash + self.activations + self.scratch
    }
}

impl StageSpec {
    /// Bytes that a kept graph of `batch` sequences holds.
    pub fn graph_bytes(&self, batch: usize) -> u64 {
        need::graph_bytes(self, batch) as u64
    }

    /// Bytes that a CPU stage of this kind holds at most, with AdamW, `batch` sequences per micro-batch, `in_flight`
    /// kept graphs (those set aside do not count) and `threads` threads.
    pub fn memory(&self, batch: usize, in_flight: usize, threads: usize) -> MemoryNeed {
        let parameters = self.parameters() as u64;
        MemoryNeed {
            weights: 4 * parameters,
            gradient: 4 * parameters,
            moments: 8 * parameters,
            stash: 4 * parameters,
            activations: (in_flight * need::graph_bytes(self, batch)) as u64,
            scratch: need::scratch_bytes(self, batch, threads) as u64,
        }
    }
}
