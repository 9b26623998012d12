//! Envelopes, announcements and the limits of everything that comes from outside.

use ledger::fold::Unfit;
use shoal_arena::Refusal;
use shoal_arena::about::About;
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
fn a_competition_by_registration_takes_entries_of_registered_keys() {
    let mut world = World::new(12);
    world.judges(3);
    let text = SPEC.replace("per_round_max = 100", "per_round_max = 100\nregistered = true");
    // What has no such line keeps its id.
    assert!(!CompetitionSpec::parse(SPEC).unwrap().canonical().contains("registered"));
    assert_ne!(CompetitionSpec::parse(SPEC).unwrap().id(), CompetitionSpec::parse(&text).unwrap().id());
    let id = world.open_by(&key(1), &text).unwrap();
    let open = world.open_by(&key(1), &SPEC.replace("\"matrix\"", "\"for-all\"")).unwrap();
    world.pass(HOUR);
    let register = |competition, numbers: &[u64], enter| Statement::Register {
        competition,
        keys: numbers.iter().map(|number| key(*number).node_id()).collect(),
        enter,
    };
    let refused = world.submit(2, id, Quality::of(1, 1)).unwrap_err();
    assert!(matches!(&refused, Refusal::NotRegistered { .. }), "{refused:?}");
    let next = format!("{}, for `shoal arena register matrix {}`", key(1).node_id(), key(2).node_id());
    assert!(refused.to_string().ends_with(&next), "{refused}");
    // Not even its opener, before it says so; nor may anybody register but those in charge.
    assert!(world.submit(1, id, Quality::of(1, 2)).is_err());
    assert!(matches!(world.say(&key(2), &register(id, &[2], true)), Err(Refusal::NotAllowed { .. })));
    world.say(&key(1), &register(id, &[2, 3], true)).unwrap();
    world.say(&owner(), &register(id, &[3, 4], true)).unwrap();
    for number in [2, 3, 4] {
        world.submit(number, id, Quality::of(500_000, number)).unwrap();
    }
    // What changes nothing is not logged again and again.
    for (keys, enter) in [(&[4, 2], true), (&[5, 6], false)] {
        let refused = world.say(&key(1), &register(id, keys, enter));
        assert!(matches!(refused, Err(Refusal::Repeated { .. })), "{refused:?}");
    }
    world.say(&key(1), &register(id, &[4, 5, 5], true)).unwrap();
    world.say(&key(1), &register(id, &[5, 6], false)).unwrap();
    assert!(matches!(world.say(&key(1), &register(id, &[], true)), Err(Refusal::Items { .. })));
    assert!(matches!(world.say(&key(1), &register(open, &[2], true)), Err(Refusal::NotNow { .. })));
    let many: Vec<u64> = (10..1035).collect();
    assert!(matches!(
        world.say(&key(1), &register(id, &many, true)),
        Err(Refusal::OverLimit { limit: 1024, .. })
    ));
    // Whoever is taken off the list keeps what it entered, and may enter no more.
    world.say(&key(1), &register(id, &[2], false)).unwrap();
    assert!(matches!(world.submit(2, id, Quality::of(1, 9)), Err(Refusal::NotRegistered { .. })));
    let round = world.play_round(id);
    let competition = world.state.competition(&id).unwrap();
    let board = &competition.summaries.iter().find(|summary| summary.round == round).unwrap().board;
    assert_eq!(board.len(), 3);
    assert_eq!(competition.registered.len(), 2);
    world.say(&key(1), &Statement::End { competition: id }).unwrap();
    world.pass(2 * HOUR);
    let competition = world.state.competition(&id).unwrap();
    assert!(competition.completed_at.is_some() && competition.registered.is_empty());
    world.verify();
}

#[test]
fn entries_are_described_by_their_makers_within_bounds() {
    let mut world = World::new(13);
    world.judges(3);
    let id = world.open(SPEC);
    world.pass(HOUR);
    let entry = world.submit(1, id, Quality::of(500_000, 1)).unwrap();
    let say = |about: &About| Statement::Describe { entry, about: about.clone() };
    let about = About {
        title: "Zürich, nibble by nibble".to_owned(),
        note: "Rows from rows.\nSecond line.".to_owned(),
        language: "Rust".to_owned(),
        licence: "Apache-2.0".to_owned(),
        link: "https://example.org/a".to_owned(),
    };
    for other in [key(2), owner(), key(255)] {
        assert_eq!(world.say(&other, &say(&about)), Err(Refusal::UnknownEntry { entry }));
    }
    for (wrong, part) in [
        (About { title: "a\nb".to_owned(), ..about.clone() }, "title"),
        (About { title: "x".repeat(129), ..about.clone() }, "title"),
        (About { note: "\u{1b}[2J".to_owned(), ..about.clone() }, "note"),
        (About { note: "x".repeat(2049), ..about.clone() }, "note"),
        (About { language: "a\u{202e}b".to_owned(), ..about.clone() }, "language"),
        (About { licence: "\t".to_owned(), ..about.clone() }, "licence"),
        (About { title: "a\u{2028}b".to_owned(), ..about.clone() }, "title"),
        (About { title: "\u{200b}".to_owned(), ..about.clone() }, "title"),
        (About { language: "a\u{61c}".to_owned(), ..about.clone() }, "language"),
        (About { licence: "\u{feff}MIT".to_owned(), ..about.clone() }, "licence"),
        (About { note: "a\u{2067}b".to_owned(), ..about.clone() }, "note"),
        (About { link: "javascript:alert(1)".to_owned(), ..about.clone() }, "link"),
        (About { link: format!("https://{}", "x".repeat(512)), ..about.clone() }, "link"),
    ] {
        let refused = world.say(&key(1), &say(&wrong)).unwrap_err();
        assert!(refused.to_string().contains(part), "{refused}");
    }
    world.say(&key(1), &say(&about)).unwrap();
    assert_eq!(world.state.about(entry), Some(&about));
    // Where it leads, the entry that is judged again for it has the same words.
    world.play_round(id);
    world.submit(2, id, Quality::of(700_000, 2)).unwrap();
    world.play_round(id);
    let again = world.state.entries().iter().find(|found| found.origin == Some(entry)).unwrap().id;
    assert_eq!(world.state.about(again), Some(&about));
    assert_eq!(
        world.say(&key(1), &Statement::Describe { entry: again, about: about.clone() }),
        Err(Refusal::UnknownEntry { entry: again })
    );
    world.say(&key(1), &say(&About::default())).unwrap();
    assert_eq!(world.state.about(again), None);
    for _ in 2..8 {
        world.say(&key(1), &say(&about)).unwrap();
    }
    assert!(matches!(world.say(&key(1), &say(&about)), Err(Refusal::OverLimit { limit: 8, .. })));
    world.verify();
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
