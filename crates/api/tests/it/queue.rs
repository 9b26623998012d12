//! A thousand queued entries, two judges, one of them killed at random: each entry is judged once in effect, none is lost.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use arena::record::{Derived, EntryId, Record, Statement, entry_seal};
use arena::spec::Form;
use arena::state::{EntryState, Signatures};
use ledger::LogReader;
use shoal_api::model::EventKind;
use wire::Hash;

use super::world::{World, code, key, within};

const ENTRIES: u64 = 1000;
const ENTRANTS: u8 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_entries_and_a_killed_judge() {
    let mut world = World::start("rate_entries = 1000", &[1, 2]).await;
    let id = world.competition("queue", 6, 60, "agree = 1\ntakeover = 1\nmax = 2\nlease_s = 3").await;
    // Nonces are bound while the round is open.
    let (first, second) = (world.judge(1, 32).await, world.judge(2, 32).await);
    let mut opened: BTreeMap<u8, Vec<Statement>> = BTreeMap::new();
    for entrant in 0..ENTRANTS {
        let (seed, client) = (50 + entrant, world.client(50 + entrant).await);
        let code = code(b'1' + entrant % 8, u64::from(entrant));
        let (hash, bytes) = (Hash::of(&code), code.len() as u64);
        let salts: Vec<Hash> =
            (0..ENTRIES / u64::from(ENTRANTS)).map(|n| Hash::of(&[seed, n as u8])).collect();
        let seal = |salt: &Hash| entry_seal(&id, &key(seed).node_id(), Form::Component, &hash, bytes, salt);
        let submits: Vec<Statement> = salts
            .iter()
            .map(|salt| Statement::Submit {
                competition: id,
                seal: seal(salt),
                form: Form::Component,
                parents: Vec::new(),
                receipt: None,
            })
            .collect();
        let answers = client.state_all(&submits).await.unwrap();
        let ids: Vec<u64> =
            answers.into_iter().map(|answer| answer.unwrap().submission_id.unwrap()).collect();
        let target = format!("/v1/submissions/{}/code?salt={}", ids[0], salts[0]);
        client.upload(&target, code).await.unwrap();
        let unseal = |(entry, salt): (&u64, &Hash)| Statement::Unseal {
            entry: EntryId(*entry),
            code: hash,
            bytes,
            salt: *salt,
        };
        opened.insert(seed, ids.iter().zip(&salts).map(unseal).collect());
    }
    let watcher = world.stranger().await;
    let mut events = watcher.events(None, None, Some(0));
    within(async { while events.next().await.unwrap().text.as_deref() != Some("opening") {} }).await;
    for (seed, statements) in opened {
        let client = world.client(seed).await;
        for answer in client.state_all(&statements).await.unwrap() {
            // The first of each was entrusted to the host, which may be faster.
            assert!(
                answer.is_ok()
                    || answer.is_err_and(|error| matches!(error.reason(), Some("refused" | "repeated")))
            );
        }
    }
    // One judge dies after a random number of leases, another time, with work in its hands.
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let die_after = 100 + u64::from(clock.subsec_nanos()) % 600;
    println!("the second judge dies after {die_after} leases");
    let mut leases = 0;
    within(async {
        while leases < die_after {
            leases += u64::from(events.next().await.unwrap().kind == EventKind::Leased);
        }
    })
    .await;
    second.kill().await;
    world.round_over(id).await;
    first.stop().await;

    let bytes = watcher.log().await.unwrap();
    let (state, _) = arena::verify::file::<arena::State>(&bytes, |_| Signatures::Trust).unwrap();
    let mut settled: BTreeMap<EntryId, u32> = BTreeMap::new();
    for block in LogReader::new(&bytes).unwrap() {
        for record in arena::verify::records(&block.unwrap().records).unwrap() {
            if let Record::Derived(Derived::Settled { entry, .. }) = record {
                *settled.entry(entry).or_default() += 1;
            }
        }
    }
    let scored = state.entries().iter().filter(|entry| matches!(entry.state, EntryState::Scored(_)));
    assert_eq!(scored.count() as u64, ENTRIES + 1, "all, and the baseline");
    assert_eq!(settled.len() as u64, ENTRIES + 1);
    assert!(settled.values().all(|times| *times == 1), "an entry was settled twice");
    world.stop().await;
}
