//! Leaderboards, profiles, lineage, rewards.

use shoal_arena::record::{EntryId, Statement};
use shoal_arena::spec::CompetitionId;
use shoal_arena::state::{LeaderMode, Role};
use shoal_arena::{Refusal, state::EntryState};
use wire::Millis;

use super::world::{HOUR, Quality, SPEC, World, key, owner};

const DAY: u64 = 24 * HOUR;

fn started(seed: u64, spec: &str) -> (World, CompetitionId) {
    let mut world = World::new(seed);
    let id = world.open(spec);
    world.judges(3);
    world.pass(HOUR);
    (world, id)
}

fn weighted(more: &str) -> String {
    SPEC.replace("[judges]", &format!("[reward]\nweight_ppm = 500000\n{more}\n[judges]"))
}

#[test]
fn the_winner_takes_what_is_not_burned_and_it_decays_to_nothing() {
    let (mut world, id) = started(1, &weighted(""));
    world.submit(1, id, Quality::of(500_000, 1)).unwrap();
    assert_eq!(world.state.weights(world.now).burned, 1_000_000_000);
    world.play_round(id);
    let winner = key(1).node_id();
    let since = world.state.competition(&id).unwrap().champion.unwrap().since;
    let weight = |world: &World, days: u64| {
        let at = since.plus(Millis(days * DAY));
        world.state.weights(at).keys.get(&winner).copied().unwrap_or(0)
    };
    // Half of the arena × 10 %, falling linearly over ten days.
    assert_eq!((weight(&world, 0), weight(&world, 5), weight(&world, 10)), (50_000_000, 25_000_000, 0));
    assert_eq!(world.state.competition(&id).unwrap().burn_ppm(since.plus(Millis(DAY))), 910_000);
    let all = world.state.earned(winner, since.plus(Millis(20 * DAY)));
    assert_eq!(all, 50_000_000 * u128::from(10 * DAY) / 2);

    // What is told for a day is what the day brings, as long as nothing changes.
    for days in [0, 1, 5, 9, 10, 30] {
        let at = since.plus(Millis(days * DAY + 1234));
        let brought = world.state.earned(winner, at.plus(Millis(DAY))) - world.state.earned(winner, at);
        let told = world.state.competition(&id).unwrap().daily(winner, at);
        assert!(told.abs_diff(brought) <= 1, "day {days}: {told} and {brought}");
        assert_eq!(told == 0, days >= 10);
    }
    assert_eq!(world.state.competition(&id).unwrap().daily(key(2).node_id(), since), 0);

    // A new champion resets the burn and takes over the payment; what was earned stays.
    world.pass(2 * DAY);
    world.submit(2, id, Quality::of(400_000, 2)).unwrap();
    world.play_round(id);
    let weights = world.state.weights(world.state.competition(&id).unwrap().champion.unwrap().since);
    assert_eq!(weights.keys.get(&key(2).node_id()), Some(&50_000_000));
    assert_eq!(weights.keys.get(&winner), None);
    let (then, later) = (world.now, world.now.plus(Millis(DAY)));
    assert_eq!(world.state.earned(winner, then), world.state.earned(winner, later));
    assert!(world.state.earned(winner, then) > 0);

    // By day the same, booked or not: with the days at the rims, in which less was earned.
    let at = world.now.plus(Millis(3 * DAY));
    let other = key(2).node_id();
    for (entrant, days) in [(winner, 3), (other, 4)] {
        let by_day = world.state.profile(entrant, at).unwrap().earnings;
        assert_eq!(by_day.values().sum::<u128>(), world.state.earned(entrant, at));
        assert_eq!(by_day.len(), days, "{by_day:?}");
    }
    let (all, by_day) = world.state.competition(&id).unwrap().earned(at);
    assert_eq!(all, world.state.earned(winner, at) + world.state.earned(other, at));
    assert_eq!(by_day.values().sum::<u128>(), all);
    world.verify();
}

#[test]
fn places_lineage_and_copies() {
    let split = "split_ppm = [800000, 160000, 32000]\nbase_burn_ppm = 0\ndecay_s = 0\nlineage_ppm = 250000";
    let (mut world, id) = started(2, &weighted(split));
    let first = world.submit(1, id, Quality::of(500_000, 1)).unwrap();
    world.play_round(id);
    let child = world.submit_with(2, id, Quality::of(400_000, 2), vec![first], None).unwrap();
    let echo = world.submit(3, id, Quality { outputs: 2, ..Quality::of(400_000, 3) }).unwrap();
    let third = world.submit(4, id, Quality::of(600_000, 4)).unwrap();
    world.play_round(id);
    assert_eq!(world.state.entry(echo).unwrap().echo_of, Some(child));
    assert!(world.state.entry(third).unwrap().scoring().is_some());
    let weights = world.state.weights(world.now);
    let of = |entrant: u64| weights.keys.get(&key(entrant).node_id()).copied().unwrap_or(0);
    // 0.5 of the arena: 80 % to the champion, of which a quarter to its parent's maker, who also holds place two;
    // the echo holds none, so the third place goes to the next.
    assert_eq!(of(2), 300_000_000);
    assert_eq!(of(1), 100_000_000 + 80_000_000);
    assert_eq!((of(3), of(4)), (0, 16_000_000));
    // Without decay a day brings a day of the weight.
    let competition = world.state.competition(&id).unwrap();
    for entrant in 1..5 {
        let daily = competition.daily(key(entrant).node_id(), world.now);
        assert_eq!(daily, u128::from(of(entrant)) * u128::from(DAY));
    }
    assert_eq!(weights.burned, 1_000_000_000 - 300_000_000 - 180_000_000 - 16_000_000);
    assert_eq!(world.state.lineage(child), [child, first]);
    world.verify();
}

#[test]
fn who_raised_the_bar_is_paid_by_how_far() {
    let shares = "split_ppm = [1000000]\nbase_burn_ppm = 0\ndecay_s = 0\ncontribution_ppm = 600000";
    let (mut world, id) = started(7, &weighted(shares));
    let of = |world: &World, entrant: u64| {
        world.state.weights(world.now).keys.get(&key(entrant).node_id()).copied().unwrap_or(0)
    };
    for (entrant, bytes) in [(1, 500_000), (2, 400_000), (1, 390_000)] {
        world.submit(entrant, id, Quality::of(bytes, bytes)).unwrap();
        world.play_round(id);
        // Half of the arena, whoever raised the bar how far: nothing is lost, nothing comes twice.
        assert_eq!((1..3).map(|entrant| of(&world, entrant)).sum::<u64>(), 500_000_000);
    }
    let found = world.state.competition(&id).unwrap();
    let contributions = found.contributions().clone();
    let gain = |entrant: u64| contributions[&key(entrant).node_id()];
    assert!(gain(1) > 0 && gain(2) > 0, "{contributions:?}");
    // The champion has the places' 40 %, and both their part of the 60 %.
    let pool = 300_000_000;
    let part = |entrant: u64| pool * gain(entrant) / (gain(1) + gain(2));
    assert!(of(&world, 2).abs_diff(part(2)) <= 500, "{} is not {}", of(&world, 2), part(2));
    assert!(of(&world, 1).abs_diff(200_000_000 + part(1)) <= 500);
    // Who took the lead once goes on earning when somebody else leads: rank 2 or not.
    assert!(found.champion.unwrap().entrant == key(1).node_id() && of(&world, 2) > 0);
    world.verify();
}

#[test]
fn a_bounty_is_paid_once_to_the_first_champion_that_reaches_its_mark() {
    let shares = "split_ppm = [1000000]\nbase_burn_ppm = 0\ndecay_s = 0\n";
    let raw = |bytes: u64| {
        let (mut world, id) = started(9, &weighted(shares));
        world.submit(1, id, Quality::of(bytes, 1)).unwrap();
        world.play_round(id);
        world.state.competition(&id).unwrap().champion.unwrap().scoring.score.raw
    };
    // Inputs are easier in some rounds: half way between both.
    let mark = f64::midpoint(raw(400_000), raw(300_000));
    let bounties = format!("[[reward.bounties]]\nraw = {mark:?}\nshare_ppm = 250000\nrounds = 2\n");
    let (mut world, id) = started(9, &weighted(&format!("{shares}{bounties}")));
    // Its own text is the same spec.
    let spec = world.state.competition(&id).unwrap().spec.clone();
    assert_eq!(shoal_arena::spec::CompetitionSpec::parse(&spec.canonical()).unwrap(), spec);
    let paid = |world: &World| {
        let weights = world.state.weights(world.now);
        [1, 2, 3].map(|entrant| weights.keys.get(&key(entrant).node_id()).copied().unwrap_or(0))
    };
    let claim = |world: &World| world.state.competition(&id).unwrap().bounties().next().unwrap().1;
    // Not there yet: the leader has all, and the bounty stays open.
    let round = |world: &mut World, entrant: u64, bytes: u64| {
        world.submit(entrant, id, Quality::of(bytes, bytes)).unwrap();
        world.play_round(id);
    };
    round(&mut world, 1, 400_000);
    assert_eq!((paid(&world), claim(&world)), ([500_000_000, 0, 0], None));
    // Reached: its share on top, for two rounds, though somebody else leads the second.
    round(&mut world, 2, 300_000);
    assert_eq!(paid(&world), [0, 500_000_000, 0]);
    assert_eq!(claim(&world).map(|claim| (claim.entrant, claim.rounds_left)), Some((key(2).node_id(), 2)));
    round(&mut world, 3, 200_000);
    assert_eq!(paid(&world), [0, 125_000_000, 375_000_000]);
    // It is over then, and nobody else gets it.
    round(&mut world, 1, 190_000);
    assert_eq!(paid(&world), [500_000_000, 0, 0]);
    assert_eq!(claim(&world).map(|claim| claim.rounds_left), Some(0));
    round(&mut world, 2, 180_000);
    assert_eq!(paid(&world), [0, 500_000_000, 0]);
    world.verify();
}

#[test]
fn a_bar_that_a_failing_champion_lowered_is_not_raised_for_pay() {
    let baseline = Quality::of(800_000, 0);
    let shares = "split_ppm = [1000000]\nbase_burn_ppm = 0\ndecay_s = 0\ncontribution_ppm = 600000";
    let spec =
        format!("{}\n[baseline]\nname = \"zstd-3\"\ncode = \"{}\"\n", weighted(shares), baseline.code());
    let (mut world, id) = started(8, &spec);
    let gain = |world: &World, entrant: u64| {
        let found = world.state.competition(&id).unwrap();
        found.contributions().get(&key(entrant).node_id()).copied()
    };
    let first = Quality::of(400_000, 1);
    world.submit(1, id, first).unwrap();
    world.play_round(id);
    let earned = gain(&world, 1).unwrap();
    assert!(earned > 0 && earned < 1_000_000, "a part of the better score: {earned}");
    // It fails on purpose; other keys climb from the baseline to where it was, by steps: none of that is new.
    let failing = Quality { failure: Some(shoal_arena::measure::Failure::Trap), ..first };
    world.codes.insert(first.code(), failing);
    for (entrant, size) in [(2, 700_000), (3, 500_000), (4, 410_000)] {
        world.submit(entrant, id, Quality::of(size, size)).unwrap();
        world.play_round(id);
        let leads = world.state.competition(&id).unwrap().champion.unwrap().entrant;
        assert_eq!(leads, key(entrant).node_id());
        assert_eq!(gain(&world, entrant), None, "{entrant}");
    }
    // What goes beyond it is, measured from there.
    world.submit(5, id, Quality::of(300_000, 5)).unwrap();
    world.play_round(id);
    let beyond = gain(&world, 5).unwrap();
    assert!(beyond > 0 && beyond < earned, "{beyond} of {earned}");
    // Whoever leads already is paid for leading, not for its next step.
    world.submit(5, id, Quality::of(200_000, 6)).unwrap();
    world.play_round(id);
    assert_eq!(gain(&world, 5), Some(beyond));
    world.verify();
}

#[test]
fn parents_must_be_scored_entries() {
    let (mut world, id) = started(3, SPEC);
    let open = world.submit(1, id, Quality::of(500_000, 1)).unwrap();
    for parents in [vec![open], vec![EntryId(99)]] {
        let refused = world.submit_with(2, id, Quality::of(1, 2), parents, None);
        assert!(matches!(refused, Err(Refusal::UnknownEntry { .. })));
    }
    world.play_round(id);
    let twice = world.submit_with(2, id, Quality::of(1, 2), vec![open, open], None);
    assert!(matches!(twice, Err(Refusal::UnknownEntry { .. })));
    let many = world.submit_with(2, id, Quality::of(1, 2), vec![open; 5], None);
    assert!(matches!(many, Err(Refusal::OverLimit { .. })));
    world.submit_with(2, id, Quality::of(400_000, 2), vec![open], None).unwrap();
}

#[test]
fn boards_of_competition_arena_and_key() {
    let (mut world, id) = started(4, SPEC);
    for (entrant, size) in [(1, 500_000), (2, 600_000), (2, 550_000), (3, 700_000)] {
        world.submit(entrant, id, Quality::of(size, size)).unwrap();
    }
    world.play_round(id);
    let board = world.state.competition(&id).unwrap().leaderboard(&world.state);
    let keys: Vec<_> = board.iter().map(|row| (row.rank, row.entrant)).collect();
    assert_eq!(keys, [(1, key(1).node_id()), (2, key(2).node_id()), (3, key(3).node_id())]);
    world.submit(3, id, Quality::of(480_000, 9)).unwrap();
    world.play_round(id);
    let series = world.state.competition(&id).unwrap().score_series();
    assert_eq!(series.len(), 2);
    assert!(series[1].best.scoring.score.raw > series[0].best.scoring.score.raw);

    let first = |mode| world.state.leaderboard(mode, world.now)[0].entrant;
    assert_eq!(first(LeaderMode::TotalSubmissions), key(2).node_id());
    assert_eq!(first(LeaderMode::MeanPlace), key(1).node_id());
    assert_eq!(first(LeaderMode::MeanScore), key(1).node_id());
    let places = world.state.leaderboard(LeaderMode::FirstPlaces, world.now);
    assert_eq!(places.iter().map(|row| row.first_places).collect::<Vec<_>>(), [1, 1, 0]);
    assert_eq!(places.iter().map(|row| row.rank).collect::<Vec<_>>(), [1, 1, 3], "equal values share a rank");
    for mode in [LeaderMode::MedianScore, LeaderMode::MedianPlace, LeaderMode::Earnings] {
        assert_eq!(world.state.leaderboard(mode, world.now).len(), 3);
    }

    let profile = world.state.profile(key(3).node_id(), world.now).unwrap();
    assert_eq!((profile.leader.submissions, profile.scored, profile.leads.as_slice()), (2, 2, &[id][..]));
    assert_eq!(profile.activity.values().sum::<u32>(), 2);
    assert!(profile.best_score.unwrap() > 0.5);
    assert_eq!(world.state.profile(key(77).node_id(), world.now), None);
}

#[test]
fn the_openers_own_entry_and_its_baseline_stand_beside_each_other() {
    let baseline = Quality::of(800_000, 0);
    let spec = format!("{SPEC}\n[baseline]\nname = \"zstd-3\"\ncode = \"{}\"\n", baseline.code());
    for (seed, size) in [(10, 500_000), (11, 900_000)] {
        let mut world = World::new(seed);
        let id = world.open_by(&key(1), &spec).unwrap();
        world.judges(3);
        world.pass(HOUR);
        let entry = world.submit(1, id, Quality::of(size, 1)).unwrap();
        world.submit(1, id, Quality::of(950_000, 2)).unwrap();
        world.submit(2, id, Quality::of(850_000, 3)).unwrap();
        world.play_round(id);
        let board = world.state.competition(&id).unwrap().leaderboard(&world.state);
        let rows: Vec<_> = board.iter().map(|row| (row.rank, row.entry, row.entrant)).collect();
        let base = board.iter().find(|row| world.state.entry(row.entry).unwrap().role == Role::Baseline);
        let base = base.expect("the baseline's row").entry;
        let (us, them) = (key(1).node_id(), key(2).node_id());
        assert_eq!(rows.len(), 3, "{rows:?}");
        let order = if size < 800_000 { [entry, base] } else { [base, entry] };
        let ours: Vec<EntryId> = rows.iter().filter(|row| row.2 == us).map(|row| row.1).collect();
        assert_eq!(ours, order, "{rows:?}");
        assert!(rows.iter().any(|row| row.2 == them));
        assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), [1, 2, 3]);
    }
}

#[test]
fn the_pareto_board_holds_what_nothing_beats_in_all_three() {
    let (mut world, id) = started(5, SPEC);
    let with =
        |size, fuel, similarity_ppb, variant| Quality { fuel, similarity_ppb, ..Quality::of(size, variant) };
    let small = world.submit(1, id, with(300_000, 9_000_000, 991_000_000, 1)).unwrap();
    let fast = world.submit(2, id, with(600_000, 100_000, 991_000_000, 2)).unwrap();
    let exact = world.submit(3, id, with(700_000, 9_000_000, 1_000_000_000, 3)).unwrap();
    let beaten = world.submit(4, id, with(650_000, 200_000, 991_000_000, 4)).unwrap();
    world.play_round(id);
    let summary = world.state.competition(&id).unwrap().last_judged().unwrap();
    let front: Vec<EntryId> = summary.pareto().iter().map(|point| point.entry).collect();
    assert_eq!(front, [small, fast, exact]);
    assert!(summary.board.iter().any(|row| row.entry == beaten));
}

#[test]
fn the_score_to_beat_is_measured_anew_in_each_round() {
    let (mut world, id) = started(6, SPEC);
    assert_eq!(world.state.competition(&id).unwrap().score_to_beat(), None);
    world.submit(1, id, Quality::of(500_000, 1)).unwrap();
    world.play_round(id);
    let old = world.state.competition(&id).unwrap().score_to_beat().unwrap();
    assert!(old.provisional);
    world.submit(2, id, Quality::of(499_900, 2)).unwrap();
    world.settle();
    let closes = world.state.competition(&id).unwrap().open_round().unwrap().closes;
    world.pass(closes.since(world.now).0);
    world.unseal();
    assert!(world.state.competition(&id).unwrap().score_to_beat().unwrap().provisional);
    let ids: Vec<_> = world.judges.keys().copied().collect();
    for judge in world.judges.values_mut() {
        judge.want = 1;
    }
    let mut seen = None;
    for _ in 0..40 {
        for judge in &ids {
            world.act(*judge);
            let now = world.state.competition(&id).unwrap().score_to_beat().unwrap();
            if !now.provisional {
                seen = Some(now);
            }
        }
    }
    let new = seen.expect("the incumbent's score was known before the round ended");
    assert_eq!(new.round.0, 1);
    assert_ne!(new.raw, old.raw, "other inputs");
}

#[test]
fn weights_are_given_by_owners_and_never_exceed_one() {
    let mut world = World::new(7);
    let named = |name: &str, weight: u32| {
        weighted("")
            .replace("weight_ppm = 500000", &format!("weight_ppm = {weight}"))
            .replace("\"matrix\"", &format!("\"{name}\""))
    };
    let refused = world.open_by(&key(1), &named("mine", 1));
    assert!(matches!(refused, Err(Refusal::NotAllowed { .. })));
    world.open_by(&key(1), &named("mine", 0)).unwrap();
    world.open(&named("a", 700_000));
    let refused = world.open_by(&owner(), &named("b", 300_001));
    assert!(matches!(refused, Err(Refusal::Weight { asked: 300_001, left: 300_000 })));
    let b = world.open(&named("b", 300_000));
    // What ended gives its weight back.
    world.say(&owner(), &Statement::End { competition: b }).unwrap();
    world.open(&named("c", 300_000));
    world.verify();
}

#[test]
fn a_disputed_or_failed_entry_has_no_rank() {
    let (mut world, id) = started(8, SPEC);
    let failed = world
        .submit(1, id, Quality { failure: Some(shoal_arena::measure::Failure::Trap), ..Quality::of(1, 1) })
        .unwrap();
    let good = world.submit(2, id, Quality::of(500_000, 2)).unwrap();
    world.play_round(id);
    assert!(matches!(world.state.entry(failed).unwrap().state, EntryState::Failed(_)));
    assert_eq!(
        (world.state.entry(failed).unwrap().rank, world.state.entry(good).unwrap().rank),
        (None, Some(1))
    );
}
