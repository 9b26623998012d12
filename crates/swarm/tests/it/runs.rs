//! Whole runs: every size, every death.

use shoal_swarm::state::{MergeStep, Phase, Signatures};
use wire::{Epoch, Millis, StageIndex};

use super::world::{Miner, World, spec};

const HOUR: Millis = Millis(3_600_000);

#[test]
fn every_size_finishes_with_nothing_lost() {
    for stages in 1..=4 {
        for replicas in [1_u64, 2, 3, 4, 7, 16] {
            if stages as u64 * replicas > 24 && stages > 1 {
                continue;
            }
            let mut spec = spec(stages, 2, 12 * replicas as u32);
            spec.miners_min = replicas as u16;
            let mut world = World::new(&spec, stages as u64 * replicas, replicas + 100 * stages as u64);
            let name = format!("{stages} stages of {replicas}");
            assert!(world.run_for(HOUR), "{name}: stuck in {:?}", world.state.phase());
            assert_eq!(world.state.phase(), Phase::Finished { epochs: 2 }, "{name}");
            let strikes: u64 = world.state.nodes().values().map(|node| node.strikes).sum();
            assert_eq!(strikes, 0, "{name}");
            let coverage = world.merged_total as f64 / (world.merged_total + world.forfeited_total) as f64;
            assert!(coverage > 0.8, "{name}: {coverage}");
            for summary in world.state.summaries() {
                for stage in &summary.stages {
                    assert_eq!(u64::from(stage.uploads), replicas, "{name}");
                    assert_eq!(stage.kept + stage.disputes, 0, "{name}");
                    assert_eq!(stage.unwitnessed == 0, replicas > 1, "{name}");
                }
            }
        }
    }
}

#[test]
fn a_run_survives_any_deaths() {
    let mut finished = 0;
    for seed in 0..120_u64 {
        let stages = 1 + (seed % 3) as usize;
        let replicas = 1 + (seed / 3) % 5;
        let spec = spec(stages, 3, 18);
        let mut world = World::new(&spec, stages as u64 * replicas, seed);
        world.keeper = seed % 2 == 0;
        let mut next = 1000;
        let kill_permille = 2 + seed % 5;
        let revive = seed % 4 != 3;
        for _ in 0..36_000 {
            world.tick();
            if let Phase::Finished { .. } = world.state.phase() {
                break;
            }
            for id in world.living() {
                if world.random.below(1000) < kill_permille && world.now.0 < 1_200_000 {
                    world.kill(&id);
                }
            }
            if revive && world.random.below(100) < 3 {
                let dead: Vec<_> = world.miners.values().filter(|m| !m.alive).map(Miner::id).collect();
                if !dead.is_empty() {
                    let id = dead[world.random.below(dead.len() as u64) as usize];
                    world.revive(&id);
                }
            }
            if revive && next < 1004 && world.random.below(1000) < 4 {
                world.add(next);
                next += 1;
            }
        }
        match world.state.phase() {
            Phase::Finished { epochs } => {
                assert_eq!(epochs, 3, "seed {seed}");
                finished += 1;
            }
            Phase::Gathering { .. } if world.abandoned() => assert!(!revive, "seed {seed}"),
            phase => panic!("seed {seed}: stuck in {phase:?}"),
        }
        let strikes: u64 = world.state.nodes().values().map(|node| node.strikes).sum();
        assert_eq!(strikes, 0, "seed {seed}");
        world.verify(if seed % 10 == 0 { Signatures::Check } else { Signatures::Trust });
    }
    assert!(finished > 80, "{finished}");
}

#[test]
fn a_stage_that_dies_out_waits_and_goes_on() {
    let mut spec = spec(2, 3, 12);
    spec.miners_min = 2;
    let mut world = World::new(&spec, 4, 7);
    while world.state.phase() != (Phase::Training { epoch: Epoch(1) }) {
        world.tick();
    }
    let stage = wire::StageIndex(1);
    let gone: Vec<_> = world.state.members(stage).map(|member| member.node).collect();
    for id in &gone {
        world.kill(id);
    }
    assert!(!world.run_for(Millis(300_000)));
    assert!(matches!(world.state.phase(), Phase::Gathering { epoch: Epoch(2), .. }));
    assert!(world.state.stage(stage).unwrap().unchanged, "nothing of the dead stage was merged");
    world.add(50);
    assert!(world.run_for(HOUR));
    assert_eq!(world.state.phase(), Phase::Finished { epochs: 3 });
    world.verify(Signatures::Check);
}

/// One stage of n miners: any subset dies as the merge comes to any step, some ticks in.
#[test]
fn any_subset_dies_at_any_step_of_a_merge() {
    let steps = [
        MergeStep::Commit,
        MergeStep::Reveal,
        MergeStep::Fetch,
        MergeStep::Claim,
        MergeStep::Check,
        MergeStep::Done,
    ];
    let (mut settled, mut kept) = (0, 0);
    for n in 1..=4_u64 {
        for victims in 1..(1_u64 << n) {
            for (at, step) in steps.into_iter().enumerate() {
                let delay = (victims + at as u64) % 4;
                let mut spec = spec(1, 2, 8 * n as u32);
                spec.miners_min = n as u16;
                let mut world = World::new(&spec, n, 31 * victims + at as u64);
                world.keeper = victims % 3 != 0;
                let stage = StageIndex(0);
                while world.state.merge_step(stage).is_none_or(|now| now < step) {
                    world.tick();
                }
                for _ in 0..delay {
                    world.tick();
                }
                let ids = world.living();
                for (index, id) in ids.iter().enumerate() {
                    if victims >> index & 1 == 1 {
                        world.kill(id);
                    }
                }
                let name = format!("{n} miners, {victims:b} die at {step:?} + {delay}");
                let over = world.run_for(Millis(600_000));
                let all = victims == (1 << n) - 1;
                if !over {
                    assert!(all, "{name}: stuck in {:?}", world.state.phase());
                    assert!(matches!(world.state.phase(), Phase::Gathering { .. }), "{name}");
                    world.add(99);
                    assert!(world.run_for(Millis(600_000)), "{name}: stuck in {:?}", world.state.phase());
                }
                assert_eq!(world.state.phase(), Phase::Finished { epochs: 2 }, "{name}");
                let first = &world.state.summaries()[0].stages[0];
                settled += first.witnessed + first.unwitnessed;
                kept += first.kept;
                world.verify(Signatures::Trust);
            }
        }
    }
    assert!(settled > 4 * kept, "{settled} settled, {kept} kept");
}

/// Whoever garbles its statements hurts itself at most: the others finish.
#[test]
fn liars_do_not_stop_a_run() {
    for seed in 0..24 {
        let spec = spec(2, 2, 16);
        let mut world = World::new(&spec, 8, seed);
        let liars: Vec<_> = world.living().into_iter().take(2).collect();
        world.liars.extend(liars);
        world.keep_initial();
        assert!(world.run_for(HOUR), "seed {seed}: stuck in {:?}", world.state.phase());
        world.verify(Signatures::Trust);
    }
}

/// A stage of as many uploaders as a bitmap has bits, and two miners too many.
#[test]
fn the_largest_stage_merges() {
    let mut spec = spec(1, 1, 256);
    spec.miners_min = 64;
    spec.stages[0].parameters = 10_000_000;
    let mut world = World::new(&spec, 66, 2);
    world.lag = 0;
    assert!(world.run_for(HOUR), "stuck in {:?}", world.state.phase());
    let stage = &world.state.summaries()[0].stages[0];
    assert_eq!((stage.uploads, stage.witnessed, stage.kept), (64, 2016, 0));
    world.verify(Signatures::Trust);
}
