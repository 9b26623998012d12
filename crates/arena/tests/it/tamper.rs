//! Logs that somebody changed: the replay names the first record that does not follow.

use ledger::Chain;
use ledger::file::{LogHeader, block_bytes};
use ledger::fold::Unfit;
use shoal_arena::State;
use shoal_arena::record::{Control, Derived, Record};
use shoal_arena::refusal::Refusal;
use shoal_arena::state::Signatures;
use shoal_arena::verify::{self, FaultCause, Lie};
use wire::{Millis, RunId, SigningKey};

use super::world::{HOUR, Manner, Quality, Random, SPEC, World, key};

type Log = Vec<(Millis, Vec<Record>)>;

/// Two rounds with a liar, a dispute over time and a takeover, so that every kind of record is there.
fn honest(seed: u64) -> (RunId, Log) {
    let mut world = World::new(seed);
    let id = world.open(&SPEC.replace("every_s = 3600", "every_s = 3600\nrounds = 3"));
    world.judges(3);
    world.judge(3, Manner::Lies);
    world.judge(4, Manner::Hides);
    world.pass(HOUR);
    for number in 0..4 {
        world.submit(number, id, Quality::of(500_000 - 1000 * number, number)).unwrap();
    }
    world.play_round(id);
    world.submit(1, id, Quality::of(400_000, 9)).unwrap();
    world.play_round(id);
    world.pass(3 * HOUR);
    world.verify();
    (world.run, world.log)
}

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
        .flat_map(|(block, (_, records))| {
            records.iter().enumerate().map(move |(index, record)| (block, index, record))
        })
        .filter(|(_, _, record)| wanted(record))
        .map(|(block, index, _)| (block, index))
        .collect()
}

fn derived(record: &Record) -> bool {
    matches!(record, Record::Derived(_))
}

#[test]
fn every_kind_of_derived_record_is_in_the_log_and_a_changed_one_is_named() {
    let (run, log) = honest(1);
    assert_eq!(first_lie(run, &log), None);
    let kinds: std::collections::BTreeSet<&str> = log
        .iter()
        .flat_map(|(_, records)| records)
        .filter(|record| derived(record))
        .map(Record::name)
        .collect();
    for kind in [
        "RoundOpened",
        "Advanced",
        "InputsFixed",
        "Leased",
        "Expired",
        "VerdictsDue",
        "Referred",
        "Settled",
        "Compared",
        "RoundCompleted",
        "RoundVoid",
        "Completed",
    ] {
        assert!(kinds.contains(kind), "{kind} is not in {kinds:?}");
    }
    let mut random = Random(5);
    let mut tried = 0;
    for (block, index) in positions(&log, derived) {
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
    assert!(tried > 40, "{tried}");
}

#[test]
fn a_dropped_or_repeated_record_is_named() {
    let (run, log) = honest(2);
    for (block, index) in positions(&log, derived) {
        let mut dropped = log.clone();
        let gone = dropped[block].1.remove(index);
        let (found_block, found_index, lie) = first_lie(run, &dropped).expect("a lie");
        assert_eq!((found_block, found_index), (block, index), "{lie}");
        let mut twice = log.clone();
        twice[block].1.insert(index, gone);
        let (found_block, found_index, lie) = first_lie(run, &twice).expect("a lie");
        assert_eq!((found_block, found_index), (block, index + 1), "{lie}");
    }
    let statements = positions(&log, |record| matches!(record, Record::Stated(_)));
    for (block, index) in statements.iter().copied().step_by(3) {
        let Record::Stated(envelope) = log[block].1[index].clone() else { panic!("not a statement") };
        let mut changed = envelope.clone();
        changed.body[0] ^= 1;
        let mut tampered = log.clone();
        tampered[block].1[index] = Record::Stated(changed);
        let (found_block, found_index, lie) = first_lie(run, &tampered).expect("a lie");
        assert_eq!((found_block, found_index), (block, index));
        assert!(matches!(lie, Lie::Refused { refusal: Refusal::Unfit(Unfit::Envelope { .. }), .. }), "{lie}");
        for place in [block, log.len() - 1] {
            let mut tampered = log.clone();
            let end = tampered[place].1.len();
            tampered[place].1.push(Record::Stated(envelope.clone()));
            let (found_block, found_index, lie) = first_lie(run, &tampered).expect("a lie");
            assert_eq!((found_block, found_index), (place, end), "{lie}");
        }
    }
}

#[test]
fn a_champion_that_the_host_invents_is_a_lie() {
    let (run, log) = honest(3);
    let ends = positions(&log, |record| matches!(record, Record::Derived(Derived::RoundCompleted { .. })));
    for (block, index) in ends {
        let mut tampered = log.clone();
        let Record::Derived(Derived::RoundCompleted { takeover, champion, .. }) =
            &mut tampered[block].1[index]
        else {
            panic!("not an end")
        };
        let invented = takeover.map_or(Some(shoal_arena::record::EntryId(0)), |_| None);
        (*takeover, *champion) = (invented, invented);
        let (found_block, found_index, lie) = first_lie(run, &tampered).expect("a lie");
        assert_eq!((found_block, found_index), (block, index));
        assert!(matches!(lie, Lie::Differs { .. }));
    }
}

fn file_of(run: RunId, log: &Log, signer: &SigningKey) -> Vec<u8> {
    let mut chain = Chain::genesis(run, signer.node_id());
    let mut bytes = LogHeader { run, orchestrator: signer.node_id() }.to_bytes();
    for (time, records) in log {
        let records = records.iter().map(wire::to_bytes).collect();
        bytes.extend(block_bytes(&chain.append(signer, *time, records).unwrap()));
    }
    bytes
}

#[test]
fn a_log_file_verifies_by_the_same_ledger() {
    let (run, log) = honest(4);
    let bytes = file_of(run, &log, &key(255));
    let (state, chain) = verify::file::<State>(&bytes, |_| Signatures::Check).unwrap();
    assert_eq!(state.host(), chain.orchestrator());
    assert_eq!(chain.next_seq().0, log.len() as u64);
    let mut random = Random(3);
    for _ in 0..30 {
        let mut flipped = bytes.clone();
        let at = random.below(bytes.len() as u64) as usize;
        flipped[at] ^= 1 << random.below(8);
        verify::file::<State>(&flipped, |_| Signatures::Trust).unwrap_err();
    }
    // Another host than the genesis names; a lie that the host signs.
    let fault = verify::file::<State>(&file_of(run, &log, &key(8)), |_| Signatures::Trust).unwrap_err();
    assert_eq!(fault.cause, FaultCause::Owner);
    let mut tampered = log.clone();
    let (block, index) = *positions(&log, derived).last().unwrap();
    tampered[block].1.remove(index);
    let fault =
        verify::file::<State>(&file_of(run, &tampered, &key(255)), |_| Signatures::Trust).unwrap_err();
    assert!(matches!(fault.cause, FaultCause::Lie(_)), "{fault}");
    assert_eq!((fault.position.seq.0 as usize, fault.position.index as usize), (block, index));
}

#[test]
fn a_log_begins_with_its_own_arena() {
    let (run, log) = honest(5);
    let mut other = log.clone();
    other[0].1[0] =
        Record::Control(Control::Genesis { spec: "name = \"x\"".to_owned(), host: key(255).node_id() });
    assert!(matches!(first_lie(run, &other), Some((0, 0, Lie::Genesis(_)))));
    assert!(matches!(first_lie(RunId([3; 32]), &log), Some((0, 0, Lie::Genesis(_)))));
    let mut headless = log.clone();
    headless[0].1.remove(0);
    assert!(matches!(first_lie(run, &headless), Some((0, 0, Lie::NoControl))));
    let mut back = log.clone();
    back[5].0 = Millis(0);
    assert!(matches!(first_lie(run, &back), Some((5, 0, Lie::Time { .. }))));
}
