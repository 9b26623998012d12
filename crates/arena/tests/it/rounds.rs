//! A round from its opening to its end, and what may go wrong on the way.

use shoal_arena::Fold as _;
use shoal_arena::Refusal;
use shoal_arena::record::{
    Control, Derived, EntryId, PoolItem, Record, RoundNumber, Statement, Step, VoidReason,
};
use shoal_arena::state::{EntryState, Role, Status};
use wire::{Hash, Millis};

use super::world::{HOUR, Manner, Quality, SPEC, World, key, owner};

fn state_of(world: &World, entry: EntryId) -> EntryState {
    world.state.entry(entry).unwrap().state
}

#[test]
fn the_best_of_a_round_leads_and_is_judged_again() {
    let mut world = World::new(1);
    let id = world.open(SPEC);
    world.judges(3);
    assert_eq!(world.state.competition(&id).unwrap().status(), Status::Pending);
    assert!(matches!(world.submit(1, id, Quality::of(500_000, 1)), Err(Refusal::NotOpen { opens: Some(_) })));
    world.pass(HOUR);
    assert_eq!(world.state.competition(&id).unwrap().status(), Status::Active);
    let good = world.submit(1, id, Quality::of(500_000, 1)).unwrap();
    let better = world.submit(2, id, Quality::of(400_000, 2)).unwrap();
    let worse = world.submit(3, id, Quality::of(700_000, 3)).unwrap();
    world.play_round(id);
    let competition = world.state.competition(&id).unwrap();
    assert_eq!(competition.champion.unwrap().entry, better);
    let order: Vec<EntryId> = competition.last_judged().unwrap().board.iter().map(|row| row.entry).collect();
    assert_eq!(order, [better, good, worse]);
    assert!(matches!(state_of(&world, good), EntryState::Scored(_)));

    // The next round: nobody is clearly better, so the champion stays, on new inputs and under a new entry.
    let equal = world.submit(3, id, Quality::of(399_990, 4)).unwrap();
    world.play_round(id);
    let competition = world.state.competition(&id).unwrap();
    assert_eq!(competition.champion.unwrap().entry, better);
    let summaries = &competition.summaries;
    assert_ne!(summaries[0].seed, summaries[1].seed);
    let again: Vec<_> = world.state.entries().iter().filter(|entry| entry.role == Role::Incumbent).collect();
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].origin, again[0].version), (Some(better), 0));
    assert!(again[0].scoring().is_some());
    assert!(state_of(&world, equal).is_final());
    world.verify();
}

#[test]
fn a_round_nobody_enters_is_void_and_the_next_one_opens() {
    let mut world = World::new(2);
    let id = world.open(SPEC);
    world.judges(2);
    world.pass(3 * HOUR);
    let competition = world.state.competition(&id).unwrap();
    assert_eq!(competition.summaries.len(), 2);
    assert!(competition.summaries.iter().all(|summary| summary.void == Some(VoidReason::NoEntries)));
    assert_eq!(competition.open_round().unwrap().number, RoundNumber(2));
    world.verify();
}

#[test]
fn without_a_judges_nonce_there_is_no_seed_and_entries_are_given_back() {
    let mut world =
        World::of(&format!("name = \"test\"\nowners = [\"{}\"]\nrate_entries = 2\n", owner().node_id()), 3);
    let id = world.open(SPEC);
    world.pass(HOUR);
    let entry = world.submit(1, id, Quality::of(500_000, 1)).unwrap();
    let closed = world.submit(1, id, Quality::of(500_000, 2)).unwrap();
    assert!(matches!(world.submit(1, id, Quality::of(1, 3)), Err(Refusal::RateLimit { limit: 2, .. })));
    world.pass(HOUR);
    world.unseal_one(0);
    world.pass(60_000);
    let competition = world.state.competition(&id).unwrap();
    assert_eq!(competition.summaries[0].void, Some(VoidReason::NoJudges));
    assert_eq!(state_of(&world, entry), EntryState::Stale);
    assert_eq!(state_of(&world, closed), EntryState::Unopened);
    // The first is given back, the one that was never opened is not.
    let rate = world.state.rate_status(key(1).node_id(), world.now);
    assert_eq!((rate.used, rate.left), (1, 1));
    world.verify();
}

#[test]
fn whoever_does_not_open_is_left_out_and_whoever_opens_late_is_refused() {
    let mut world = World::new(4);
    let id = world.open(SPEC);
    world.judges(3);
    world.pass(HOUR);
    let shy = world.submit(1, id, Quality::of(300_000, 1)).unwrap();
    let open = world.submit(2, id, Quality::of(500_000, 2)).unwrap();
    world.settle();
    world.pass(HOUR);
    world.unseal_one(1);
    assert_eq!(world.state.competition(&id).unwrap().live[&RoundNumber(0)].step, Step::Opening);
    world.pass(60_000);
    assert_eq!(state_of(&world, shy), EntryState::Unopened);
    let late = {
        let sealed = &world.sealed[0];
        Statement::Unseal { entry: shy, code: sealed.quality.code(), bytes: 1000, salt: sealed.salt }
    };
    assert!(matches!(world.say(&key(1), &late), Err(Refusal::WrongStep { step: Some(Step::Drawing), .. })));
    world.settle();
    world.pass(HOUR / 2);
    assert_eq!(world.state.competition(&id).unwrap().champion.unwrap().entry, open);
    world.verify();
}

#[test]
fn a_seal_binds_everything() {
    let mut world = World::new(5);
    let id = world.open(SPEC);
    world.judges(2);
    world.pass(HOUR);
    let entry = world.submit(1, id, Quality::of(500_000, 1)).unwrap();
    let stolen = Statement::Submit {
        competition: id,
        seal: world.state.entry(entry).unwrap().seal,
        form: shoal_arena::spec::Form::Component,
        parents: vec![],
        receipt: None,
    };
    assert!(matches!(world.say(&key(2), &stolen), Err(Refusal::Repeated { .. })));
    let (code, salt) = (world.sealed[0].quality.code(), world.sealed[0].salt);
    let early = Statement::Unseal { entry, code, bytes: 1000, salt };
    assert!(matches!(world.say(&key(1), &early), Err(Refusal::WrongStep { step: Some(Step::Open), .. })));
    world.pass(HOUR);
    for (code, bytes, salt) in
        [(Hash::of(b"better"), 1000, salt), (code, 999, salt), (code, 1000, Hash::of(b"salt"))]
    {
        let wrong = Statement::Unseal { entry, code, bytes, salt };
        assert!(matches!(world.say(&key(1), &wrong), Err(Refusal::WrongOpening { .. })));
    }
    let huge = Statement::Unseal { entry, code, bytes: 20_001, salt };
    assert!(matches!(world.say(&key(1), &huge), Err(Refusal::OverLimit { limit: 20_000, .. })));
    let foreign = Statement::Unseal { entry, code, bytes: 1000, salt };
    assert!(matches!(world.say(&key(2), &foreign), Err(Refusal::UnknownEntry { .. })));
    world.say(&key(1), &foreign).unwrap();
    assert!(world.say(&key(1), &foreign).is_err());
}

#[test]
fn copies_are_found_and_the_first_seal_counts() {
    let mut world = World::new(6);
    let id = world.open(SPEC);
    world.judges(3);
    world.pass(HOUR);
    let original = world.submit(1, id, Quality::of(500_000, 1)).unwrap();
    let copy = world.submit(2, id, Quality::of(500_000, 1)).unwrap();
    world.play_round(id);
    assert_eq!(state_of(&world, copy), EntryState::Copy { of: original });
    assert!(matches!(state_of(&world, original), EntryState::Scored(_)));
    // After the code is public, somebody else enters it; its maker may.
    let thief = world.submit(3, id, Quality::of(500_000, 1)).unwrap();
    let again = world.submit(1, id, Quality::of(500_000, 1)).unwrap();
    // Other code, the very same outputs: judged, and marked.
    let disguised = world.submit(4, id, Quality { outputs: 1, ..Quality::of(500_000, 77) }).unwrap();
    world.play_round(id);
    assert_eq!(state_of(&world, thief), EntryState::Copy { of: original });
    assert!(matches!(state_of(&world, again), EntryState::Scored(_)));
    let echo = world.state.entry(disguised).unwrap();
    assert!(matches!(echo.state, EntryState::Scored(_)));
    let of = world.state.entry(echo.echo_of.unwrap()).unwrap();
    assert_eq!(of.entrant, key(1).node_id());
    world.verify();
}

#[test]
fn only_the_latest_counts_where_the_spec_says_so() {
    let mut world = World::new(7);
    let id = world.open(&SPEC.replace("per_round_max = 100", "per_round_max = 2\nlatest_only = true"));
    world.judges(3);
    world.pass(HOUR);
    let first = world.submit(1, id, Quality::of(400_000, 1)).unwrap();
    let second = world.submit(1, id, Quality::of(500_000, 2)).unwrap();
    assert!(matches!(world.submit(1, id, Quality::of(1, 3)), Err(Refusal::OverLimit { limit: 2, .. })));
    assert_eq!(state_of(&world, first), EntryState::Replaced);
    assert_eq!(world.state.entry(second).unwrap().version, 2);
    world.play_round(id);
    assert_eq!(state_of(&world, first), EntryState::Replaced);
    assert_eq!(world.state.competition(&id).unwrap().champion.unwrap().entry, second);
    world.verify();
}

fn pool(numbers: std::ops::Range<u64>, operators: u64) -> Vec<PoolItem> {
    let item = |number: u64| PoolItem {
        hash: Hash::of(&number.to_le_bytes()),
        operator: key(5000 + number % operators).node_id(),
    };
    let mut items: Vec<PoolItem> = numbers.map(item).collect();
    items.sort();
    items
}

#[test]
fn inputs_are_drawn_from_a_pool_that_is_fixed_before_the_seed() {
    let mut world = World::new(8);
    let id =
        world.open(&SPEC.replace("items = 16", "items = 16\nsource = \"pool\"\noperator_share_ppm = 250000"));
    world.judges(3);
    world.pass(HOUR);
    world.submit(1, id, Quality::of(500_000, 1)).unwrap();
    world.settle();
    let round = RoundNumber(0);
    let say = |items| Statement::Pool { competition: id, round, items };
    assert!(matches!(world.say(&owner(), &say(pool(0..64, 8))), Err(Refusal::WrongStep { .. })));
    world.pass(HOUR);
    // Too few operators: 3 × 4 of 16 items.
    assert!(matches!(world.say(&owner(), &say(pool(0..64, 3))), Err(Refusal::Items { .. })));
    let mut unsorted = pool(0..64, 8);
    unsorted.swap(0, 1);
    assert!(matches!(world.say(&owner(), &say(unsorted)), Err(Refusal::Items { .. })));
    assert!(matches!(world.say(&key(1), &say(pool(0..64, 8))), Err(Refusal::NotAllowed { .. })));
    world.say(&owner(), &say(pool(0..64, 8))).unwrap();
    assert!(world.say(&owner(), &say(pool(64..128, 8))).is_err());
    world.unseal();
    world.settle();
    let summary = world.state.competition(&id).unwrap().summaries[0].clone();
    assert_eq!(summary.items.len(), 16);
    let items = pool(0..64, 8);
    let mut given = std::collections::BTreeMap::new();
    for hash in &summary.items {
        let item = items.iter().find(|item| item.hash == *hash).unwrap();
        *given.entry(item.operator).or_insert(0) += 1;
    }
    assert!(given.values().all(|count| *count <= 4), "{given:?}");

    // What was drawn once may not come again; what was not drawn may.
    world.submit(1, id, Quality::of(400_000, 2)).unwrap();
    world.settle();
    let closes = world.state.competition(&id).unwrap().open_round().unwrap().closes;
    world.pass(closes.since(world.now).0);
    let say = |items| Statement::Pool { competition: id, round: RoundNumber(1), items };
    assert!(matches!(world.say(&owner(), &say(pool(0..64, 8))), Err(Refusal::UsedItem { .. })));
    let fresh: Vec<PoolItem> =
        pool(0..128, 8).into_iter().filter(|item| !summary.items.contains(&item.hash)).collect();
    world.say(&owner(), &say(fresh)).unwrap();
    world.unseal();
    world.settle();
    assert_eq!(world.state.competition(&id).unwrap().summaries.len(), 2);
    world.verify();
}

#[test]
fn a_round_without_a_pool_is_void() {
    let mut world = World::new(9);
    let id = world.open(&SPEC.replace("items = 16", "items = 16\nsource = \"pool\""));
    world.judges(2);
    world.pass(HOUR);
    let entry = world.submit(1, id, Quality::of(500_000, 1)).unwrap();
    world.settle();
    world.pass(HOUR + 60_000);
    assert_eq!(world.state.competition(&id).unwrap().summaries[0].void, Some(VoidReason::NoPool));
    assert_eq!(state_of(&world, entry), EntryState::Stale);
    world.verify();
}

#[test]
fn a_competition_ends_by_its_schedule_or_its_opener() {
    let mut world = World::new(10);
    let two = world.open(&SPEC.replace("every_s = 3600", "every_s = 3600\nrounds = 2"));
    let other = world.open(&SPEC.replace("\"matrix\"", "\"other\""));
    world.judges(3);
    world.pass(HOUR);
    world.submit(1, two, Quality::of(500_000, 1)).unwrap();
    world.submit(1, other, Quality::of(500_000, 1)).unwrap();
    assert!(matches!(
        world.say(&key(1), &Statement::End { competition: other }),
        Err(Refusal::NotAllowed { .. })
    ));
    world.say(&owner(), &Statement::End { competition: other }).unwrap();
    assert!(world.say(&owner(), &Statement::End { competition: other }).is_err());
    world.play_round(two);
    let ended = world.state.competition(&other).unwrap();
    assert_eq!(ended.status(), Status::Completed);
    assert!(ended.champion.is_some(), "the last round is still judged");
    assert_eq!(world.state.competition(&two).unwrap().status(), Status::Active);
    world.pass(2 * HOUR);
    assert_eq!(world.state.competition(&two).unwrap().status(), Status::Completed);
    assert!(matches!(world.submit(1, two, Quality::of(1, 9)), Err(Refusal::UnknownCompetition { .. })));
    assert_eq!(world.state.next_deadline(world.now), None);
    world.verify();
}

#[test]
fn a_host_that_was_down_resumes_with_moved_deadlines() {
    let mut world = World::new(11);
    let id = world.open(SPEC);
    world.judges(3);
    world.pass(HOUR);
    let entry = world.submit(1, id, Quality::of(500_000, 1)).unwrap();
    world.settle();
    let closes = world.state.competition(&id).unwrap().open_round().unwrap().closes;
    // Down over the round's end: it closes as much later.
    let down = Millis(2 * HOUR);
    world.now = world.now.plus(down);
    world.control(Control::Resumed { down }).unwrap();
    let open = world.state.competition(&id).unwrap().open_round().unwrap();
    assert_eq!(open.closes, closes.plus(down));
    assert!(matches!(world.control(Control::Resumed { down }), Err(Refusal::NotResumed { .. })));
    world.submit(2, id, Quality::of(300_000, 2)).unwrap();
    world.play_round(id);
    let competition = world.state.competition(&id).unwrap();
    assert_eq!(competition.champion.unwrap().entrant, key(2).node_id());
    assert!(matches!(state_of(&world, entry), EntryState::Scored(_)));
    // Rounds whose time passed meanwhile are not held.
    assert_eq!(competition.open_round().unwrap().number, RoundNumber(3));
    world.verify();
}

#[test]
fn the_seed_depends_on_every_part_and_judges_open_last() {
    let seed_of = |salt_seed: u64, silent: bool| {
        let mut world = World::new(salt_seed);
        let id = world.open(SPEC);
        let judges = world.judges(3);
        world.pass(HOUR);
        world.submit(1, id, Quality::of(500_000, 1)).unwrap();
        world.settle();
        world.pass(HOUR);
        world.unseal();
        if silent {
            world.judges.get_mut(&judges[0]).unwrap().manner = Manner::Dead;
        }
        world.settle();
        world.pass(60_000);
        world.settle();
        let fixed = world.log.iter().flat_map(|(_, records)| records).find_map(|record| match record {
            Record::Derived(Derived::InputsFixed { seed, .. }) => Some(*seed),
            _ => None,
        });
        let withheld: u64 = world.state.judges().values().map(|judge| judge.withheld).sum();
        world.verify();
        (fixed.unwrap(), withheld)
    };
    let (base, none) = seed_of(12, false);
    assert_eq!(base, seed_of(12, false).0);
    assert_ne!(base, seed_of(13, false).0, "an entrant's salt moves the seed");
    let (other, one) = seed_of(12, true);
    assert_ne!(base, other, "a judge's nonce moves the seed");
    assert_eq!((none, one), (0, 1), "keeping a nonce back is seen");
}
