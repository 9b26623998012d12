//! Envelopes, announcements and the limits of everything that comes from outside.

use ledger::fold::Unfit;
use shoal_arena::Refusal;
use shoal_arena::record::{Control, Input, Statement};
use shoal_arena::spec::CompetitionSpec;
use wire::{Envelope, Millis, RunId};

use super::world::{HOUR, Quality, SPEC, World, key, owner};

#[test]
fn only_fresh_envelopes_of_this_arena_are_taken_and_each_once() {
    let mut world = World::new(1);
    world.judges(1);
    let judge = key(2_000_000);
    let lease = Statement::Lease { want: 1 };
    let good = world.envelope(&judge, &lease);
    world.input(Input::Stated(good.clone())).unwrap();
    assert_eq!(world.input(Input::Stated(good.clone())), Err(Refusal::Unfit(Unfit::Duplicate)));
    let newer = world.envelope(&judge, &lease);
    world.input(Input::Stated(newer)).unwrap();
    assert!(matches!(world.input(Input::Stated(good)), Err(Refusal::Unfit(Unfit::NotNewer { .. }))));
    let body = wire::to_bytes(&lease);
    let sign = |run, kind, body: &[u8], time| Envelope::sign(&judge, run, kind, body.to_vec(), time, 1 << 40);
    let now = world.now;
    for (envelope, expected) in [
        (sign(RunId([9; 32]), 2, &body, now), "Envelope"),
        (sign(world.run, 1, &body, now), "Kind"),
        (sign(world.run, 2, &[250, 1, 2], now), "Malformed"),
        (sign(world.run, 2, &body, Millis(now.0 + 200_000)), "Stale"),
    ] {
        let refusal = world.input(Input::Stated(envelope)).unwrap_err();
        assert!(format!("{refusal:?}").starts_with(&format!("Unfit({expected}")), "{refusal:?}");
        assert!(!refusal.to_string().is_empty());
    }
    let mut forged = world.envelope(&judge, &lease);
    forged.sender = key(1).node_id();
    assert!(matches!(world.input(Input::Stated(forged)), Err(Refusal::Unfit(Unfit::Envelope { .. }))));
}

#[test]
fn a_spec_is_opened_in_canonical_form_once_and_under_its_own_name() {
    let mut world = World::new(2);
    let spec = CompetitionSpec::parse(SPEC).unwrap();
    let rough = world.say(&key(1), &Statement::Open { spec: SPEC.to_owned() });
    assert!(matches!(rough, Err(Refusal::Spec { .. })));
    let wrong = world.say(&key(1), &Statement::Open { spec: "name = 3".to_owned() });
    assert!(matches!(wrong, Err(Refusal::Spec { reason }) if reason.contains("name = 3")));
    let id = world.open_by(&key(1), SPEC).unwrap();
    assert_eq!(id, spec.id());
    assert!(matches!(world.open_by(&key(1), SPEC), Err(Refusal::Exists { .. })));
    let same_name = SPEC.replace("items = 16", "items = 17");
    assert!(matches!(world.open_by(&key(2), &same_name), Err(Refusal::NameTaken { .. })));
    let past = SPEC
        .replace("\"matrix\"", "\"past\"")
        .replace("2026-01-01T01", "2025-01-01T01")
        .replace("every_s = 3600", "every_s = 3600\nrounds = 3");
    assert!(matches!(world.open_by(&key(2), &past), Err(Refusal::Past)));
    // A schedule that began long ago starts with the round of now.
    let late = SPEC.replace("\"matrix\"", "\"late\"").replace("2026-01-01T01", "2025-01-01T01");
    let late = world.open_by(&key(2), &late).unwrap();
    assert_eq!(world.state.competition(&late).unwrap().open_round().unwrap().number.0, 364 * 24 + 23);
    for number in 1..16 {
        world.open_by(&key(2), &SPEC.replace("\"matrix\"", &format!("\"n-{number}\""))).unwrap();
    }
    let many = world.open_by(&key(2), &SPEC.replace("\"matrix\"", "\"one-more\""));
    assert!(matches!(many, Err(Refusal::OverLimit { limit: 16, .. })));
}

#[test]
fn a_closed_arena_lets_only_owners_open() {
    let mut world = World::of(
        &format!("name = \"closed\"\nopen_to_all = false\nowners = [\"{}\"]\n", owner().node_id()),
        3,
    );
    assert!(matches!(world.open_by(&key(1), SPEC), Err(Refusal::NotAllowed { .. })));
    world.open(SPEC);
}

#[test]
fn announcements_are_said_by_those_in_charge() {
    let mut world = World::new(4);
    let id = world.open_by(&key(1), SPEC).unwrap();
    let say = |competition, text: &str| Statement::Announce { competition, text: text.to_owned() };
    world.say(&key(1), &say(Some(id), "New samples are out.")).unwrap();
    world.say(&owner(), &say(Some(id), "Rounds are longer now.")).unwrap();
    world.say(&owner(), &say(None, "Welcome.")).unwrap();
    assert!(matches!(world.say(&key(2), &say(Some(id), "Me too")), Err(Refusal::NotAllowed { .. })));
    assert!(matches!(world.say(&key(1), &say(None, "All!")), Err(Refusal::NotAllowed { .. })));
    assert!(matches!(world.say(&owner(), &say(None, "  ")), Err(Refusal::Unfit(Unfit::Malformed { .. }))));
    assert!(matches!(
        world.say(&owner(), &say(None, "\u{1b}[2J")),
        Err(Refusal::Unfit(Unfit::Malformed { .. }))
    ));
    assert!(matches!(world.say(&owner(), &say(None, &"x".repeat(4097))), Err(Refusal::OverLimit { .. })));
    let notes = &world.state.competition(&id).unwrap().notes;
    assert_eq!(
        notes.iter().map(|note| note.text.as_str()).collect::<Vec<_>>(),
        ["New samples are out.", "Rounds are longer now."]
    );
    assert_eq!(world.state.notes().len(), 1);
    for number in 0..300 {
        world.say(&owner(), &say(Some(id), &format!("note {number}"))).unwrap();
    }
    let notes = &world.state.competition(&id).unwrap().notes;
    assert_eq!((notes.len(), notes[0].text.as_str()), (256, "note 44"));
}

#[test]
fn entries_of_another_form_or_over_the_limits_are_refused() {
    let mut world = World::new(5);
    let id = world.open(&SPEC.replace("per_round_max = 100", "per_round_max = 2\nentries_max = 3"));
    world.pass(HOUR);
    let native = Statement::Submit {
        competition: id,
        seal: wire::Hash([1; 32]),
        form: shoal_arena::spec::Form::Native,
        parents: vec![],
        receipt: None,
    };
    assert!(matches!(world.say(&key(1), &native), Err(Refusal::Form { .. })));
    world.submit(1, id, Quality::of(1, 1)).unwrap();
    world.submit(1, id, Quality::of(1, 2)).unwrap();
    assert!(matches!(world.submit(1, id, Quality::of(1, 3)), Err(Refusal::OverLimit { limit: 2, .. })));
    world.submit(2, id, Quality::of(1, 4)).unwrap();
    assert!(matches!(world.submit(3, id, Quality::of(1, 5)), Err(Refusal::OverLimit { limit: 3, .. })));
}

#[test]
fn controls_of_the_host_are_checked_too() {
    let mut world = World::new(6);
    let judge = key(1).node_id();
    let admit = |operator: &str| Control::Admitted { judge, operator: operator.to_owned() };
    assert!(world.control(admit("")).is_err());
    assert!(matches!(world.control(admit(&"x".repeat(129))), Err(Refusal::OverLimit { .. })));
    world.control(admit("house")).unwrap();
    assert!(matches!(world.control(admit("house")), Err(Refusal::Repeated { .. })));
    world.control(admit("other house")).unwrap();
    world.control(Control::Dismissed { judge }).unwrap();
    world.control(admit("house")).unwrap();
    let genesis = Control::Genesis { spec: String::new(), host: judge };
    assert_eq!(world.control(genesis), Err(Refusal::Begun));
    let down = Millis(10_000);
    assert!(matches!(world.control(Control::Resumed { down }), Err(Refusal::NotResumed { .. })));
    world.verify();
}

#[test]
fn inputs_of_one_block_are_taken_in_their_order_and_what_follows_stands_between() {
    let mut world = World::new(7);
    let id = world.open(&SPEC.replace("per_round_max = 100", "per_round_max = 3"));
    world.pass(HOUR);
    let submit = |number: u8| Statement::Submit {
        competition: id,
        seal: wire::Hash([number; 32]),
        form: shoal_arena::spec::Form::Component,
        parents: vec![],
        receipt: None,
    };
    let mut inputs: Vec<Input> = Vec::new();
    for number in 0..5 {
        let envelope = world.envelope(&key(1), &submit(number));
        inputs.push(Input::Stated(envelope));
    }
    inputs.push(inputs[0].clone());
    let outcomes = world.inputs(inputs);
    assert_eq!(
        outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, true, true, false, false, false]
    );
    // The round's end and a late entry in one block: the end comes first.
    world.now = world.now.plus(Millis(HOUR));
    let late = world.envelope(&key(2), &submit(9));
    let judge = Control::Admitted { judge: key(3).node_id(), operator: "house".to_owned() };
    let outcomes = world.inputs(vec![Input::Stated(late), Input::Control(judge)]);
    // The next round is open already, so the entry is one of that round.
    assert!(outcomes.iter().all(Result::is_ok));
    let entry = world.state.entry_of_seal(&wire::Hash([9; 32])).unwrap();
    assert_eq!(entry.round.0, 1);
    world.verify();
}

#[test]
fn the_host_opens_what_was_entrusted_to_it_and_nobody_else_may() {
    let mut world = World::new(11);
    world.judges(1);
    let id = world.open(SPEC);
    world.pass(HOUR);
    let entry = world.submit(1, id, Quality::of(500_000, 1)).unwrap();
    world.settle();
    let (code, salt) = (world.sealed[0].quality.code(), world.sealed[0].salt);
    let unseal = |code, bytes, salt| Statement::Unseal { entry, code, bytes, salt };
    let host = key(255);
    let early = world.say(&host, &unseal(code, 1000, salt));
    assert!(matches!(early, Err(Refusal::WrongStep { .. })), "{early:?}");
    let closes = world.state.competition(&id).unwrap().open_round().unwrap().closes;
    world.pass(closes.since(world.now).0);
    // Neither another entrant nor the arena's owner, even with the salt; nor the host with anything but what was sealed.
    for other in [key(2), owner(), key(2_000_000)] {
        let refused = world.say(&other, &unseal(code, 1000, salt));
        assert_eq!(refused, Err(Refusal::UnknownEntry { entry }));
    }
    for wrong in [unseal(code, 999, salt), unseal(code, 1000, code), unseal(salt, 1000, salt)] {
        let refused = world.say(&host, &wrong);
        assert!(matches!(refused, Err(Refusal::WrongOpening { .. })), "{refused:?}");
    }
    world.say(&host, &unseal(code, 1000, salt)).unwrap();
    assert_eq!(world.state.entry(entry).unwrap().code.map(|code| code.salt), Some(salt));
    // Once: whoever comes second, its maker included, finds it open.
    let again = world.say(&key(1), &unseal(code, 1000, salt));
    assert!(again.is_err(), "{again:?}");
    world.verify();
}
