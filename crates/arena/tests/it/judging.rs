//! Leases, sealed verdicts, agreement: nothing is lost, nothing counts twice, nobody can copy.

use shoal_arena::Refusal;
use shoal_arena::account::{Account, Metric};
use shoal_arena::measure::{Failure, Measures, Outcome, ProgramItem, Verdict};
use shoal_arena::record::{Control, Derived, EntryId, LeaseId, Record, RoundNumber, Statement};
use shoal_arena::spec::CompetitionId;
use shoal_arena::state::EntryState;
use wire::{Hash, NodeId};

use super::world::{HOUR, Manner, Quality, Random, SPEC, World, key, owner};

fn alone(judges: &str) -> String {
    SPEC.replace("lease_s = 60", &format!("lease_s = 60\n{judges}"))
}

/// A round with `entries` entries of different quality, closed, opened and drawn.
fn judged_round(world: &mut World, id: CompetitionId, entries: u64) -> Vec<EntryId> {
    world.pass(HOUR);
    let made: Vec<EntryId> = (0..entries)
        .map(|number| world.submit(number, id, Quality::of(400_000 + number * 100, number)).unwrap())
        .collect();
    for judge in world.judges.keys().copied().collect::<Vec<_>>() {
        world.act(judge);
    }
    world.pass(HOUR);
    world.unseal();
    made
}

/// The promise of the issue: 1,000 queued entries, 2 judges, one killed at random, none lost, each judged once.
#[test]
fn a_thousand_entries_and_two_judges_of_which_one_dies() {
    for seed in 0..3 {
        let mut world = World::new(seed);
        let id = world.open(
            &alone("agree = 1\ntakeover = 1\nmax = 3")
                .replace("per_round_max", "entries_max = 1000\nper_round_max"),
        );
        let judges = world.judges(2);
        let made = judged_round(&mut world, id, 1000);
        let dies_after = world.random.below(2500);
        let mut steps = 0;
        let mut reopened = 0;
        while world.state.competition(&id).unwrap().live.len() > 1 {
            let mut acted = false;
            for judge in &judges {
                acted |= world.act(*judge);
                steps += 1;
                if steps == dies_after {
                    let killed = world.judges.get_mut(judge).unwrap();
                    killed.manner = Manner::Dead;
                    reopened = world.state.leases_of(*judge).count();
                }
            }
            world.pass(if acted { 10 } else { 61_000 });
        }
        for entry in &made {
            let found = world.state.entry(*entry).unwrap();
            assert!(
                matches!(found.state, EntryState::Scored(_)),
                "seed {seed}: {entry} is {:?}",
                found.state
            );
        }
        let expired: u64 = world.state.judges().values().map(|judge| judge.expired).sum();
        assert_eq!(expired, reopened as u64, "seed {seed}");
        let competition = world.state.competition(&id).unwrap();
        let best = competition.last_judged().unwrap().board[0].entry;
        assert_eq!(competition.champion.unwrap().entry, best);
        assert!(world.state.leases().is_empty());
        if seed == 0 {
            world.verify();
        }
    }
}

#[test]
fn two_must_agree_and_one_of_three_is_killed_and_comes_back_without_memory() {
    for seed in 20..24 {
        let mut world = World::new(seed);
        let id = world.open(&alone("agree = 2\ntakeover = 2\nmax = 5"));
        let judges = world.judges(3);
        let made = judged_round(&mut world, id, 60);
        let mut random = Random(seed);
        let victim = judges[random.below(3) as usize];
        let (down, up) = (random.below(120), 120 + random.below(120));
        for step in 0.. {
            if world.state.competition(&id).unwrap().live.len() < 2 {
                break;
            }
            if step == down || step == up {
                let judge = world.judges.get_mut(&victim).unwrap();
                judge.manner = if step == down { Manner::Dead } else { Manner::Honest };
                judge.bound.clear();
            }
            let acted = judges.iter().fold(false, |acted, judge| world.act(*judge) | acted);
            world.pass(if acted { 10 } else { 61_000 });
        }
        let scored =
            |entry: &&EntryId| matches!(world.state.entry(**entry).unwrap().state, EntryState::Scored(_));
        assert_eq!(made.iter().filter(scored).count(), 60, "seed {seed}");
        world.verify();
    }
}

#[test]
fn two_judges_with_more_entries_than_leases_do_not_block_each_other() {
    let mut world = World::new(30);
    let id = world.open(&alone("agree = 2\ntakeover = 2\nmax = 5"));
    for judge in world.judges(2) {
        world.judges.get_mut(&judge).unwrap().want = 64;
    }
    let made = judged_round(&mut world, id, 300);
    world.settle();
    let scored =
        |entry: &&EntryId| matches!(world.state.entry(**entry).unwrap().state, EntryState::Scored(_));
    assert_eq!(made.iter().filter(scored).count(), 300);
}

#[test]
fn a_liar_is_outvoted_and_counted() {
    let mut world = World::new(31);
    let id = world.open(SPEC);
    let honest: Vec<NodeId> = (0..3).map(|number| world.judge(number, Manner::Honest)).collect();
    let liar = world.judge(3, Manner::Lies);
    let made = judged_round(&mut world, id, 20);
    world.settle();
    world.pass(HOUR / 2);
    let competition = world.state.competition(&id).unwrap();
    assert_eq!(competition.champion.unwrap().entry, competition.last_judged().unwrap().board[0].entry);
    let judges = world.state.judges();
    assert!(judges[&liar].disagreed > 0 && judges[&liar].agreed == 0);
    assert!(honest.iter().all(|judge| judges[judge].disagreed == 0));
    for entry in made {
        assert!(matches!(world.state.entry(entry).unwrap().state, EntryState::Scored(_)));
    }
    world.verify();
}

#[test]
fn judges_who_never_agree_leave_a_dispute_and_no_champion() {
    let mut world = World::new(32);
    let id = world.open(SPEC);
    for number in 0..5 {
        world.judge(number, Manner::Lies);
    }
    let made = judged_round(&mut world, id, 3);
    world.settle();
    for entry in made {
        assert_eq!(world.state.entry(entry).unwrap().state, EntryState::Disputed);
    }
    let competition = world.state.competition(&id).unwrap();
    assert_eq!(competition.live.len(), 1, "the round is over at once");
    assert!(competition.champion.is_none());
    world.verify();
}

#[test]
fn a_judge_gets_entries_only_of_rounds_whose_seed_it_has_a_part_in() {
    let mut world = World::new(42);
    let spec = alone("agree = 1\ntakeover = 1\nmax = 3");
    let (id, other) = (world.open(&spec), world.open(&spec.replace("matrix", "programs")));
    let judges = world.judges(2);
    world.judges.get_mut(&judges[0]).unwrap().only = Some(id);
    world.pass(HOUR);
    let mut made = Vec::new();
    for number in 0..20 {
        made.push(world.submit(number, id, Quality::of(400_000 + number, number)).unwrap());
        made.push(world.submit(number, other, Quality::of(500_000 + number, number)).unwrap());
    }
    world.play_round(id);
    let leased = world.log.iter().flat_map(|(_, records)| records).filter_map(|record| match record {
        Record::Derived(Derived::Leased { judge, entry, .. }) if *judge == judges[0] => Some(*entry),
        _ => None,
    });
    let leased: Vec<EntryId> = leased.collect();
    assert!(!leased.is_empty(), "it judges where it can");
    for entry in leased {
        assert_eq!(world.state.entry(entry).unwrap().competition, id, "{entry} is of the other competition");
    }
    assert!(made.iter().all(|entry| world.state.entry(*entry).unwrap().scoring().is_some()));
    assert_eq!(world.state.judges()[&judges[0]].expired, 0);
    world.verify();
}

#[test]
fn where_an_entry_needs_more_judges_than_have_a_part_others_help_but_not_who_kept_its_part_back() {
    let mut world = World::new(46);
    let id = world.open(&alone("agree = 2\ntakeover = 2\nmax = 3"));
    let judges = world.judges(3);
    world.pass(HOUR);
    let made: Vec<EntryId> = (0..5)
        .map(|number| world.submit(number, id, Quality::of(400_000 + number, number)).unwrap())
        .collect();
    // The first and the last bind a part, the second does not; the last does not open it.
    for judge in [judges[0], judges[2]] {
        world.act(judge);
    }
    world.pass(HOUR);
    world.unseal();
    world.act(judges[0]);
    world.pass(60_000);
    assert_eq!([0, 1, 2].map(|at| world.state.queued(judges[at])), [5, 5, 0]);
    world.settle();
    assert_eq!(world.state.queued(judges[0]), 0);
    assert!(made.iter().all(|entry| world.state.entry(*entry).unwrap().scoring().is_some()));
    let all = world.state.judges();
    let found = judges.iter().map(|judge| (all[judge].judged, all[judge].withheld));
    assert_eq!(found.collect::<Vec<_>>(), [(5, 0), (5, 0), (0, 1)]);
    world.verify();
}

#[test]
fn a_lease_that_is_given_back_goes_to_another_judge_at_once() {
    let mut world = World::new(43);
    let id = world.open(&alone("agree = 1\ntakeover = 1\nmax = 3"));
    let (failing, honest) = (world.judge(0, Manner::Fails), world.judge(1, Manner::Honest));
    let made = judged_round(&mut world, id, 8);
    let before = world.now;
    world.settle();
    assert_eq!(world.now, before, "no lease ran out");
    assert!(made.iter().all(|entry| world.state.entry(*entry).unwrap().scoring().is_some()));
    let judges = world.state.judges();
    assert_eq!((judges[&honest].judged, judges[&honest].expired), (8, 0));
    assert!(judges[&failing].expired > 0 && judges[&failing].judged == 0);
    assert_eq!(judges[&failing].leased, judges[&failing].expired);
    world.verify();
}

/// Whoever gives back pays for it in time: nobody reads a whole round's code, or waits for one entry, by giving back.
#[test]
fn beyond_some_leases_given_back_a_lease_runs_to_its_deadline() {
    let mut world = World::new(45);
    let id = world.open(&alone("agree = 1\ntakeover = 1\nmax = 3"));
    let failing = world.judge(0, Manner::Fails);
    judged_round(&mut world, id, 20);
    world.settle();
    assert_eq!((world.state.judges()[&failing].leased, world.state.judges()[&failing].expired), (12, 8));
    let (lease, _) = world.state.leases_of(failing).next().unwrap();
    let refused = world.say(&key(2_000_000), &Statement::Return { lease });
    assert!(matches!(refused, Err(Refusal::OverLimit { found: 9, limit: 8, .. })), "{refused:?}");
    world.pass(59_000);
    assert_eq!(world.state.leases_of(failing).count(), 4);
    world.pass(1_000);
    assert_eq!(world.state.judges()[&failing].expired, 12);
    world.verify();
}

#[test]
fn only_a_lease_of_ones_own_under_which_nothing_is_bound_is_given_back() {
    let mut world = World::new(44);
    let (judge, lease, entry) = one_lease(&mut world);
    let sim = key(2_000_000);
    let back = Statement::Return { lease };
    assert!(matches!(world.say(&key(1), &back), Err(Refusal::NotLeased { .. })));
    let verdict =
        Verdict { outcome: world.measure(entry), wall: None, log: Hash([0; 32]), account: Box::default() };
    let seal = verdict.seal(&judge, &Hash([0; 32]));
    world.say(&sim, &Statement::Judged { lease, seal }).unwrap();
    let late = world.say(&sim, &back);
    assert!(matches!(late, Err(Refusal::NotNow { .. })), "{late:?}");
}

#[test]
fn a_judge_that_hides_its_verdict_loses_the_lease_and_others_decide() {
    let mut world = World::new(33);
    let id = world.open(&alone("agree = 2\ntakeover = 2\nmax = 5"));
    world.judges(2);
    let hidden = world.judge(7, Manner::Hides);
    let made = judged_round(&mut world, id, 5);
    for _ in 0..20 {
        world.settle();
        world.pass(61_000);
    }
    for entry in made {
        assert!(matches!(world.state.entry(entry).unwrap().state, EntryState::Scored(_)));
    }
    assert!(world.state.judges()[&hidden].expired > 0);
    assert_eq!(world.state.judges()[&hidden].judged, 0);
    world.verify();
}

#[test]
fn without_judges_in_time_entries_are_stale_and_given_back() {
    let arena = format!("name = \"test\"\nowners = [\"{}\"]\nrate_entries = 3\n", owner().node_id());
    let mut world = World::of(&arena, 34);
    let id = world.open(SPEC);
    let judges = world.judges(3);
    let made = judged_round(&mut world, id, 3);
    for judge in &judges {
        world.act(*judge);
        world.judges.get_mut(judge).unwrap().manner = Manner::Dead;
    }
    assert_eq!(world.state.rate_status(key(1).node_id(), world.now).used, 1);
    world.pass(HOUR / 2 + 120_000);
    for entry in made {
        assert_eq!(world.state.entry(entry).unwrap().state, EntryState::Stale);
    }
    assert_eq!(world.state.rate_status(key(1).node_id(), world.now).used, 0);
    assert!(world.state.leases().is_empty());
    world.verify();
}

#[test]
fn operators_are_one_voice_and_nobody_judges_its_own_entry() {
    let mut world = World::new(35);
    let id = world.open(&alone("agree = 2\ntakeover = 2\nmax = 5"));
    let twins: Vec<NodeId> = (0..2)
        .map(|number| {
            let judge = world.judge(number, Manner::Honest);
            world.control(Control::Admitted { judge, operator: "one house".to_owned() }).unwrap();
            judge
        })
        .collect();
    let made = judged_round(&mut world, id, 4);
    world.settle();
    assert!(made.iter().all(|entry| world.state.entry(*entry).unwrap().state == EntryState::Judging));
    assert!(world.state.job(made[0]).unwrap().slots.iter().all(|slot| twins.contains(&slot.judge)));
    let other = world.judge(2, Manner::Honest);
    world.settle();
    assert!(made.iter().all(|entry| world.state.entry(*entry).unwrap().scoring().is_some()));
    assert_eq!(world.state.judges()[&other].judged, 4);

    // A judge that competes: its entry goes to the others.
    let mut world = World::new(36);
    let id = world.open(&alone("agree = 1\ntakeover = 1\nmax = 5"));
    let judges = world.judges(2);
    world.pass(HOUR);
    let own = world.submit(2_000_000, id, Quality::of(300_000, 1)).unwrap();
    assert_eq!(world.state.entry(own).unwrap().entrant, judges[0]);
    let _ = world.play_round(id);
    assert_eq!(world.state.judges()[&judges[0]].judged, 0);
    assert_eq!(world.state.judges()[&judges[1]].judged, 1);
}

#[test]
fn a_dismissed_judge_loses_its_leases_at_once() {
    let mut world = World::new(37);
    let id = world.open(SPEC);
    let judges = world.judges(4);
    let made = judged_round(&mut world, id, 8);
    for judge in &judges {
        world.act(*judge);
        world.act(*judge);
    }
    let sent_away = judges[0];
    assert!(world.state.leases_of(sent_away).count() > 0);
    world.control(Control::Dismissed { judge: sent_away }).unwrap();
    assert_eq!(world.state.leases_of(sent_away).count(), 0);
    assert!(matches!(
        world.control(Control::Dismissed { judge: sent_away }),
        Err(Refusal::UnknownNode { .. })
    ));
    let gone = world.judges.remove(&sent_away).unwrap();
    assert!(matches!(world.say(&gone.key, &Statement::Lease { want: 1 }), Err(Refusal::NotJudge)));
    world.settle();
    assert!(made.iter().all(|entry| world.state.entry(*entry).unwrap().scoring().is_some()));
    world.verify();
}

#[test]
fn typed_failures_reach_the_entrant_and_count_as_judged() {
    let mut world = World::new(38);
    let id = world.open(SPEC);
    world.judges(3);
    world.pass(HOUR);
    let failures =
        [Failure::Memory, Failure::Fuel, Failure::Escape, Failure::Forbidden, Failure::NotDeterministic];
    let made: Vec<EntryId> = (0_u64..)
        .zip(failures)
        .map(|(number, failure)| {
            let quality = Quality { failure: Some(failure), ..Quality::of(100_000, number) };
            world.submit(number, id, quality).unwrap()
        })
        .collect();
    world.play_round(id);
    for (entry, failure) in made.iter().zip(failures) {
        let found = world.state.entry(*entry).unwrap();
        assert_eq!(found.state, EntryState::Failed(failure));
        assert_eq!(found.state.name(), if failure.is_screening() { "rejected" } else { "failed" });
        assert!(found.settled_at.is_some());
    }
    assert!(world.state.competition(&id).unwrap().champion.is_none());
    world.verify();
}

/// One lease in a judge's hands, before anything is bound.
fn one_lease(world: &mut World) -> (NodeId, LeaseId, EntryId) {
    let id = world.open(&alone("agree = 1\ntakeover = 1\nmax = 3"));
    let judge = world.judges(1)[0];
    judged_round(world, id, 1);
    let round = RoundNumber(0);
    let nonce = key(2_000_000).derive("round nonce", &[&id.0.0, &round.0.to_le_bytes()]);
    world.say(&key(2_000_000), &Statement::OpenNonce { competition: id, round, nonce }).unwrap();
    let (lease, found) = world.state.leases_of(judge).next().unwrap();
    (judge, lease, found.entry)
}

#[test]
fn impossible_and_premature_verdicts_are_refused() {
    let mut world = World::new(39);
    let (judge, lease, entry) = one_lease(&mut world);
    let sim = key(2_000_000);
    let nonce = Hash::of(b"nonce");
    let good =
        Verdict { outcome: world.measure(entry), wall: None, log: Hash([0; 32]), account: Box::default() };
    let show = |verdict: &Verdict| Statement::Show { lease, nonce, verdict: verdict.clone() };
    let early = world.say(&sim, &show(&good));
    assert!(matches!(early, Err(Refusal::NotNow { .. })), "{early:?}");
    assert!(matches!(
        world.say(&key(1), &Statement::Judged { lease, seal: nonce }),
        Err(Refusal::NotLeased { .. })
    ));
    let unknown = Statement::Judged { lease: LeaseId(99), seal: nonce };
    assert!(matches!(world.say(&sim, &unknown), Err(Refusal::NotLeased { .. })));

    let Outcome::Measured { inputs, outputs, measures: Measures::Codec(items) } = good.outcome.clone() else {
        panic!("measured")
    };
    let mut fewer = items.clone();
    fewer.pop();
    let mut zero = items.clone();
    zero[3].compressed_bytes = 0;
    let program = vec![ProgramItem { objective_nano: Some(1), fuel: 0 }; items.len()];
    for measures in [Measures::Codec(fewer), Measures::Codec(zero), Measures::Program(program)] {
        let mut fork = clone_of(&world);
        let bad = Verdict { outcome: Outcome::Measured { inputs, outputs, measures }, ..good.clone() };
        fork.say(&sim, &Statement::Judged { lease, seal: bad.seal(&judge, &nonce) }).unwrap();
        assert!(matches!(fork.say(&sim, &show(&bad)), Err(Refusal::Verdict { .. })));
    }
    // What is told besides has bounds, too, and binds.
    let metric = Metric { name: "Latency in ms".to_owned(), unit: String::new(), nano: 1 };
    let account = Box::new(Account { metrics: vec![metric], ..Account::default() });
    let bad = Verdict { account, ..good.clone() };
    let mut fork = clone_of(&world);
    fork.say(&sim, &Statement::Judged { lease, seal: bad.seal(&judge, &nonce) }).unwrap();
    assert!(
        matches!(fork.say(&sim, &show(&bad)), Err(Refusal::Verdict { what }) if what == "name of a metric")
    );
    world.say(&sim, &Statement::Judged { lease, seal: good.seal(&judge, &nonce) }).unwrap();
    let again = Statement::Judged { lease, seal: good.seal(&judge, &nonce) };
    assert!(matches!(world.say(&sim, &again), Err(Refusal::Repeated { .. })));
    let other = Verdict { log: Hash([1; 32]), ..good.clone() };
    assert!(matches!(world.say(&sim, &show(&other)), Err(Refusal::WrongOpening { .. })));
    world.say(&sim, &show(&good)).unwrap();
    assert!(matches!(world.say(&sim, &show(&good)), Err(Refusal::NotLeased { .. })));
    assert!(world.state.entry(entry).unwrap().scoring().is_some());
}

/// The same world again, by folding its log.
fn clone_of(world: &World) -> World {
    let mut again = World::new(0);
    again.state = world.state.clone();
    again.log.clone_from(&world.log);
    again.now = world.now;
    again.codes.clone_from(&world.codes);
    again.at_nonce(1 << 40);
    again
}

#[test]
fn a_verdict_after_the_lease_is_refused() {
    let mut world = World::new(40);
    let (judge, lease, entry) = one_lease(&mut world);
    let sim = key(2_000_000);
    let verdict =
        Verdict { outcome: world.measure(entry), wall: None, log: Hash([0; 32]), account: Box::default() };
    world.pass(60_000);
    let late = Statement::Judged { lease, seal: verdict.seal(&judge, &Hash([0; 32])) };
    assert!(matches!(world.say(&sim, &late), Err(Refusal::NotLeased { .. })));
    // Others would come first; there is none.
    world.settle();
    assert!(world.state.entry(entry).unwrap().scoring().is_none());
    world.pass(60_000);
    world.settle();
    assert!(world.state.entry(entry).unwrap().scoring().is_some(), "leased again, judged");
}
