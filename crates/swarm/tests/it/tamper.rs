//! Logs that somebody changed: the replay names the first record that does not follow.

use ledger::file::{LogHeader, block_bytes};
use ledger::fold::Unfit;
use ledger::{Chain, LogError};
use shoal_swarm::State;
use shoal_swarm::record::{Control, Derived, Record, STATEMENT_KIND, Statement};
use shoal_swarm::refusal::Refusal;
use shoal_swarm::state::Signatures;
use shoal_swarm::verify::{self, FaultCause, Lie};
use wire::{Envelope, Millis, RunId, SigningKey};

use super::world::{Random, World, genesis, spec};

type Log = Vec<(Millis, Vec<Record>)>;

/// A run with a death and a late join, so that every kind of record is there.
fn honest(seed: u64) -> (RunId, Log) {
    let mut spec = spec(2, 2, 12);
    spec.miners_min = 3;
    let mut world = World::new(&spec, 6, seed);
    let mut ticks = 0;
    while world.tick_until_over() {
        ticks += 1;
        if ticks == 14 {
            let victim = world.living()[0];
            world.kill(&victim);
            world.add(77);
        }
    }
    world.verify(Signatures::Check);
    (world.run, world.log)
}

/// Where the replay stops: block, record, lie.
fn first_lie(run: RunId, log: &Log) -> Option<(usize, usize, Lie<State>)> {
    let mut state = match verify::start::<State>(run, log[0].0, &log[0].1) {
        Ok(state) => state,
        Err(lie) => return Some((0, lie.index(), lie)),
    };
    for (block, (time, records)) in log.iter().enumerate().skip(1) {
        if let Err(lie) = verify::replay(&mut state, *time, records) {
            return Some((block, lie.index(), lie));
        }
    }
    None
}

fn positions(log: &Log, wanted: impl Fn(&Record) -> bool) -> Vec<(usize, usize)> {
    let blocks = log.iter().enumerate().skip(1);
    blocks
        .flat_map(|(block, (_, records))| records.iter().enumerate().map(move |(index, r)| (block, index, r)))
        .filter(|(_, _, record)| wanted(record))
        .map(|(block, index, _)| (block, index))
        .collect()
}

fn derived(record: &Record) -> bool {
    matches!(record, Record::Derived(_))
}

fn pick(random: &mut Random, from: &[(usize, usize)], count: usize) -> Vec<(usize, usize)> {
    (0..count).map(|_| from[random.below(from.len() as u64) as usize]).collect()
}

#[test]
fn a_changed_derived_record_is_named() {
    let (run, log) = honest(1);
    assert_eq!(first_lie(run, &log), None);
    let mut random = Random(5);
    let mut tried = 0;
    for (block, index) in pick(&mut random, &positions(&log, derived), 120) {
        let mut bytes = wire::to_bytes(&log[block].1[index]);
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
        let Ok(changed) = wire::from_bytes::<Record>(&bytes) else { continue };
        if changed == log[block].1[index] || matches!(changed, Record::Control(_)) {
            continue;
        }
        let mut tampered = log.clone();
        tampered[block].1[index] = changed;
        let (found_block, found_index, lie) = first_lie(run, &tampered).expect("a lie");
        assert_eq!((found_block, found_index), (block, index), "{lie}");
        tried += 1;
    }
    assert!(tried > 60, "{tried}");
}

#[test]
fn a_dropped_inserted_or_repeated_derived_record_is_named() {
    let (run, log) = honest(2);
    let mut random = Random(6);
    let all = positions(&log, derived);
    for (block, index) in pick(&mut random, &all, 60) {
        let mut dropped = log.clone();
        let gone = dropped[block].1.remove(index);
        let (found_block, found_index, lie) = first_lie(run, &dropped).expect("a lie");
        assert_eq!((found_block, found_index), (block, index), "{lie}");

        let mut inserted = log.clone();
        let (other_block, other_index) = all[random.below(all.len() as u64) as usize];
        inserted[other_block].1.insert(other_index, gone.clone());
        let twice = first_lie(run, &inserted).expect("a lie");
        assert_eq!(twice.0, other_block, "{}", twice.2);
        assert!(twice.1 == other_index || twice.1 == other_index + 1, "{}", twice.2);
    }
}

#[test]
fn reordered_records_are_named() {
    let (run, log) = honest(3);
    let mut random = Random(7);
    let candidates: Vec<_> = positions(&log, |_| true)
        .into_iter()
        .filter(|(block, index)| {
            let records = &log[*block].1;
            records.get(index + 1).is_some_and(|next| derived(next) != derived(&records[*index]))
        })
        .collect();
    for (block, index) in pick(&mut random, &candidates, 60) {
        let mut tampered = log.clone();
        tampered[block].1.swap(index, index + 1);
        let (found_block, found_index, lie) = first_lie(run, &tampered).expect("a lie");
        assert_eq!(found_block, block, "{lie}");
        assert!(found_index == index || found_index == index + 1, "{lie}");
    }
}

#[test]
fn a_forged_or_replayed_statement_is_named() {
    let (run, log) = honest(4);
    let mut random = Random(8);
    let statements = positions(&log, |record| matches!(record, Record::Stated(_)));
    for (block, index) in pick(&mut random, &statements, 60) {
        let Record::Stated(envelope) = log[block].1[index].clone() else { panic!("not a statement") };
        let mut changed = envelope.clone();
        let at = random.below(changed.body.len() as u64) as usize;
        changed.body[at] ^= 1;
        let mut foreign = envelope.clone();
        let stranger = SigningKey::from_bytes(&[9; 32]);
        foreign.signature = stranger.sign(b"anything");
        for forged in [changed, foreign] {
            let mut tampered = log.clone();
            tampered[block].1[index] = Record::Stated(forged);
            let (found_block, found_index, lie) = first_lie(run, &tampered).expect("a lie");
            assert_eq!((found_block, found_index), (block, index));
            assert!(
                matches!(lie, Lie::Refused { refusal: Refusal::Unfit(Unfit::Envelope { .. }), .. }),
                "{lie}"
            );
        }
        // Said twice: at once, or at the end.
        for place in [block, log.len() - 1] {
            let mut tampered = log.clone();
            let end = tampered[place].1.len();
            tampered[place].1.insert(end, Record::Stated(envelope.clone()));
            let (found_block, found_index, lie) = first_lie(run, &tampered).expect("a lie");
            assert_eq!((found_block, found_index), (place, end), "{lie}");
            assert!(matches!(lie, Lie::Refused { .. }), "{lie}");
        }
    }
}

#[test]
fn a_dropped_statement_changes_every_seed_that_follows() {
    let (run, log) = honest(5);
    let last_seed =
        positions(&log, |r| matches!(r, Record::Derived(Derived::SetFixed { .. }))).pop().unwrap();
    let statements = positions(&log, |record| matches!(record, Record::Stated(_)));
    let early: Vec<_> = statements.into_iter().filter(|(block, _)| *block + 20 < last_seed.0).collect();
    let mut random = Random(9);
    for (block, index) in pick(&mut random, &early, 40) {
        let mut tampered = log.clone();
        tampered[block].1.remove(index);
        let (found, _, lie) = first_lie(run, &tampered).expect("a lie");
        assert!(found >= block && found <= last_seed.0, "{lie}");
    }
}

#[test]
fn time_genesis_and_foreign_runs_are_checked() {
    let (run, log) = honest(6);
    let mut back = log.clone();
    back[9].0 = Millis(back[8].0.0 - 1);
    assert!(matches!(first_lie(run, &back), Some((9, 0, Lie::Time { .. }))));

    let mut no_genesis = log.clone();
    no_genesis[0].1.remove(0);
    assert!(matches!(first_lie(run, &no_genesis), Some((0, 0, Lie::NoControl))));

    let mut other = spec(2, 2, 12);
    other.seed = 99;
    let (other_run, control) = genesis(&other);
    let mut swapped = log.clone();
    swapped[0].1[0] = Record::Control(control.clone());
    assert!(matches!(first_lie(run, &swapped), Some((0, 0, Lie::Genesis(_)))));
    assert!(matches!(first_lie(other_run, &log), Some((0, 0, Lie::Genesis(_)))));

    let mut again = log.clone();
    again[5].1.insert(0, Record::Control(control));
    let found = first_lie(run, &again).unwrap();
    assert_eq!((found.0, found.1), (5, 0));
    assert!(matches!(found.2, Lie::Refused { refusal: Refusal::Begun, .. } | Lie::Differs { .. }));

    let mut drained = log.clone();
    let end = drained.len() - 1;
    drained[end].1.push(Record::Control(Control::Drain));
    assert!(matches!(first_lie(run, &drained), Some((_, _, Lie::Refused { .. }))));
}

#[test]
fn a_statement_of_another_run_is_refused() {
    let (run, log) = honest(7);
    let stranger = SigningKey::from_bytes(&[3; 32]);
    let body = wire::to_bytes(&Statement::Heartbeat);
    let envelope = Envelope::sign(&stranger, RunId([1; 32]), STATEMENT_KIND, body, log[3].0, 1);
    let mut tampered = log.clone();
    let end = tampered[3].1.len();
    tampered[3].1.push(Record::Stated(envelope));
    let (block, index, lie) = first_lie(run, &tampered).unwrap();
    assert_eq!((block, index), (3, end));
    assert!(matches!(lie, Lie::Refused { refusal: Refusal::Unfit(Unfit::Envelope { .. }), .. }));
}

/// The same log as a file: the signed chain around it.
fn file_of(run: RunId, log: &Log, key: &SigningKey) -> (Vec<u8>, Vec<usize>) {
    let mut chain = Chain::genesis(run, key.node_id());
    let mut bytes = LogHeader { run, orchestrator: key.node_id() }.to_bytes();
    let mut starts = Vec::new();
    for (time, records) in log {
        let records = records.iter().map(wire::to_bytes).collect();
        starts.push(bytes.len());
        bytes.extend(block_bytes(&chain.append(key, *time, records).unwrap()));
    }
    (bytes, starts)
}

#[test]
fn a_log_file_verifies_and_any_flipped_bit_in_it_is_found() {
    let (run, log) = honest(8);
    let orchestrator = SigningKey::from_bytes(&[255; 32]);
    let (bytes, starts) = file_of(run, &log, &orchestrator);
    let (state, chain) = verify::file::<State>(&bytes, |_| Signatures::Check).unwrap();
    assert_eq!(state.orchestrator(), chain.orchestrator());
    assert_eq!(chain.next_seq().0, log.len() as u64);

    let mut random = Random(3);
    for _ in 0..60 {
        let mut flipped = bytes.clone();
        let at = random.below(bytes.len() as u64) as usize;
        flipped[at] ^= 1 << random.below(8);
        let fault = verify::file::<State>(&flipped, |_| Signatures::Trust).unwrap_err();
        let block = starts.iter().rposition(|start| *start <= at).unwrap_or(0) as u64;
        assert_eq!(fault.position.seq.0, block, "byte {at}: {fault}");
    }
    let torn = verify::file::<State>(&bytes[..bytes.len() - 3], |_| Signatures::Trust).unwrap_err();
    assert!(matches!(torn.cause, FaultCause::File(LogError::Torn { .. })));
    assert_eq!(torn.position.seq.0, log.len() as u64 - 1);

    // A lie that the orchestrator signs is a lie all the same.
    let mut tampered = log.clone();
    let (block, index) = *positions(&log, derived).last().unwrap();
    tampered[block].1.remove(index);
    let (bytes, _) = file_of(run, &tampered, &orchestrator);
    let fault = verify::file::<State>(&bytes, |_| Signatures::Trust).unwrap_err();
    assert!(matches!(fault.cause, FaultCause::Lie(_)), "{fault}");
    assert_eq!((fault.position.seq.0 as usize, fault.position.index as usize), (block, index));

    // Another key than the genesis names.
    let (bytes, _) = file_of(run, &log, &SigningKey::from_bytes(&[8; 32]));
    let fault = verify::file::<State>(&bytes, |_| Signatures::Trust).unwrap_err();
    assert_eq!(fault.cause, FaultCause::Owner);
}
