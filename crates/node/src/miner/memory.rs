//! What a miner will need, told before it joins.

use std::fmt;

use model::config::{MemoryNeed, StageSpec};
use swarm::limits::STATE_BYTES_PER_PARAMETER;
use swarm::miner::reduce;
use wire::StageIndex;

use super::{Keep, MinerError};
use crate::champion::call_memory;
use crate::limits;
use crate::spec::{RunSpec, TensorCodec};

/// Memory and disk of a miner that has a certain stage, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinerMemory {
    /// Stage.
    pub stage: u16,
    /// The stage itself while it trains.
    pub training: MemoryNeed,
    /// What a merge holds beside weights, gradient and moments: opening state, own upload, others' uploads, results and
    /// the state to come. Graphs are gone by then.
    pub merging: u64,
    /// Messages of micro-batches under way, and what is kept of finished ones for validators.
    pub messages: u64,
    /// Everything else of the process.
    pub process: u64,
    /// Opening states of two epochs, on disk.
    pub disk: u64,
}

impl MinerMemory {
    /// The most that is needed at any time.
    pub fn peak(&self) -> u64 {
        let training = self.training.total();
        let kept = self.training.weights + self.training.gradient + self.training.moments;
        training.max(kept + self.merging) + self.messages + self.process
    }
}

impl fmt::Display for MinerMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let need = &self.training;
        write!(
            f,
            "stage {}: {} MiB at most (weights {}, gradient {}, moments {}, second version {}, activations {}, \
             buffers {}; a merge {}; messages {}, process {}), {} MiB on disk",
            self.stage,
            mib(self.peak()),
            mib(need.weights),
            mib(need.gradient),
            mib(need.moments),
            mib(need.stash),
            mib(need.activations),
            mib(need.scratch),
            mib(self.merging),
            mib(self.messages),
            mib(self.process),
            mib(self.disk)
        )
    }
}

/// Micro-batches that a miner of the run takes at a time, graphs or inputs of which it keeps.
pub(super) fn queue(spec: &RunSpec) -> usize {
    spec.stages() * 2 + limits::QUEUE_BEYOND
}

/// What each stage of a run needs, head first.
pub fn memory(spec: &RunSpec, threads: usize, keep: Keep) -> Vec<MinerMemory> {
    let in_flight = queue(spec);
    let graphs = match keep {
        Keep::Graphs => in_flight,
        Keep::Inputs => in_flight.min(1),
    };
    let merge = spec.swarm_spec().merge;
    let momentum = u64::from(reduce::has_momentum(merge.outer)) * 4;
    let encoded = merge.wire.width() as u64;
    let rows = spec.batch.sequences * spec.model.sequence;
    let (forward, backward) = spec.cut.message_bytes(&spec.model, rows);
    // Each as a tensor and encoded; a miner takes twice what it keeps under way.
    let flying = 4 * in_flight as u64 * (forward + backward) as u64;
    let items = u64::from(spec.batch.micro_batches_per_epoch).min(limits::ARCHIVE_ITEMS as u64);
    let finished = items.saturating_mul((forward + backward) as u64).min(limits::ARCHIVE_BYTES as u64);
    let need = |(index, stage): (usize, &StageSpec)| {
        let parameters = stage.parameters() as u64;
        // Weights, momentum and residual, of the opening epoch and of the next one.
        let states = 2 * (4 + momentum + 4);
        // Trained weights and the residual to come; own upload, uploads and results of own shards (two thirds of the
        // vector each at worst, with two replicas the whole of it), all results.
        let transit = 4 + 4 + 4 * encoded;
        // Encoded copies under way: the upload to two owners, the state to the keeper.
        let packed = |codec: TensorCodec, bytes: u64| if codec == TensorCodec::Raw { 0 } else { bytes };
        let transit = transit
            + packed(spec.codec.pseudo_gradients, 2 * encoded)
            + packed(spec.codec.weights, 4 + momentum);
        let mut training = stage.memory(spec.batch.sequences, graphs, threads);
        training.stash *= u64::from(spec.inner.stash);
        MinerMemory {
            stage: index as u16,
            training,
            merging: parameters * (states + transit),
            messages: if spec.stages() == 1 { 0 } else { flying + finished },
            process: limits::PROCESS_BYTES
                + spec.codec.competition().map_or(0, |_| champion_bytes(spec))
                + predictor_bytes(spec),
            disk: parameters * states,
        }
    };
    spec.stage_specs().iter().enumerate().map(need).collect()
}

/// What learning takes at most on one miner, and the predictors that it holds, bytes.
fn predictor_bytes(spec: &RunSpec) -> u64 {
    let columns = spec.predicted_columns().unwrap_or(0) as u64;
    limits::PREDICTOR_BYTES_PER_PAIR * columns * columns
}

/// What champions take at most on one miner, bytes: those calls that may run at a time, and the engine.
fn champion_bytes(spec: &RunSpec) -> u64 {
    let call = call_memory(super::frames::most_bytes(spec) as u64);
    limits::CHAMPION_ENGINE_BYTES + limits::CHAMPION_LANES as u64 * call
}

/// Why a miner that may use `allowed` bytes has no room for a champion, if so. A run that asks for one in its spec has
/// it in its needs; one that is given one later has not.
pub(super) fn no_room_for_champions(
    spec: &RunSpec,
    needs: &[MinerMemory],
    stage: Option<StageIndex>,
    allowed: Option<u64>,
) -> Option<String> {
    let allowed = allowed?;
    if spec.codec.competition().is_some() {
        return None;
    }
    let candidates = needs.iter().filter(|need| stage.is_none_or(|stage| stage.0 == need.stage));
    let peak = candidates.map(MinerMemory::peak).max()?;
    let champion = champion_bytes(spec);
    (peak.saturating_add(champion) > allowed).then(|| {
        format!("no room: {} MiB more than --memory allows", (peak + champion - allowed).div_ceil(1 << 20))
    })
}

/// Refuses a stage that does not fit, or a run of which none fits.
pub(super) fn check(
    needs: &[MinerMemory],
    stage: Option<StageIndex>,
    allowed: Option<u64>,
) -> Result<(), MinerError> {
    if let Some(stage) = stage
        && usize::from(stage.0) >= needs.len()
    {
        return Err(MinerError::NoStage { stage: stage.0, last: needs.len() - 1 });
    }
    let Some(allowed) = allowed else { return Ok(()) };
    let candidates = needs.iter().filter(|need| stage.is_none_or(|stage| stage.0 == need.stage));
    match candidates.min_by_key(|need| need.peak()) {
        Some(least) if least.peak() > allowed => {
            Err(MinerError::Memory { stage: least.stage, needed: least.peak(), allowed })
        }
        _ => Ok(()),
    }
}

/// What the run is told of `allowed`, bytes, and a stage to ask for if that does not say enough.
///
/// The run takes a stage to fit whose weights, gradient and moments do ([`STATE_BYTES_PER_PARAMETER`]); a miner needs
/// more, so it names the most that makes the run choose among the stages that fit whole.
pub(super) fn told(needs: &[MinerMemory], stages: &[StageSpec], allowed: u64) -> (u64, Option<StageIndex>) {
    let counted = |stage: &StageSpec| stage.parameters() as u64 * STATE_BYTES_PER_PARAMETER;
    let (fit, too_large): (Vec<_>, Vec<_>) =
        needs.iter().zip(stages).partition(|(need, _)| need.peak() <= allowed);
    let Some(least) = too_large.iter().map(|(_, stage)| counted(stage)).min() else {
        return (allowed, None);
    };
    let told = allowed.min(least.saturating_sub(1));
    let best = fit.iter().min_by_key(|(need, _)| need.peak());
    match best {
        // It has more parameters than one that is too large for other reasons.
        Some((need, stage)) if counted(stage) > told => (allowed, Some(StageIndex(need.stage))),
        _ => (told, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_does_not_fit_is_refused_by_name() {
        let spec = RunSpec::preset("micro").unwrap();
        let needs = memory(&spec, 1, Keep::Graphs);
        assert_eq!(needs.len(), spec.stages());
        let least = needs.iter().map(MinerMemory::peak).min().unwrap();
        check(&needs, None, None).unwrap();
        check(&needs, None, Some(least)).unwrap();
        assert!(matches!(check(&needs, None, Some(least - 1)), Err(MinerError::Memory { .. })));
        assert!(matches!(check(&needs, Some(StageIndex(9)), None), Err(MinerError::NoStage { .. })));
        let mut spec = spec;
        spec.cuts = vec![3];
        let (needs, stages) = (memory(&spec, 1, Keep::Graphs), spec.stage_specs());
        let [large, small] =
            [0, 1].map(|stage: usize| stages[stage].parameters() as u64 * STATE_BYTES_PER_PARAMETER);
        assert!(needs[0].peak() > needs[1].peak());
        assert!((small..large).contains(&told(&needs, &stages, needs[1].peak()).0));
        assert!(told(&needs, &stages, needs[0].peak()).0 >= large);
        for (graphs, inputs) in needs.iter().zip(memory(&spec, 1, Keep::Inputs)) {
            assert_eq!(graphs.training.activations, queue(&spec) as u64 * inputs.training.activations);
            assert_eq!(graphs.messages, inputs.messages);
        }
        // Where graphs and not a merge decide, keeping only inputs lets a stage fit that would not.
        let mut wide = spec.clone();
        wide.batch.sequences = 64;
        let (graphs, inputs) = (memory(&wide, 1, Keep::Graphs), memory(&wide, 1, Keep::Inputs));
        let peaks: Vec<_> = graphs.iter().zip(&inputs).map(|(a, b)| (a.peak(), b.peak())).collect();
        assert!(peaks.iter().all(|(graphs, inputs)| inputs * 3 < graphs * 2), "{peaks:?}");
        // One version of the weights: 4 bytes per parameter less where training decides.
        let mut drains = wide.clone();
        drains.inner.stash = 0;
        for ((two, one), stage) in graphs.iter().zip(memory(&drains, 1, Keep::Graphs)).zip(&stages) {
            assert_eq!(two.peak() - one.peak(), 4 * stage.parameters() as u64);
        }
        let line = needs[0].to_string();
        assert!(line.starts_with("stage 0: ") && line.contains("on disk"), "{line}");
    }
}
