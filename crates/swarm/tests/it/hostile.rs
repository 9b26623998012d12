//! Statements that must be refused: each with a reason, and the state stays as it was.

use ledger::fold::Unfit;
use shoal_swarm::Fold;
use shoal_swarm::State;
use shoal_swarm::commit;
use shoal_swarm::record::{
    HaveShard, Input, Join, Outcome, Role, STATEMENT_KIND, ShardClaim, Statement, StepCommit, Traffic,
    UploadCommit, Verdict, Work, WorkItem,
};
use shoal_swarm::refusal::Refusal;
use shoal_swarm::state::{MergeStep, Phase};
use wire::{
    Direction, Envelope, Epoch, Hash, LeaseId, MicroBatch, Millis, NodeId, SigningKey, StageIndex, Step,
};

use super::world::{Random, World, garble, spec};

const HEAD: StageIndex = StageIndex(0);

/// What is wrong, and how it must be refused.
type Case<T> = (T, fn(&Refusal) -> bool);

/// Makes an honest report impossible.
type Change = Box<dyn Fn(&mut Work)>;

fn join() -> Join {
    Join {
        role: Role::Miner,
        address: vec![],
        agent: "a".into(),
        device: "cpu".into(),
        mflops: 1,
        memory: 0,
        stage: None,
    }
}

fn work(state: &State, id: &NodeId) -> Work {
    Work {
        epoch: state.work().epoch,
        seq: state.member(id).map_or(0, |member| member.next_report),
        items: vec![],
        steps: vec![],
        evidence: Hash::of(b""),
        busy: Millis(0),
        hops: vec![],
        traffic: Traffic::default(),
        free: 0,
    }
}

/// Says it, expects a refusal, and that nothing changed.
fn refused(world: &mut World, id: &NodeId, statement: &Statement) -> Refusal {
    let input = world.sign(id, statement);
    refused_input(world, &input)
}

fn refused_input(world: &mut World, input: &Input) -> Refusal {
    let before = world.state.clone();
    let refusal = world.state.accept(input).expect_err("refused");
    assert!(world.state == before, "{refusal} changed the state");
    assert_eq!(world.state.check(input), Err(refusal.clone()));
    let committed = commit::commit(&mut world.state, world.now, vec![input.clone()]);
    assert_eq!((committed.records, committed.outcomes), (vec![], vec![Err(refusal.clone())]));
    assert!(world.state == before);
    refusal
}

fn training() -> (World, NodeId, NodeId) {
    let mut spec = spec(2, 2, 12);
    spec.miners_min = 2;
    let mut world = World::new(&spec, 4, 3);
    while !matches!(world.state.phase(), Phase::Training { .. }) || world.state.leases().is_empty() {
        world.tick();
    }
    let head = world.state.members(HEAD).next().unwrap().node;
    let tail = world.state.members(StageIndex(1)).next().unwrap().node;
    (world, head, tail)
}

/// A world whose merge of stage 0 is at `step`, and a member of the set.
fn merging(step: MergeStep) -> (World, NodeId) {
    let mut spec = spec(1, 2, 24);
    spec.miners_min = 3;
    let mut world = World::new(&spec, 3, 5);
    while world.state.merge_step(HEAD) != Some(step) {
        world.tick();
    }
    let head = world.state.members(HEAD).next().unwrap().node;
    (world, head)
}

#[test]
fn envelopes_are_checked_before_their_bodies() {
    let (mut world, head, _) = training();
    let key = world.miners[&head].key.clone();
    let body = wire::to_bytes(&Statement::Heartbeat);
    let (now, run) = (world.now, world.run);
    let sign = |time, nonce| Envelope::sign(&key, run, STATEMENT_KIND, body.clone(), time, nonce);

    let mut forged = sign(now, 900);
    forged.body = wire::to_bytes(&Statement::Leave);
    assert!(matches!(
        refused_input(&mut world, &Input::Stated(forged)),
        Refusal::Unfit(Unfit::Envelope { .. })
    ));
    let other = Envelope::sign(&key, wire::RunId([1; 32]), STATEMENT_KIND, body.clone(), now, 900);
    assert!(matches!(
        refused_input(&mut world, &Input::Stated(other)),
        Refusal::Unfit(Unfit::Envelope { .. })
    ));
    let kind = Envelope::sign(&key, run, 77, body.clone(), now, 900);
    assert_eq!(refused_input(&mut world, &Input::Stated(kind)), Refusal::Unfit(Unfit::Kind { kind: 77 }));
    let old = sign(Millis(now.0 - 50_000), 1);
    assert!(matches!(refused_input(&mut world, &Input::Stated(old)), Refusal::Unfit(Unfit::NotNewer { .. })));
    let ahead = sign(Millis(now.0 + 1_000_000), 1);
    assert!(matches!(refused_input(&mut world, &Input::Stated(ahead)), Refusal::Unfit(Unfit::Stale { .. })));
    let trailing = Envelope::sign(&key, run, STATEMENT_KIND, [&body[..], &[0]].concat(), now, 900);
    assert!(matches!(
        refused_input(&mut world, &Input::Stated(trailing)),
        Refusal::Unfit(Unfit::Malformed { .. })
    ));

    let good = Input::Stated(sign(now, 900));
    world.state.accept(&good).unwrap();
    assert_eq!(refused_input(&mut world, &good), Refusal::Unfit(Unfit::Duplicate));
    let same_nonce = Envelope::sign(&key, run, STATEMENT_KIND, wire::to_bytes(&Statement::Leave), now, 900);
    assert!(matches!(
        refused_input(&mut world, &Input::Stated(same_nonce)),
        Refusal::Unfit(Unfit::NotNewer { .. })
    ));
}

#[test]
fn strangers_and_wrong_roles_are_refused() {
    let (mut world, head, tail) = training();
    world.add(500);
    let stranger = *world.miners.keys().find(|id| world.state.node(id).is_none()).unwrap();
    let epoch = world.state.epoch();
    for statement in [
        Statement::Heartbeat,
        Statement::Leave,
        Statement::Work(work(&world.state, &stranger)),
        Statement::LeaseRequest { epoch, want: 3 },
    ] {
        assert_eq!(refused(&mut world, &stranger, &statement), Refusal::NotPresent);
    }
    let held_out = Statement::HeldOut { epoch, loss: 1.0, tokens: 5 };
    assert_eq!(refused(&mut world, &head, &held_out), Refusal::WrongRole);
    assert_eq!(refused(&mut world, &tail, &Statement::LeaseRequest { epoch, want: 3 }), Refusal::NotHead);
    let next = Statement::LeaseRequest { epoch: Epoch(epoch.0 + 1), want: 3 };
    assert!(matches!(refused(&mut world, &head, &next), Refusal::WrongEpoch { .. }));
    let zero = Statement::LeaseRequest { epoch, want: 0 };
    assert!(matches!(refused(&mut world, &head, &zero), Refusal::Number { .. }));

    let cases: [Case<fn(&mut Join)>; 5] = [
        (|j| j.address = vec![0; 5000], |r| matches!(r, Refusal::OverLimit { .. })),
        (|j| j.agent = "x".repeat(500), |r| matches!(r, Refusal::OverLimit { .. })),
        (|j| j.device = "x".repeat(500), |r| matches!(r, Refusal::OverLimit { .. })),
        (|j| j.stage = Some(StageIndex(9)), |r| matches!(r, Refusal::UnknownStage { .. })),
        (|j| j.memory = 1000, |r| matches!(r, Refusal::Memory { .. })),
    ];
    for (change, expected) in cases {
        let mut bad = join();
        change(&mut bad);
        let refusal = refused(&mut world, &stranger, &Statement::Join(bad));
        assert!(expected(&refusal), "{refusal}");
    }
}

#[test]
fn impossible_work_is_refused() {
    let (mut world, head, tail) = training();
    let id = *world.state.paths().keys().next().unwrap();
    let accumulate = world.state.member(&head).unwrap().member.accumulate as usize;
    let item = WorkItem {
        micro_batch: id,
        lease: LeaseId(0),
        direction: Direction::Backward,
        version: 0,
        loss: None,
    };
    let steps = world.state.member(&head).unwrap().steps;
    let step = StepCommit {
        step: Step(steps),
        items: vec![(id, LeaseId(0)); accumulate],
        clip: 1.0,
        weights_root: None,
    };
    let with_step = |change: fn(&mut StepCommit)| -> Change {
        let mut step = step.clone();
        change(&mut step);
        Box::new(move |w| w.steps = vec![step.clone()])
    };
    let cases: Vec<Case<Change>> = vec![
        (Box::new(|w| w.epoch.0 += 1), |r| matches!(r, Refusal::WrongEpoch { .. })),
        (Box::new(|w| w.seq += 1), |r| matches!(r, Refusal::OutOfTurn { .. })),
        (Box::new(move |w| w.items = vec![item; 5000]), |r| matches!(r, Refusal::OverLimit { .. })),
        (Box::new(move |w| w.items = vec![WorkItem { micro_batch: MicroBatch(u64::MAX), ..item }]), |r| {
            matches!(r, Refusal::UnknownMicroBatch { .. })
        }),
        (Box::new(move |w| w.items = vec![WorkItem { loss: Some(1.0), ..item }]), |r| {
            matches!(r, Refusal::Number { .. })
        }),
        (with_step(|s| s.step.0 += 1), |r| matches!(r, Refusal::StepOutOfTurn { .. })),
        (with_step(|s| s.items.truncate(s.items.len() - 1)), |r| matches!(r, Refusal::StepSize { .. })),
        (with_step(|s| s.items.push(s.items[0])), |r| matches!(r, Refusal::StepSize { .. })),
        (with_step(|s| s.clip = f32::NAN), |r| matches!(r, Refusal::Number { .. })),
        (with_step(|s| s.clip = 0.0), |r| matches!(r, Refusal::Number { .. })),
        (with_step(|s| s.clip = 1.5), |r| matches!(r, Refusal::Number { .. })),
        (with_step(|s| s.items[0].0 = MicroBatch(1 << 40)), |r| {
            matches!(r, Refusal::UnknownMicroBatch { .. })
        }),
    ];
    for (index, (change, expected)) in cases.iter().enumerate() {
        let mut bad = work(&world.state, &head);
        change(&mut bad);
        let refusal = refused(&mut world, &head, &Statement::Work(bad));
        assert!(expected(&refusal), "case {index}: {refusal}");
    }
    for loss in [f32::NAN, f32::INFINITY, -1.0, 1e9] {
        let mut bad = work(&world.state, &tail);
        bad.items = vec![WorkItem { loss: Some(loss), ..item }];
        assert!(matches!(refused(&mut world, &tail, &Statement::Work(bad)), Refusal::Number { .. }));
    }
    let squares = Statement::Squares { epoch: world.state.epoch(), step: Step(0), sums: vec![1.0] };
    assert!(matches!(refused(&mut world, &head, &squares), Refusal::NotNow { .. }));
}

#[test]
fn work_that_is_not_the_senders_counts_nothing_and_strikes() {
    let (mut world, head, tail) = training();
    let (lease, view) = world.state.leases().iter().next().map(|(id, lease)| (*id, lease.clone())).unwrap();
    let thief = world.state.members(HEAD).map(|member| member.node).find(|node| *node != view.node).unwrap();
    let micro_batch = *view.micro_batches.first().unwrap();
    let item =
        |lease| WorkItem { micro_batch, lease, direction: Direction::Backward, version: 0, loss: None };
    let coverage = world.state.coverage();
    for (node, lease) in [(thief, lease), (tail, LeaseId(999)), (head, LeaseId(999))] {
        let mut theft = work(&world.state, &node);
        theft.items = vec![item(lease), item(lease)];
        let before = world.state.node(&node).unwrap().strikes;
        let input = world.sign(&node, &Statement::Work(theft));
        world.state.accept(&input).unwrap();
        assert_eq!(world.state.node(&node).unwrap().strikes, before + 2);
    }
    // Steps of cells that it never accumulated take a step and count nothing.
    let accumulate = world.state.member(&thief).unwrap().member.accumulate as usize;
    let mut empty = work(&world.state, &thief);
    let items = vec![(micro_batch, lease); accumulate];
    let step = Step(world.state.member(&thief).unwrap().steps);
    empty.steps = vec![StepCommit { step, items, clip: 1.0, weights_root: None }];
    let counted = world.state.member(&thief).unwrap().stepped;
    let input = world.sign(&thief, &Statement::Work(empty));
    world.state.accept(&input).unwrap();
    assert_eq!(world.state.member(&thief).unwrap().stepped, counted);
    let after = world.state.coverage();
    assert_eq!((after.accumulated, after.stepped), (coverage.accumulated, coverage.stepped));
}

#[test]
fn a_cell_is_accumulated_and_stepped_once() {
    let mut spec = spec(1, 1, 8);
    spec.inner_steps = 4;
    let mut world = World::new(&spec, 1, 1);
    while world.state.leases().is_empty() {
        world.tick();
    }
    let (lease, view) = world.state.leases().iter().next().map(|(id, lease)| (*id, lease.clone())).unwrap();
    let head = view.node;
    let accumulate = world.state.member(&head).unwrap().member.accumulate as usize;
    let own: Vec<_> = view.micro_batches.iter().copied().take(accumulate).collect();
    let mut good = work(&world.state, &head);
    good.items = own
        .iter()
        .map(|id| WorkItem {
            micro_batch: *id,
            lease,
            direction: Direction::Backward,
            version: 0,
            loss: Some(1.5),
        })
        .collect();
    let items: Vec<_> = own.iter().map(|id| (*id, lease)).collect();
    let commit = |step| StepCommit { step: Step(step), items: items.clone(), clip: 1.0, weights_root: None };
    good.steps = vec![commit(0), commit(1)];
    let input = world.sign(&head, &Statement::Work(good.clone()));
    world.state.accept(&input).unwrap();
    let member = world.state.member(&head).unwrap();
    assert_eq!((member.steps, member.stepped, member.surplus), (2, accumulate as u32, accumulate as u32));
    assert_eq!(world.state.loss(), Some(1.5));
    good.seq += 1;
    good.steps.clear();
    let input = world.sign(&head, &Statement::Work(good));
    world.state.accept(&input).unwrap();
    let member = world.state.member(&head).unwrap();
    assert_eq!((member.stepped, member.surplus), (accumulate as u32, 2 * accumulate as u32));
    assert_eq!(world.state.totals().tokens, accumulate as u64 * spec.tokens_per_micro_batch);
}

#[test]
fn merge_statements_out_of_their_step_are_refused() {
    let steps = [
        MergeStep::Commit,
        MergeStep::Reveal,
        MergeStep::Fetch,
        MergeStep::Claim,
        MergeStep::Check,
        MergeStep::Done,
    ];
    for step in steps {
        let (mut world, head) = merging(step);
        let zero = Hash([0; 32]);
        let epoch = Epoch(0);
        let claim = ShardClaim { shard: 0, result: zero, state: zero };
        let have = HaveShard { shard: 0, bitmap: 0, square_sums: vec![0.0; 3] };
        let upload =
            UploadCommit { epoch, base: zero, upload: zero, residual: zero, nonce_commit: zero, steps: 0 };
        let all = [
            (MergeStep::Commit, Statement::Upload(upload)),
            (MergeStep::Reveal, Statement::Reveal { epoch, nonce: zero }),
            (MergeStep::Fetch, Statement::Have { epoch, shards: vec![have] }),
            (MergeStep::Claim, Statement::Blind { epoch, hash: zero }),
            (MergeStep::Check, Statement::Claims { epoch, nonce: zero, shards: vec![claim] }),
            (MergeStep::Check, Statement::Holds { epoch, shards: vec![0] }),
        ];
        for (due, statement) in all {
            if due != step {
                let refusal = refused(&mut world, &head, &statement);
                assert!(matches!(refusal, Refusal::NotNow { .. }), "{statement:?} at {step:?}: {refusal}");
            }
        }
        for epoch in [Epoch(1), Epoch(7)] {
            let refusal = refused(&mut world, &head, &Statement::Holds { epoch, shards: vec![0] });
            assert!(matches!(refusal, Refusal::WrongEpoch { .. } | Refusal::NotNow { .. }), "{refusal}");
        }
    }
}

#[test]
fn impossible_uploads_and_reveals_are_refused() {
    let (mut world, _) = merging(MergeStep::Commit);
    let ids = world.living();
    while world.state.merge(HEAD).unwrap().commits.is_empty() {
        world.tick();
    }
    let committed = *world.state.merge(HEAD).unwrap().commits.keys().next().unwrap();
    let first = world.state.merge(HEAD).unwrap().commits[&committed].clone();
    let again = UploadCommit { upload: Hash::of(b"other"), ..first.clone() };
    assert!(matches!(refused(&mut world, &committed, &Statement::Upload(again)), Refusal::Repeated { .. }));
    let mut late = work(&world.state, &committed);
    let id = *world.state.paths().keys().next().unwrap();
    late.items = vec![WorkItem {
        micro_batch: id,
        lease: LeaseId(0),
        direction: Direction::Forward,
        version: 0,
        loss: None,
    }];
    assert!(matches!(refused(&mut world, &committed, &Statement::Work(late)), Refusal::NotNow { .. }));
    if let Some(other) = ids.iter().find(|id| !world.state.merge(HEAD).unwrap().commits.contains_key(id)) {
        let steps = world.state.member(other).unwrap().steps;
        if world.state.member(other).unwrap().stepped > 0 {
            let copied = UploadCommit { steps, ..first.clone() };
            assert_eq!(refused(&mut world, other, &Statement::Upload(copied)), Refusal::CopiedUpload);
            let wrong = UploadCommit { steps: steps + 1, upload: Hash::of(b"u"), ..first };
            assert!(matches!(refused(&mut world, other, &Statement::Upload(wrong)), Refusal::Length { .. }));
        }
    }
    let (mut world, head) = merging(MergeStep::Reveal);
    let wrong = Statement::Reveal { epoch: Epoch(0), nonce: Hash::of(b"wrong") };
    assert!(matches!(refused(&mut world, &head, &wrong), Refusal::WrongOpening { .. }));
}

#[test]
fn impossible_haves_blinds_and_claims_are_refused() {
    let (mut world, _) = merging(MergeStep::Fetch);
    let epoch = Epoch(0);
    let owner = world.state.owners(HEAD, 0)[0];
    let good = HaveShard { shard: 0, bitmap: 7, square_sums: vec![1.0; 3] };
    let mut other = good.clone();
    other.shard = (0..3).find(|shard| !world.state.owners(HEAD, *shard).contains(&owner)).unwrap();
    let cases: [Case<Vec<HaveShard>>; 10] = [
        (vec![], |r| matches!(r, Refusal::Length { .. })),
        (vec![good.clone(); 2], |r| matches!(r, Refusal::UnknownShard { .. })),
        (vec![HaveShard { shard: 99, ..good.clone() }], |r| matches!(r, Refusal::UnknownShard { .. })),
        (vec![good.clone(); 9], |r| matches!(r, Refusal::OverLimit { .. })),
        (vec![other], |r| matches!(r, Refusal::NotOwner { .. })),
        (vec![HaveShard { bitmap: 8, ..good.clone() }], |r| matches!(r, Refusal::Number { .. })),
        (vec![HaveShard { square_sums: vec![1.0; 2], ..good.clone() }], |r| {
            matches!(r, Refusal::Length { .. })
        }),
        (vec![HaveShard { square_sums: vec![f64::NAN; 3], ..good.clone() }], |r| {
            matches!(r, Refusal::Number { .. })
        }),
        (vec![HaveShard { square_sums: vec![-1.0; 3], ..good.clone() }], |r| {
            matches!(r, Refusal::Number { .. })
        }),
        (vec![HaveShard { bitmap: 3, ..good.clone() }], |r| matches!(r, Refusal::Number { .. })),
    ];
    for (index, (shards, expected)) in cases.into_iter().enumerate() {
        let refusal = refused(&mut world, &owner, &Statement::Have { epoch, shards });
        assert!(expected(&refusal), "case {index}: {refusal}");
    }

    let (mut world, _) = merging(MergeStep::Check);
    let merge = world.state.merge(HEAD).unwrap().clone();
    let waiting = (0..3_u16).find(|shard| merge.shards[usize::from(*shard)].claims.is_empty());
    let shard = waiting.expect("claims come one block later");
    let owner = world.state.owners(HEAD, shard)[0];
    let outsider = merge
        .set
        .iter()
        .map(|upload| upload.node)
        .find(|node| !world.state.owners(HEAD, shard).contains(node));
    let claim = ShardClaim { shard, result: Hash::of(b"x"), state: Hash::of(b"y") };
    let claims = |shards| Statement::Claims { epoch, nonce: Hash::of(b"n"), shards };
    assert!(matches!(refused(&mut world, &owner, &claims(vec![claim])), Refusal::WrongOpening { .. }));
    let foreign = refused(&mut world, &outsider.unwrap(), &claims(vec![claim]));
    assert!(matches!(foreign, Refusal::WrongOpening { .. } | Refusal::NotOwner { .. }), "{foreign}");
    assert!(matches!(refused(&mut world, &owner, &claims(vec![])), Refusal::Length { .. }));
    let beyond = ShardClaim { shard: 9, ..claim };
    assert!(matches!(refused(&mut world, &owner, &claims(vec![beyond])), Refusal::UnknownShard { .. }));
    assert!(matches!(
        refused(&mut world, &owner, &Statement::Holds { epoch, shards: vec![shard] }),
        Refusal::NotNow { .. }
    ));
}

#[test]
fn unequal_weights_are_not_ready() {
    let (mut world, head) = merging(MergeStep::Done);
    let epoch = world.state.work().epoch.next();
    let count = world.state.stage(HEAD).unwrap().wanted.len();
    let wrong =
        Statement::Ready { epoch, states: vec![Hash::of(b"wrong"); count], traffic: Traffic::default() };
    if world.state.node(&head).unwrap().ready.is_none() {
        assert!(matches!(refused(&mut world, &head, &wrong), Refusal::UnequalState { shard: 0, .. }));
        let short = Statement::Ready { epoch, states: vec![], traffic: Traffic::default() };
        assert!(matches!(refused(&mut world, &head, &short), Refusal::Length { .. }));
        let later = Statement::Ready { epoch: Epoch(9), states: vec![], traffic: Traffic::default() };
        assert!(matches!(refused(&mut world, &head, &later), Refusal::WrongEpoch { .. }));
    } else {
        assert!(matches!(refused(&mut world, &head, &wrong), Refusal::Repeated { .. }));
    }
}

#[test]
fn a_validators_words_are_checked_too() {
    let (mut world, head, _) = training();
    world.add(600);
    let validator = *world.miners.keys().find(|id| world.state.node(id).is_none()).unwrap();
    let input = world.sign(&validator, &Statement::Join(Join { role: Role::Validator, ..join() }));
    world.state.accept(&input).unwrap();
    let micro_batch = *world.state.paths().keys().next().unwrap();
    let epoch = world.state.epoch();
    let good = Verdict {
        epoch,
        node: head,
        micro_batch,
        direction: Direction::Forward,
        device: "cpu".into(),
        outcome: Outcome::Pass,
    };
    let cases: [Case<fn(&mut Verdict)>; 4] = [
        (|v| v.epoch.0 += 1, |r| matches!(r, Refusal::WrongEpoch { .. })),
        (|v| v.node = NodeId([1; 32]), |r| matches!(r, Refusal::UnknownNode { .. })),
        (|v| v.micro_batch = MicroBatch(1 << 50), |r| matches!(r, Refusal::UnknownMicroBatch { .. })),
        (|v| v.device = "x".repeat(1000), |r| matches!(r, Refusal::OverLimit { .. })),
    ];
    for (change, expected) in cases {
        let mut bad = good.clone();
        change(&mut bad);
        let refusal = refused(&mut world, &validator, &Statement::Verdict(bad));
        assert!(expected(&refusal), "{refusal}");
    }
    for (loss, tokens, epoch) in
        [(f32::NAN, 1, epoch), (-1.0, 1, epoch), (1.0, 0, epoch), (1.0, 1, Epoch(50))]
    {
        refused(&mut world, &validator, &Statement::HeldOut { epoch, loss, tokens });
    }
    for statement in [Statement::Verdict(good), Statement::HeldOut { epoch, loss: 3.5, tokens: 10 }] {
        let input = world.sign(&validator, &statement);
        world.state.accept(&input).unwrap();
    }
    assert_eq!(world.state.node(&head).unwrap().verdicts.pass, 1);
    let again = Statement::HeldOut { epoch, loss: 3.0, tokens: 10 };
    assert!(matches!(refused(&mut world, &validator, &again), Refusal::Repeated { .. }));
    let work = Statement::Work(work(&world.state, &validator));
    assert_eq!(refused(&mut world, &validator, &work), Refusal::WrongRole);
}

#[test]
fn any_bytes_as_a_body_never_panic() {
    let mut random = Random(11);
    let mut spec = spec(2, 3, 12);
    spec.miners_min = 2;
    let mut world = World::new(&spec, 4, 9);
    let (mut accepted, mut turned_away) = (0, 0);
    while !matches!(world.state.phase(), Phase::Finished { .. }) {
        world.tick();
        let log: Vec<Envelope> = world.recent_statements(12);
        for round in 0..24 {
            let ids: Vec<NodeId> = world.miners.keys().copied().collect();
            let id = ids[random.below(ids.len() as u64) as usize];
            let body = match log.get(round % log.len().max(1)) {
                Some(envelope) if round % 3 != 0 => {
                    let statement: Statement = wire::from_bytes(&envelope.body).unwrap();
                    garble(&mut random, &statement).map_or_else(|| vec![0xff], |s| wire::to_bytes(&s))
                }
                _ => (0..random.below(80)).map(|_| random.next() as u8).collect(),
            };
            let key: SigningKey = world.miners[&id].key.clone();
            let nonce = u64::MAX / 2 + random.below(1000);
            let envelope = Envelope::sign(&key, world.run, STATEMENT_KIND, body, world.now, nonce);
            let mut state = world.state.clone();
            let committed = commit::commit(&mut state, world.now, vec![Input::Stated(envelope)]);
            if committed.outcomes[0].is_ok() {
                accepted += 1;
                // What was let in must not break what follows.
                for later in 1..8 {
                    commit::commit(&mut state, world.now.plus(Millis(later * 3_000)), vec![]);
                    assert!(state.due().is_none());
                }
            } else {
                turned_away += 1;
                assert!(state == world.state);
            }
        }
    }
    assert!(accepted > 50 && turned_away > 500, "{accepted} accepted, {turned_away} refused");
}
