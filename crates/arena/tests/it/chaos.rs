//! Any interleaving: statements in any order, at any time, repeated, garbled, by anybody. The world checks after each
//! block that no entry is judged twice or changes after its end, no round ends twice or has two winners, weights add up
//! to one and nothing is shown before its gate; at the end the log folds to the same state.

use shoal_arena::Fold as _;
use std::collections::BTreeSet;

use proptest::prelude::*;
use shoal_arena::measure::Failure;
use shoal_arena::record::{Control, Derived, Input, LeaseId, PoolItem, Record, RoundNumber, Statement};
use shoal_arena::spec::CompetitionId;
use wire::{Envelope, Hash, Millis};

use super::world::{Manner, Quality, SPEC, World, key, owner};

const MINUTE: u64 = 60_000;

fn spec_of(world: &mut World, number: u64) -> String {
    let baseline = Quality::of(800_000, 0).code();
    let pool = world.random.percent(40);
    let mut text = SPEC
        .replace("\"matrix\"", &format!("\"chaos-{number}\""))
        .replace(
            "every_s = 3600",
            &format!("every_s = {}\nrounds = {}", 3600 + world.random.below(3600), world.random.below(6)),
        )
        .replace("items = 16", if pool { "items = 8\nsource = \"pool\"" } else { "items = 8" })
        .replace(
            "per_round_max = 100",
            &format!("per_round_max = 100\nlatest_only = {}", world.random.percent(30)),
        );
    match world.random.below(3) {
        0 => text.push_str("agree = 1\ntakeover = 1\nmax = 3\n"),
        1 => text.push_str("agree = 2\ntakeover = 2\nmax = 2\n"),
        _ => {}
    }
    if world.random.percent(50) {
        text += "[baseline]\nname = \"b\"\ncode = \"";
        text += &baseline.to_string();
        text += "\"\n";
    }
    if world.random.percent(60) {
        text.push_str("[reward]\nweight_ppm = 300000\nsplit_ppm = [600000, 300000]\nlineage_ppm = 200000\n");
    }
    if world.random.percent(50) {
        text.push_str("[rule]\nname = \"apex-2026-01-13\"\n");
    }
    text
}

fn any_competition(world: &mut World) -> Option<CompetitionId> {
    let ids: Vec<CompetitionId> = world.state.competitions().keys().copied().collect();
    let at = world.random.below(ids.len() as u64) as usize;
    ids.get(at).copied()
}

/// One thing that somebody does. Whether it is refused does not matter; the world checks what it changes.
fn step(world: &mut World, competitions: &mut u64) {
    match world.random.below(100) {
        0..=2 if *competitions < 4 => {
            *competitions += 1;
            let text = spec_of(world, *competitions);
            let by = if world.random.percent(70) { owner() } else { key(1) };
            let _ = world.open_by(&by, &text);
        }
        0..=29 => {
            let Some(id) = any_competition(world) else { return };
            // Few different codes, so that somebody copies.
            let variant = world.random.below(60);
            let size = 300_000 + variant * 37 % 50 * 10_000;
            let entrant = world.random.below(8);
            let parents = world.state.entries().iter().rev().find(|entry| entry.scoring().is_some());
            let parents =
                parents.map(|entry| vec![entry.id]).filter(|_| variant.is_multiple_of(3)).unwrap_or_default();
            let failure = variant.is_multiple_of(20).then_some(Failure::Trap);
            let quality = Quality { failure, ..Quality::of(size, variant) };
            let _ = world.submit_with(entrant, id, quality, parents, None);
        }
        30..=44 => {
            if world.random.percent(40) {
                world.unseal();
            } else if !world.sealed.is_empty() {
                let at = world.random.below(world.sealed.len() as u64) as usize;
                world.unseal_one(at);
            }
        }
        45..=69 => {
            let ids: Vec<_> = world.judges.keys().copied().collect();
            let at = world.random.below(ids.len() as u64) as usize;
            for _ in 0..=world.random.below(6) {
                world.act(ids[at]);
            }
        }
        70..=74 => {
            let Some(id) = any_competition(world) else { return };
            let rounds: Vec<RoundNumber> =
                world.state.competition(&id).unwrap().live.keys().copied().collect();
            let base = world.random.next();
            let mut items: Vec<PoolItem> = (0..40_u64)
                .map(|n| PoolItem {
                    hash: Hash::of(&(base ^ n).to_le_bytes()),
                    operator: key(n % 6).node_id(),
                })
                .collect();
            items.sort();
            for round in rounds {
                let _ =
                    world.say(&owner(), &Statement::Pool { competition: id, round, items: items.clone() });
            }
        }
        75..=76 => {
            let ids: Vec<_> = world.judges.keys().copied().collect();
            let at = world.random.below(ids.len() as u64) as usize;
            let manners = [Manner::Honest, Manner::Honest, Manner::Lies, Manner::Hides, Manner::Dead];
            let manner = manners[world.random.below(5) as usize];
            let judge = world.judges.get_mut(&ids[at]).unwrap();
            judge.manner = manner;
            judge.bound.clear();
        }
        77 => {
            let judge = key(2_000_000 + world.random.below(4)).node_id();
            let operator = format!("house {}", world.random.below(3));
            let dismissed = world.random.percent(50);
            let control =
                if dismissed { Control::Dismissed { judge } } else { Control::Admitted { judge, operator } };
            let _ = world.control(control);
        }
        78 => {
            let longest = if world.random.percent(20) { 90 * MINUTE } else { MINUTE };
            let down = Millis(world.random.below(longest));
            world.now = world.now.plus(down);
            world.control(Control::Resumed { down }).unwrap();
        }
        79 => {
            if world.random.percent(10)
                && let Some(id) = any_competition(world)
            {
                let _ = world.say(&owner(), &Statement::End { competition: id });
            }
        }
        80..=84 => replay(world),
        85..=89 => garble(world),
        _ => {
            let longest = [MINUTE / 6, 2 * MINUTE, 40 * MINUTE][world.random.below(3) as usize];
            let ms = world.random.below(longest);
            // Mostly no further than to the next thing that happens by itself: steps of a round are short.
            let next = world.state.next_deadline(world.now).map_or(ms, |at| at.since(world.now).0);
            let soon = world.random.percent(80);
            world.pass(if soon { next.min(4 * longest) } else { ms });
        }
    }
}

/// What was accepted once is never accepted again, and changes nothing.
fn replay(world: &mut World) {
    if world.statements.is_empty() {
        return;
    }
    let at = world.random.below(world.statements.len() as u64) as usize;
    let old = world.statements[at].clone();
    world.pass(0);
    let settled = world.state.competitions().clone();
    assert!(world.input(Input::Stated(old)).is_err());
    assert_eq!(world.state.competitions(), &settled);
}

/// A statement with some bits changed, signed by somebody who may or may not say it.
fn garble(world: &mut World) {
    if world.statements.is_empty() {
        return;
    }
    let at = world.random.below(world.statements.len() as u64) as usize;
    let old = world.statements[at].clone();
    let mut body = old.body.clone();
    for _ in 0..=world.random.below(2) {
        let at = world.random.below(body.len() as u64) as usize;
        body[at] ^= 1 << world.random.below(8);
    }
    let signer = [owner(), key(1), key(2_000_000), key(77)][world.random.below(4) as usize].clone();
    let Ok(statement) = wire::from_bytes::<Statement>(&body) else {
        let nonce = world.random.next() | 1 << 60;
        let envelope = Envelope::sign(&signer, world.run, 2, body, world.now, nonce);
        assert!(world.input(Input::Stated(envelope)).is_err());
        return;
    };
    let _ = world.say(&signer, &statement);
}

/// Lets whatever is under way come to its end, with honest judges.
fn finish(world: &mut World) {
    for competition in world.state.competitions().keys().copied().collect::<Vec<_>>() {
        let _ = world.say(&owner(), &Statement::End { competition });
    }
    for number in 0..4 {
        let judge = key(2_000_000 + number).node_id();
        let _ = world.control(Control::Admitted { judge, operator: format!("own house {number}") });
    }
    for judge in world.judges.values_mut() {
        judge.manner = Manner::Honest;
    }
    for _ in 0..20 {
        world.pass(15 * MINUTE);
        world.unseal();
        world.settle();
    }
}

/// Plays a seed to its end; every entry came to one, no lease is left, every competition is over.
pub(crate) fn play(seed: u64, steps: u32) -> World {
    let mut world = World::new(seed);
    world.judges(4);
    world.pass(59 * MINUTE);
    let mut competitions = 0;
    for _ in 0..2 {
        competitions += 1;
        let text = spec_of(&mut world, competitions);
        let _ = world.open_by(&owner(), &text);
    }
    for _ in 0..steps {
        step(&mut world, &mut competitions);
    }
    finish(&mut world);
    for entry in world.state.entries() {
        assert!(entry.state.is_final(), "seed {seed} entry {} is {:?}", entry.id, entry.state);
    }
    assert!(world.state.leases().is_empty());
    assert!(world.state.competitions().values().all(|found| found.completed_at.is_some()));
    world.verify();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 0, ..ProptestConfig::default() })]
    #[test]
    fn any_interleaving_keeps_the_promises(seed: u64, steps in 50_u32..400) {
        play(seed, steps);
    }
}

/// The interleavings are no empty play: nearly every end of an entry and of a round is among them (a dispute is rare).
#[test]
fn interleavings_reach_every_end() {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for seed in 0..30 {
        let world = play(seed, 400);
        seen.extend(world.state.entries().iter().map(|entry| entry.state.name().to_owned()));
        for record in world.log.iter().flat_map(|(_, records)| records) {
            match record {
                Record::Derived(Derived::RoundCompleted { takeover, .. }) => {
                    seen.insert(format!("takeover {}", takeover.is_some()));
                }
                Record::Derived(Derived::RoundVoid { reason, .. }) => {
                    seen.insert(format!("{reason:?}"));
                }
                other => {
                    seen.insert(other.name().to_owned());
                }
            }
        }
    }
    for end in [
        "scored",
        "failed",
        "copy",
        "stale",
        "unopened",
        "replaced",
        "takeover true",
        "takeover false",
        "NoEntries",
        "NoPool",
        "NoJudges",
        "Referred",
        "Compared",
        "Expired",
        "Dismissed",
        "Resumed",
    ] {
        assert!(seen.contains(end), "{end} is not in {seen:?}");
    }
}

#[test]
fn a_lease_that_never_was_is_nobodys() {
    let mut world = World::new(1);
    world.judges(1);
    for lease in [0, 1, u64::MAX] {
        let said = Statement::Judged { lease: LeaseId(lease), seal: Hash([0; 32]) };
        assert!(world.say(&key(2_000_000), &said).is_err());
    }
}
