//! The orchestrator dies and comes back: the log is enough, deadlines move, nobody is lost for its absence.

use shoal_swarm::Fold as _;
use shoal_swarm::State;
use shoal_swarm::record::{Control, Derived, Input, Record};
use shoal_swarm::refusal::Refusal;
use shoal_swarm::state::Phase;
use shoal_swarm::verify;
use wire::Millis;

use super::world::{World, spec};

#[test]
fn a_state_is_the_fold_of_its_log_wherever_it_stops() {
    for seed in 0..12 {
        let spec = spec(2, 2, 12);
        let mut world = World::new(&spec, 6, seed);
        let mut stops = 0;
        while !matches!(world.state.phase(), Phase::Finished { .. }) {
            world.tick();
            if world.random.percent(10) {
                let (time, records) = &world.log[0];
                let mut replayed = verify::start::<State>(world.run, *time, records).unwrap();
                for (time, records) in &world.log[1..] {
                    verify::replay(&mut replayed, *time, records).unwrap();
                }
                assert!(replayed == world.state, "seed {seed} at {:?}", world.now);
                let bytes = wire::to_bytes(&replayed);
                let loaded: State = wire::from_bytes(&bytes).unwrap();
                assert!(loaded == replayed);
                // Goes on from the replayed state.
                world.state = loaded;
                stops += 1;
            }
        }
        assert!(stops > 2);
    }
}

#[test]
fn a_long_absence_of_the_orchestrator_costs_nobody_anything() {
    for seed in 0..30 {
        let mut spec = spec(2, 2, 16);
        spec.miners_min = 3;
        let mut world = World::new(&spec, 6, seed);
        let mut absences = 0;
        while !matches!(world.state.phase(), Phase::Finished { .. }) {
            world.tick();
            if absences < 6 && world.random.percent(8) {
                absences += 1;
                let down = Millis(3_000 + world.random.below(60_000));
                let served = world.state.now();
                world.now = world.now.plus(down);
                let now = world.now;
                let committed =
                    world.commit(vec![Input::Control(Control::Resumed { down: now.since(served) })]);
                if matches!(world.state.phase(), Phase::Finished { .. }) {
                    break; // its last deadline had passed before: there is nothing to resume
                }
                assert_eq!(committed.outcomes, [Ok(())], "seed {seed}");
                let heartbeats = spec.heartbeat.0 * 2;
                let closing = |record: &Record| matches!(record, Record::Derived(Derived::Lost { .. }));
                assert!(!committed.records.iter().any(closing), "seed {seed}");
                assert!(world.state.next_deadline(now).is_none_or(|at| at.0 >= now.0 + heartbeats));
                world.pause_flights(down);
            }
        }
        assert!(absences > 0);
        assert_eq!(world.forfeited_total, world.partial_total, "seed {seed}: more than left-overs forfeited");
        let lost = world.log.iter().flat_map(|(_, records)| records);
        let lost = lost.filter(|record| matches!(record, Record::Derived(Derived::Lost { .. }))).count();
        assert_eq!(lost, 0, "seed {seed}");
        world.verify(shoal_swarm::state::Signatures::Trust);
    }
}

#[test]
fn a_resumption_stands_first_and_claims_no_more_than_passed() {
    let spec = spec(1, 1, 4);
    let mut world = World::new(&spec, 1, 1);
    world.tick();
    let drain = Input::Control(Control::Drain);
    let resumed = |down| Input::Control(Control::Resumed { down: Millis(down) });
    world.now = world.now.plus(Millis(1_000));
    let committed = world.commit(vec![resumed(5_000_000)]);
    assert!(matches!(committed.outcomes[0], Err(Refusal::NotResumed { .. })));
    let committed = world.commit(vec![drain, resumed(1)]);
    assert!(matches!(
        committed.outcomes[..],
        [Ok(()), Err(Refusal::NotResumed { .. } | Refusal::NotNow { .. })]
    ));
}

#[test]
fn a_drained_run_merges_its_epoch_and_stops() {
    for seed in 0..10 {
        let spec = spec(2, 50, 200);
        let mut world = World::new(&spec, 4, seed);
        while !matches!(world.state.phase(), Phase::Training { epoch } if epoch.0 == 1) {
            world.tick();
        }
        for _ in 0..seed * 2 {
            world.tick();
        }
        let epoch = world.state.epoch();
        let gathering = matches!(world.state.phase(), Phase::Gathering { .. });
        world.commit(vec![Input::Control(Control::Drain)]);
        assert!(world.run_for(Millis(60_000)), "stuck in {:?}", world.state.phase());
        let epochs = if gathering { epoch.0 } else { epoch.0 + 1 };
        assert_eq!(world.state.phase(), Phase::Finished { epochs });
        world.verify(shoal_swarm::state::Signatures::Trust);
    }
}

/// The same inputs give the same log on every machine and in every version that calls itself the same.
#[test]
fn golden_digest_of_a_run() {
    let mut world = World::new(&spec(3, 2, 12), 7, 42);
    assert!(world.run_for(Millis(3_600_000)));
    assert_eq!(world.state.digest().short(), "a542f178a9");
}
