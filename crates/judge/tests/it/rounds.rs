//! Whole rounds: sealed entries, a pool named after close, blind verdicts of judges, a champion.

use arena::measure::Failure;
use arena::spec::{ArenaSpec, CompetitionSpec, Form, Kind};
use arena::state::EntryState;
use shoal_judge::baseline::{named, zstd};
use shoal_judge::local::LocalArena;
use shoal_judge::{Abilities, Case, Code};
use wire::{Hash, Millis, SigningKey};

use super::bench::{inputs, judge, packed};

const SPEC: &str = r#"
name = "matrix-compression"
kind = "codec"
[rule]
name = "apex-2026-01-13"
[schedule]
start = "2026-01-13T00:00:00Z"
every_s = 7200
rounds = 1
pool_s = 600
opening_s = 600
judging_s = 3600
[inputs]
source = "pool"
items = 4
operator_share_ppm = 1000000
[resources]
fuel = 4000000000
[baseline]
name = "zstd-3"
"#;

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn abilities() -> Abilities {
    Abilities { kinds: vec![Kind::Codec], forms: vec![Form::Component], leases: 2 }
}

#[test]
fn the_best_codec_leads_and_every_judge_finds_what_eval_finds() {
    let judge = judge();
    let now = Millis(1_768_262_400_000);
    let arena = ArenaSpec::parse("name = \"test\"").unwrap();
    let mut local = LocalArena::new(&arena, &key(1), now).unwrap();
    for number in 0..3 {
        local.admit(key(10 + number), &format!("operator {number}"), abilities()).unwrap();
    }
    let code = local.keep(zstd().component);
    let text = format!("{SPEC}code = \"{code}\"\nbytes = {}\n", zstd().component.len());
    let spec = CompetitionSpec::parse(&text).unwrap();
    let opener = key(2);
    let id = local.open(&opener, &spec).unwrap();
    let component = |name| named(name).unwrap().component;
    let huffman = local.submit(&key(3), id, Form::Component, component("huffman")).unwrap();
    let lossy = local.submit(&key(4), id, Form::Component, component("uniform-99")).unwrap();
    let broken =
        local.submit(&key(5), id, Form::Component, &packed("", "(unreachable)", "(unreachable)")).unwrap();
    let copy = local.submit(&key(6), id, Form::Component, component("huffman")).unwrap();
    let mut verdicts = Vec::new();
    local
        .play(
            &judge,
            id,
            &opener,
            || Ok(inputs(6)),
            |bound| {
                verdicts.push((
                    bound.judge,
                    bound.task.entry,
                    bound.task.clone(),
                    bound.evaluation.verdict.clone(),
                ));
            },
        )
        .unwrap();
    local.verify().unwrap();
    let competition = local.state().competition(&id).unwrap();
    let summary = competition.summaries.back().unwrap();
    assert_eq!(summary.void, None);
    assert_eq!(summary.items.len(), 4);
    assert_eq!(competition.champion.map(|champion| champion.entry), Some(lossy), "{summary:#?}");
    let state = |entry| local.state().entry(entry).unwrap().state;
    assert!(matches!(state(huffman), EntryState::Scored(_)));
    assert_eq!(state(broken), EntryState::Failed(Failure::Trap));
    assert_eq!(state(copy), EntryState::Copy { of: huffman });
    // The winner and the baseline went before three judges, others before two; all found the same.
    let count = |entry| verdicts.iter().filter(|(_, of, _, _)| *of == entry).count();
    assert_eq!((count(lossy), count(huffman), count(broken)), (3, 2, 2));
    for (_, entry, _, verdict) in &verdicts {
        let first = verdicts.iter().find(|(_, of, _, _)| of == entry).unwrap();
        assert_eq!(first.3.outcome, verdict.outcome);
    }
    // Anybody evaluates the same entry on the round's inputs, now public, and finds the same.
    let (_, _, task, verdict) = verdicts.iter().find(|(_, of, _, _)| *of == lossy).unwrap();
    let pool = inputs(6);
    let items: Vec<_> = task
        .items
        .iter()
        .map(|hash| pool.iter().find(|input| input.hash == *hash).unwrap().clone())
        .collect();
    let case = Case {
        spec: &spec,
        seed: Hash::of(b"not the round's"),
        entry: Code { form: Form::Component, bytes: component("uniform-99") },
        baseline: None,
        reference: None,
        environment: None,
    };
    assert_eq!(judge.evaluate(&case, &items).unwrap().verdict.outcome, verdict.outcome);
}
