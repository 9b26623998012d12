//! Swarms of both machines and the fold, in virtual time: equal replicas, exact means, a ledger that adds up, no hang.

mod frames;
mod peer;
mod world;

use std::collections::BTreeSet;

use wire::{Epoch, Hash, Millis, StageIndex};

use crate::miner::reduce;
use crate::record::{Derived, ShardOutcome};
use crate::spec::{MergeSpec, MergeWire, Outer, Pace, Ramp, StageFacts, SwarmSpec, Unwitnessed};
use crate::state::Cell;
use peer::Opening;
use world::{Weather, World, same_bits};

const CALM: Weather = Weather { delay: 5, loss: 0 };
const ROUGH: Weather = Weather { delay: 30, loss: 10 };
/// Longest that any of these runs may take, virtual time.
const END: Millis = Millis(240_000);

fn spec(stages: usize, elements: u64) -> SwarmSpec {
    SwarmSpec {
        seed: 7,
        stages: vec![StageFacts { parameters: elements, flops_per_token: 1000 }; stages],
        tokens_per_micro_batch: 64,
        epochs: 3,
        micro_batches_per_epoch: 24,
        inner_steps: 4,
        pace: Pace::Async,
        miners_min: 1,
        validators_min: 0,
        epoch_deadline: Millis(30_000),
        lease_ttl: Millis(4_000),
        heartbeat: Millis(500),
        lost_after: Millis(2_500),
        merge: MergeSpec {
            deadline_min: Millis(4_000),
            deadline_max: Millis(10_000),
            unwitnessed: Unwitnessed::Accept,
            first_norm_bound: 0.0,
            outer: Outer::Nesterov { learning_rate: 0.7, momentum: 0.9, ramp: None },
            wire: MergeWire::F32,
        },
        audit_rate_ppm: 0,
    }
}

/// When an epoch opens: all its members hold the same bits, and the epoch before left no cell in between.
fn check_opening(world: &World) {
    let state = &world.state;
    let epoch = state.work().epoch;
    for stage in state.spec().stage_indices() {
        let members: BTreeSet<_> = state.members(stage).map(|member| member.node).collect();
        let held: Vec<&Opening> = world
            .peers
            .iter()
            .filter(|peer| peer.alive && members.contains(&peer.id))
            .filter_map(|peer| peer.disk.get(&epoch))
            .collect();
        for pair in held.windows(2) {
            assert!(
                same_bits(&pair[0].weights, &pair[1].weights),
                "weights of epoch {epoch} differ in stage {stage}"
            );
            assert!(same_bits(&pair[0].momentum, &pair[1].momentum), "momentum differs");
        }
    }
    let Some(summary) = state.summaries().back() else { return };
    let coverage = &summary.coverage;
    assert_eq!((coverage.leased, coverage.accumulated, coverage.stepped), (0, 0, 0), "{coverage:?}");
    let spec = state.spec();
    let cells = u64::from(spec.micro_batches_per_epoch) * spec.stages.len() as u64;
    let forfeited: u64 = coverage.forfeited.values().sum();
    assert_eq!(coverage.open + coverage.reopened + coverage.merged + forfeited, cells, "{coverage:?}");
}

/// When a manifest comes: every settled result is the declared-order mean of the committed uploads, to the bit, and
/// the merged cells are those of the uploaders that entered.
fn check_manifest(world: &World, epoch: Epoch, stage: StageIndex, outcomes: &[ShardOutcome]) {
    let state = &world.state;
    let Some(merge) = state.merge(stage).filter(|merge| merge.epoch == epoch && !merge.amended) else {
        return;
    };
    let identity = state.spec().merge.outer == Outer::Identity && merge.set.len() == 1;
    for (shard, outcome) in (0..).zip(outcomes) {
        let ShardOutcome::Settled { result, .. } = outcome else { continue };
        if identity {
            continue;
        }
        let bitmap = merge.inputs[usize::from(shard)];
        let range = merge.partition.elements(shard);
        let inputs: Vec<usize> = (0..merge.set.len()).filter(|i| bitmap >> i & 1 == 1).collect();
        let all: f64 = merge.set.iter().map(|upload| f64::from(upload.micro_batches)).sum();
        let steps = merge
            .set
            .iter()
            .fold(0.0, |sum, upload| sum + f64::from(upload.micro_batches) / all * f64::from(upload.steps));
        let present: f64 = inputs.iter().map(|i| f64::from(merge.set[*i].micro_batches)).sum();
        let capped = |n: usize, p: f64| if n < 4 { p } else { p.min(4.0 / n as f64) };
        assert!(merge.set.iter().all(|u| f64::from(u.micro_batches) / all <= 4.0 / merge.set.len() as f64));
        let mut mean = vec![0.0_f32; range.len()];
        for (at, index) in inputs.iter().enumerate() {
            let upload = &merge.set[*index];
            let p = capped(inputs.len(), f64::from(upload.micro_batches) / present);
            let weight = (steps * p * merge.clip[*index] / f64::from(upload.steps)) as f32;
            let bytes = &world.uploads[&(epoch, upload.node)];
            let width = state.spec().merge.wire.width();
            let mut values = vec![0.0; range.len()];
            reduce::decode(
                state.spec().merge.wire,
                &bytes[range.start * width..range.end * width],
                &mut values,
            );
            for (mean, value) in mean.iter_mut().zip(values) {
                let product = weight * value;
                *mean = if at == 0 { product } else { *mean + product };
            }
        }
        let expected = match state.spec().merge.wire {
            MergeWire::F32 => Hash::of(reduce::bytes_of(&mean)),
            MergeWire::Bf16 => {
                let rounded = mean.iter().zip(range).map(|(value, k)| rounded(*value, &merge.seed, shard, k));
                Hash::of(&rounded.flat_map(u16::to_le_bytes).collect::<Vec<_>>())
            }
        };
        assert_eq!(expected, *result, "mean of shard {shard}");
    }
    let settled =
        outcomes.iter().zip(&merge.inputs).filter(|(o, _)| matches!(o, ShardOutcome::Settled { .. }));
    let entered = settled.fold(0_u64, |mask, (_, bitmap)| mask | bitmap);
    let expected: usize = merge
        .set
        .iter()
        .enumerate()
        .filter(|(i, _)| entered >> i & 1 == 1)
        .map(|(_, upload)| upload.micro_batches as usize)
        .sum();
    let cell = |cells: &[Cell]| matches!(cells[usize::from(stage.0)], Cell::Merged { .. });
    assert_eq!(state.paths().values().filter(|path| cell(&path.cells)).count(), expected);
}

/// Element `k` of a lossy result, one at a time (protocol §1.2): towards zero, or away from it where sixteen bits drawn for it
/// reach what is cut off.
fn rounded(value: f32, seed: &Hash, shard: u16, k: usize) -> u16 {
    let key = Hash::of_parts("shoal 2026-11 merge dither", &[&seed.0, &shard.to_le_bytes()]);
    let key = u64::from_le_bytes(key.0[..8].try_into().unwrap());
    let mut drawn = key.wrapping_add((k as u64 / 4).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    drawn = (drawn ^ drawn >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    drawn = (drawn ^ drawn >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    drawn ^= drawn >> 31;
    let drawn = (drawn >> (16 * (k % 4))) as u16;
    let [low, high] = [value.to_bits() as u16, (value.to_bits() >> 16) as u16];
    high + u16::from(u32::from(low) + u32::from(drawn) >= 1 << 16)
}

/// The first few seeds, or those from `SHOAL_SEEDS=FIRST..END`.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let given = std::env::var("SHOAL_SEEDS").ok();
    let given = given.as_deref().and_then(|text| text.split_once(".."));
    let range = given.and_then(|(first, end)| Some(first.parse().ok()?..end.parse().ok()?));
    range.unwrap_or(0..count)
}

fn manifests(world: &World) -> impl Iterator<Item = &Vec<ShardOutcome>> {
    world.derived.iter().filter_map(|derived| match derived {
        Derived::Manifest { shards, .. } => Some(shards),
        _ => None,
    })
}

#[test]
fn any_number_of_replicas_merges_to_the_exact_mean() {
    for (replicas, wire) in (1..=16).flat_map(|n| [(n, MergeWire::F32), (n, MergeWire::Bf16)]) {
        let mut spec = spec(1, 60_000);
        spec.merge.wire = wire;
        spec.miners_min = replicas;
        spec.micro_batches_per_epoch = 4 * u32::from(replicas);
        spec.inner_steps = 2;
        let mut world = World::new(u64::from(replicas), spec, usize::from(replicas), CALM);
        world.forward_ms = Some(4);
        world.run(END);
        assert_eq!(manifests(&world).count(), 3);
        let cells = world.state.merge(StageIndex(0)).expect("the last merge").agreement();
        let pairs: BTreeSet<_> = cells.iter().map(|cell| cell.owners.clone()).collect();
        assert!(!cells.is_empty() && pairs.len() == cells.len(), "no pair has two shards: {cells:?}");
        for cell in &cells {
            assert!(
                [&cell.missing, &cell.unequal, &cell.witnesses].iter().all(|none| none.is_empty()),
                "{cell:?}"
            );
        }
        for outcome in manifests(&world).flatten() {
            let witnessed = matches!(outcome, ShardOutcome::Settled { witnessed: true, .. });
            let alone = replicas == 1 && matches!(outcome, ShardOutcome::Settled { witnessed: false, .. });
            assert!(witnessed || alone, "{replicas} replicas: {outcome:?}");
        }
        let summary = world.state.summaries().back().unwrap();
        assert_eq!(summary.coverage.merged, u64::from(replicas) * 4, "{:?}", summary.coverage);
    }
}

#[test]
fn a_single_replica_with_the_identity_keeps_its_own_weights() {
    let mut spec = spec(1, 9_000);
    spec.merge.outer = Outer::Identity;
    spec.merge.wire = MergeWire::Bf16;
    let mut world = World::new(1, spec, 1, CALM);
    world.run(END);
    assert_eq!(world.state.summaries().back().unwrap().coverage.merged, 24);
    let peer = &world.peers[0];
    assert!(same_bits(&peer.disk[&Epoch(3)].weights, &peer.trained[&Epoch(2)]));
}

/// Momentum μ of the merge between two openings, by least squares from θ − θ' = lr (m' − μ m + μ m').
fn momentum_between(before: &Opening, after: &Opening, learning_rate: f64) -> f64 {
    let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
    let (theta, m) = (wide(&before.weights), wide(&before.momentum));
    let (theta_next, m_next) = (wide(&after.weights), wide(&after.momentum));
    let (mut products, mut squares) = (0.0, 0.0);
    for i in 0..m.len() {
        let change = m_next[i] - m[i];
        products += change * ((theta[i] - theta_next[i]) / learning_rate - m_next[i]);
        squares += change * change;
    }
    products / squares
}

#[test]
fn whoever_restarts_or_joins_within_a_momentum_ramp_takes_the_same_outer_steps() {
    let mut spec = spec(1, 20_000);
    (spec.epochs, spec.miners_min) = (8, 2);
    let ramp = Some(Ramp { from: 0.5, epochs: 6 });
    spec.merge.outer = Outer::Nesterov { learning_rate: 0.7, momentum: 0.9, ramp };
    let mut world = World::new(4, spec, 4, CALM);
    world.forward_ms = Some(40);
    let start = world.now;
    world.kill(start.plus(Millis(1)), 3, Some(Millis(1_500)));
    world.kill(start.plus(Millis(2_500)), 0, Some(Millis(10)));
    world.run(END);
    let opening = |epoch| &world.keeper[&(StageIndex(0), Epoch(epoch))];
    for (epoch, expected) in (0..).zip([0.5, 0.5667, 0.6333, 0.7, 0.7667, 0.8333, 0.9, 0.9]) {
        let found = momentum_between(opening(epoch), opening(epoch + 1), 0.7);
        assert!((found - expected).abs() < 1e-3, "epoch {epoch}: {found} instead of {expected}");
    }
    let members = |derived: &Derived| match derived {
        Derived::Opened { members, .. } => Some(members.iter().filter(|m| m.stage == StageIndex(0)).count()),
        _ => None,
    };
    let members: Vec<usize> = world.derived.iter().filter_map(members).collect();
    println!("{members:?} {:?}", world.epochs);
    // Both are back while the momentum still rises, and stay: what they hold after each merge is what the others hold.
    assert!(members[..5].iter().any(|members| *members < 4) && members[5..] == [4; 3], "{members:?}");
}

#[test]
fn a_pipeline_trains_every_micro_batch_once() {
    for (seed, pace) in [(1, Pace::Async), (2, Pace::Lockstep { clip_norm: 1.0 })] {
        let mut spec = spec(3, 9_000);
        spec.pace = pace;
        spec.merge.wire = MergeWire::Bf16;
        let replicas = if pace == Pace::Async { 2 } else { 1 };
        spec.miners_min = replicas;
        let mut world = World::new(seed, spec, usize::from(replicas) * 3, CALM);
        world.run(END);
        for summary in world.state.summaries() {
            if pace == Pace::Async {
                assert!(summary.coverage.merged >= 60, "{:?}", summary.coverage);
            } else {
                assert_eq!(summary.coverage.merged, 72, "{:?}", summary.coverage);
            }
        }
        assert_eq!(
            world
                .peers
                .iter()
                .map(|peer| peer.id)
                .filter_map(|id| world.state.node(&id))
                .map(|n| n.strikes)
                .sum::<u64>(),
            0
        );
    }
}

#[test]
fn without_a_stash_a_step_waits_for_what_is_under_way() {
    let lockstep = Pace::Lockstep { clip_norm: 1.0 };
    for (seed, stages, replicas, pace) in
        [(1, 3, 2, Pace::Async), (2, 3, 1, lockstep), (3, 1, 2, Pace::Async), (4, 4, 3, Pace::Async)]
    {
        let mut spec = spec(stages, 9_000);
        (spec.pace, spec.miners_min) = (pace, replicas);
        let cells = u64::from(spec.micro_batches_per_epoch) * stages as u64;
        let mut world = World::new(seed, spec, usize::from(replicas) * stages, CALM);
        world.drains_before_steps();
        world.run(END);
        for summary in world.state.summaries() {
            let least = if pace == Pace::Async { cells * 5 / 6 } else { cells };
            assert!(summary.coverage.merged >= least, "{stages} stages: {:?}", summary.coverage);
        }
    }
}

#[test]
fn without_a_stash_nobody_waits_for_a_lost_miner_for_ever() {
    // With 159 a step also waits for a micro-batch that came again and adds nothing to it; with 214 a miner that comes back before
    // the first opening finds its stage full and another short.
    for seed in seeds(16).chain([159, 214]) {
        let (stages, replicas) = [(2, 2), (3, 2), (4, 2), (3, 3)][seed as usize % 4];
        let mut spec = spec(stages, 9_000);
        spec.miners_min = replicas;
        let count = stages * usize::from(replicas);
        let mut world = World::new(seed, spec, count, if seed % 2 == 0 { CALM } else { ROUGH });
        world.drains_before_steps();
        for _ in 0..=world.random(3) {
            let at = world.now.plus(Millis(world.random(4_000)));
            let victim = world.random(count as u64) as usize;
            let back = Millis(100 + world.random(6_000));
            world.kill(at, victim, Some(back));
        }
        println!("seed {seed}");
        world.run(END);
        assert_eq!(world.state.summaries().len(), 3);
    }
}

#[test]
fn whoever_is_lost_at_whatever_point_the_others_go_on_with_equal_weights() {
    for seed in seeds(48) {
        let (stages, replicas) = [(1, 3), (1, 5), (2, 2), (3, 2)][seed as usize % 4];
        let mut spec = spec(stages, 40_000);
        spec.miners_min = replicas;
        if seed % 3 == 0 {
            spec.merge.wire = MergeWire::Bf16;
        }
        let count = stages * usize::from(replicas);
        let weather = if seed % 2 == 0 { CALM } else { ROUGH };
        let mut world = World::new(seed, spec, count, weather);
        for _ in 0..=world.random(3) {
            let at = world.now.plus(Millis(world.random(4_000)));
            let victim = world.random(count as u64) as usize;
            let back = Millis(100 + world.random(6_000));
            world.kill(at, victim, Some(back));
        }
        println!("seed {seed}");
        world.run(END);
        assert_eq!(world.state.summaries().len(), 3);
    }
}

#[test]
fn a_miner_that_drains_finishes_its_work_and_the_run_goes_on() {
    let mut spec = spec(2, 9_000);
    spec.miners_min = 2;
    let mut world = World::new(5, spec, 4, CALM);
    let at = world.now.plus(Millis(400));
    world.drain(at, 1);
    world.run(END);
    assert_eq!(world.state.summaries().len(), 3);
}

#[test]
fn a_merge_that_was_too_short_for_all_is_not_the_measure_of_the_next() {
    let mut spec = spec(2, 5000);
    spec.epochs = 8;
    spec.miners_min = 2;
    let mut world = World::new(3, spec, 4, CALM);
    // Within a fifth of the longest deadline, beyond a fifth of three times the merge that follows from it.
    world.upload = Millis(1_500);
    world.run(END);
    let uploads: Vec<u32> = world.state.summaries().iter().map(|summary| summary.stages[0].uploads).collect();
    assert!(
        uploads.len() > 4 && uploads.windows(2).all(|pair| pair.iter().any(|uploads| *uploads > 0)),
        "{uploads:?}"
    );
}

/// Share of what the miners of the least stage could do that each epoch of 3 × 2 uses, when one miner of stage `slow` has
/// a quarter of the others' speed. The first two epochs learn how fast each is.
fn shares(seed: u64, slow: Option<u16>) -> Vec<f64> {
    const MICRO_BATCHES: u32 = 64;
    const FORWARD_MS: u64 = 40;
    let mut spec = spec(3, 64);
    spec.micro_batches_per_epoch = MICRO_BATCHES;
    spec.inner_steps = 8;
    spec.epochs = 6;
    spec.miners_min = 2;
    spec.epoch_deadline = Millis(300_000);
    spec.lease_ttl = Millis(60_000);
    let mut world = World::new(seed, spec, 6, CALM);
    world.forward_ms = Some(FORWARD_MS);
    world.slow_stage = slow.map(StageIndex);
    world.run(Millis(2_000_000));
    let capacity = if slow.is_some() { 1.25 } else { 2.0 } / (3 * FORWARD_MS) as f64;
    let rate =
        |(opened, closed): &(Millis, Millis)| f64::from(MICRO_BATCHES) / closed.since(*opened).0 as f64;
    world.epochs.iter().skip(2).map(|epoch| rate(epoch) / capacity).collect()
}

#[test]
fn miners_have_work_also_beside_a_slow_one() {
    for slow in [None, Some(0), Some(1), Some(2)] {
        let shares: Vec<f64> = (0..3).flat_map(|seed| shares(seed, slow)).collect();
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        assert!(
            mean > 0.78 && shares.iter().all(|share| *share > 0.7),
            "{slow:?}: {mean:.2} of {shares:.2?}"
        );
    }
}
