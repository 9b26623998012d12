//! What is shown when, and to whom; how often one may enter; what it costs.

use shoal_arena::Refusal;
use shoal_arena::measure::Failure;
use shoal_arena::record::{Control, EntryId, RoundNumber};
use shoal_arena::state::{Artefact, EntryState, GateReason};
use wire::{Hash, Millis};

use super::world::{HOUR, Quality, SPEC, World, key, owner};

fn arena(rate: u32) -> String {
    format!("name = \"test\"\nowners = [\"{}\"]\nrate_entries = {rate}\n", owner().node_id())
}

#[test]
fn gates_open_one_after_the_other() {
    let mut world = World::new(1);
    let id = world.open(SPEC);
    world.judges(3);
    world.pass(HOUR);
    let entry = world.submit(1, id, Quality::of(500_000, 1)).unwrap();
    let own = Some(key(1).node_id());
    let other = Some(key(2).node_id());
    let gate = |world: &World, what, viewer, later: u64| {
        world.state.gate(entry, what, viewer, world.now.plus(Millis(later)))
    };
    // While the round is open: the maker sees its code, others nothing.
    assert!(gate(&world, Artefact::Code, own, 0).is_ok());
    assert_eq!(gate(&world, Artefact::Code, other, 0).unwrap_err().reason, GateReason::CodeNotRevealed);
    let closed = gate(&world, Artefact::Result, other, 0).unwrap_err();
    assert_eq!((closed.reason, closed.round_completed), (GateReason::RoundNotCompleted, false));
    assert!(closed.round_end_at.is_some());
    assert!(gate(&world, Artefact::Result, own, 0).is_err(), "nothing is there yet");
    assert!(world.state.inputs_gate(&id, RoundNumber(0)).is_err());

    // Judged by two, the third is awaited for the takeover: the maker knows, others wait.
    world.settle();
    world.pass(HOUR);
    world.unseal();
    let late = world.judges.keys().copied().next_back().unwrap();
    let third = world.judges.remove(&late).unwrap();
    world.settle();
    world.pass(60_000);
    world.settle();
    assert!(matches!(world.state.entry(entry).unwrap().state, EntryState::Scored(_)));
    assert!(gate(&world, Artefact::Result, own, 0).is_ok());
    assert!(gate(&world, Artefact::Log, own, 0).is_ok());
    assert!(gate(&world, Artefact::Result, other, 0).is_err());
    assert!(gate(&world, Artefact::Result, None, 0).is_err());
    world.judges.insert(late, third);
    world.pass(HOUR / 2);
    world.settle();

    // Completed: results for all, inputs for all, code a day later.
    assert!(gate(&world, Artefact::Result, other, 0).is_ok());
    assert!(world.state.inputs_gate(&id, RoundNumber(0)).is_ok());
    let closed = gate(&world, Artefact::Code, other, 0).unwrap_err();
    assert_eq!(closed.reason, GateReason::CodeNotRevealed);
    assert!(closed.round_completed && closed.round_end_at.is_some());
    let reveal_at = closed.reveal_at.unwrap();
    assert_eq!(Some(reveal_at), world.state.entry(entry).unwrap().reveal_at);
    assert!(world.state.gate(entry, Artefact::Code, other, Millis(reveal_at.0 - 1)).is_err());
    assert!(world.state.gate(entry, Artefact::Code, other, reveal_at).is_ok());
    let nothing = world.state.gate(EntryId(99), Artefact::Code, other, reveal_at).unwrap_err();
    assert_eq!(nothing.reason, GateReason::CodeNotAccessible);
}

#[test]
fn a_champion_judged_again_does_not_show_its_code_earlier() {
    let mut world = World::new(2);
    let id = world.open(&SPEC.replace("[judges]", "[reveal]\ncode_delay_s = 36000\n[judges]"));
    world.judges(3);
    world.pass(HOUR);
    let first = world.submit(1, id, Quality::of(500_000, 1)).unwrap();
    world.play_round(id);
    world.submit(2, id, Quality::of(600_000, 2)).unwrap();
    world.play_round(id);
    let again = world.state.entries().iter().find(|entry| entry.origin == Some(first)).unwrap().id;
    let viewer = Some(key(3).node_id());
    let closed = world.state.gate(again, Artefact::Code, viewer, world.now).unwrap_err();
    assert_eq!(closed.reveal_at, world.state.entry(first).unwrap().reveal_at);
    assert!(world.state.gate(again, Artefact::Code, viewer, closed.reveal_at.unwrap()).is_ok());
    assert!(world.state.gate(again, Artefact::Code, Some(key(1).node_id()), world.now).is_ok());
}

#[test]
fn code_that_was_never_opened_is_not_there() {
    let mut world = World::new(3);
    let id = world.open(SPEC);
    world.judges(3);
    world.pass(HOUR);
    let shy = world.submit(1, id, Quality::of(500_000, 1)).unwrap();
    world.submit(2, id, Quality::of(500_000, 2)).unwrap();
    world.settle();
    world.pass(HOUR);
    world.unseal_one(1);
    world.pass(60_000);
    world.settle();
    world.pass(60_000);
    world.settle();
    let closed = world.state.gate(shy, Artefact::Code, None, Millis(u64::MAX)).unwrap_err();
    assert_eq!(closed.reason, GateReason::CodeNotAccessible);
    assert!(closed.round_completed);
}

#[test]
fn four_entries_in_a_rolling_day_over_all_competitions() {
    let mut world = World::of(&arena(4), 4);
    let day = "every_s = 86400\nopening_s = 60";
    let one =
        world.open(&SPEC.replace("every_s = 3600", day).replace("\nopening_s = 60\njudging", "\njudging"));
    let two = world.open(
        &SPEC
            .replace("\"matrix\"", "\"other\"")
            .replace("every_s = 3600", day)
            .replace("\nopening_s = 60\njudging", "\njudging"),
    );
    world.pass(HOUR);
    let begin = world.now;
    let status = |world: &World| world.state.rate_status(key(1).node_id(), world.now);
    assert_eq!((status(&world).limit, status(&world).left), (4, 4));
    for (number, id) in [one, two, one, two].into_iter().enumerate() {
        world.submit(1, id, Quality::of(500_000, number as u64)).unwrap();
        world.pass(HOUR);
    }
    let full = status(&world);
    assert_eq!((full.used, full.left), (4, 0));
    assert_eq!(full.next_free_at, begin.plus(Millis(24 * HOUR)));
    assert_eq!(full.all_free_at, begin.plus(Millis(27 * HOUR)));
    let refused = world.submit(1, one, Quality::of(500_000, 9));
    assert!(matches!(refused, Err(Refusal::RateLimit { limit: 4, free_at }) if free_at == full.next_free_at));
    world.submit(2, one, Quality::of(500_000, 9)).unwrap();
    // Rolling: one is free a day after the first, not all.
    world.pass(20 * HOUR - 1);
    assert!(world.submit(1, one, Quality::of(500_000, 10)).is_err());
    world.pass(1);
    assert_eq!(status(&world).left, 1);
    world.submit(1, one, Quality::of(500_000, 10)).unwrap();
    assert!(world.submit(1, one, Quality::of(500_000, 11)).is_err());
}

#[test]
fn a_fee_is_paid_once_and_comes_back_when_screening_rejects() {
    let mut world = World::new(5);
    let id =
        world.open(&SPEC.replace(
            "[judges]",
            "[fee]\namount = 100\ncurrency = \"test\"\npay_to = \"account 7\"\n[judges]",
        ));
    world.judges(3);
    world.pass(HOUR);
    let receipt = Hash::of(b"payment");
    let (payer, small) = (key(1).node_id(), Hash::of(b"small"));
    let submit = |world: &mut World, entrant, number, receipt| {
        world.submit_with(entrant, id, Quality::of(500_000, number), vec![], receipt)
    };
    let refused = submit(&mut world, 1, 1, None).unwrap_err();
    assert!(matches!(refused, Refusal::Fee { amount: 100, .. }));
    assert_eq!(refused.to_string(), "this entry costs 100: no receipt given; pay to account 7");
    assert!(matches!(submit(&mut world, 1, 1, Some(receipt)), Err(Refusal::Fee { .. })));
    world.control(Control::Paid { receipt, payer, amount: 100 }).unwrap();
    world.control(Control::Paid { receipt: small, payer, amount: 99 }).unwrap();
    let twice = Control::Paid { receipt, payer, amount: 500 };
    assert!(matches!(world.control(twice), Err(Refusal::Repeated { .. })));
    assert!(matches!(submit(&mut world, 1, 1, Some(small)), Err(Refusal::Fee { .. })));
    assert!(matches!(submit(&mut world, 2, 1, Some(receipt)), Err(Refusal::Fee { .. })), "another's");
    let quality = Quality { failure: Some(Failure::Forbidden), ..Quality::of(500_000, 1) };
    let entry = world.submit_with(1, id, quality, vec![], Some(receipt)).unwrap();
    assert_eq!(world.state.receipt(&receipt).unwrap().used_by, Some(entry));
    assert!(matches!(submit(&mut world, 1, 2, Some(receipt)), Err(Refusal::Fee { .. })), "used");
    world.play_round(id);
    assert_eq!(world.state.entry(entry).unwrap().state.name(), "rejected");
    let unused: Vec<Hash> = world.state.unused_receipts(payer).map(|(receipt, _)| *receipt).collect();
    assert!(unused.contains(&receipt));
    let good = submit(&mut world, 1, 3, Some(receipt)).unwrap();
    world.play_round(id);
    assert!(world.state.entry(good).unwrap().scoring().is_some());
    assert!(matches!(submit(&mut world, 1, 4, Some(receipt)), Err(Refusal::Fee { .. })), "spent");
    world.verify();
}
