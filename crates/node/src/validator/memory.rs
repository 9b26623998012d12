//! What a validator will need.

use crate::limits;
use crate::spec::RunSpec;

/// Memory of a validator, bytes: all stages to replay them, the weights that the epoch opened with and those to come, one
/// micro-batch at a time.
pub fn memory(spec: &RunSpec, threads: usize) -> u64 {
    let needs = spec.stage_specs().into_iter().map(|stage| stage.memory(spec.batch.sequences, 1, threads));
    let (held, working) = needs.fold((0, 0), |(held, working): (u64, u64), need| {
        (held + 3 * need.weights + need.gradient, working.max(need.activations + need.scratch))
    });
    held + working + limits::PROCESS_BYTES
}
