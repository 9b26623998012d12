//! Lock-step: one replica per stage, one clip scale for the whole model.

use shoal_swarm::record::{Derived, Join, Record, Role, Statement, StepCommit, Traffic, Work, WorkItem};
use shoal_swarm::refusal::Refusal;
use shoal_swarm::spec::Pace;
use shoal_swarm::state::Phase;
use wire::{Direction, Epoch, Hash, MicroBatch, Millis, NodeId, StageIndex, Step};

use super::world::{World, spec};

fn lockstep() -> (World, Vec<NodeId>) {
    let mut spec = spec(2, 1, 4);
    spec.inner_steps = 2;
    spec.pace = Pace::Lockstep { clip_norm: 2.5 };
    let mut world = World::new(&spec, 3, 1);
    // The third waits: a stage has one member in lock-step.
    for id in world.living() {
        let join = Join {
            role: Role::Miner,
            address: vec![],
            agent: "a".into(),
            device: "cpu".into(),
            mflops: 100,
            memory: 0,
            stage: None,
        };
        say(&mut world, &id, &Statement::Join(join)).unwrap();
    }
    for id in world.living() {
        let stage = world.state.node(&id).unwrap().stage.unwrap();
        let states = vec![Hash::of(&stage.0.to_le_bytes())];
        let ready =
            say(&mut world, &id, &Statement::Ready { epoch: Epoch(0), states, traffic: Traffic::default() });
        assert!(ready.is_ok() || world.state.phase() == Phase::Training { epoch: Epoch(0) });
    }
    let members: Vec<NodeId> = world.state.epoch_members().iter().map(|work| work.member.node).collect();
    assert_eq!(members.len(), 2);
    assert!(world.state.epoch_members().iter().all(|work| work.member.accumulate == 2));
    (world, members)
}

fn say(world: &mut World, id: &NodeId, statement: &Statement) -> Result<Vec<Record>, Refusal> {
    world.now = world.now.plus(Millis(10));
    let input = world.sign(id, statement);
    let mut committed = world.commit(vec![input]);
    committed.outcomes.remove(0).map(|()| committed.records)
}

fn clipped(records: &[Record]) -> Option<f32> {
    records.iter().find_map(|record| match record {
        Record::Derived(Derived::Clipped { scale, .. }) => Some(*scale),
        _ => None,
    })
}

#[test]
fn a_step_is_clipped_by_the_norm_over_all_stages() {
    let (mut world, members) = lockstep();
    let epoch = Epoch(0);
    say(&mut world, &members[0], &Statement::LeaseRequest { epoch, want: 4 }).unwrap();
    let (lease, _) = world.state.leases_of(members[0]).next().unwrap();
    for step in 0..2_u32 {
        let ids = [MicroBatch(u64::from(step) * 2), MicroBatch(u64::from(step) * 2 + 1)];
        let report = |world: &mut World, stage: usize, clip: Option<f32>| {
            let id = members[stage];
            let items = ids.map(|micro_batch| WorkItem {
                micro_batch,
                lease,
                direction: Direction::Backward,
                version: step,
                loss: (stage == 1).then_some(1.0),
            });
            let commit = |clip| StepCommit {
                step: Step(step),
                items: ids.map(|id| (id, lease)).to_vec(),
                clip,
                weights_root: None,
            };
            let work = Work {
                epoch,
                seq: world.state.member(&id).unwrap().next_report,
                items: if clip.is_some() { vec![] } else { items.to_vec() },
                steps: clip.map(commit).into_iter().collect(),
                evidence: Hash::of(b"e"),
                busy: Millis(5),
                hops: vec![],
                traffic: Traffic::default(),
                free: 0,
            };
            say(world, &id, &Statement::Work(work))
        };
        report(&mut world, 1, None).unwrap();
        report(&mut world, 0, None).unwrap();
        assert!(matches!(report(&mut world, 0, Some(1.0)), Err(Refusal::NotNow { .. })));
        // 1 + 8 + 16 = 25: the norm is 5, twice the bound; in the second step it is under it.
        let sums = |stage: usize| match (step, stage) {
            (0, 0) => vec![1.0, 8.0],
            (0, _) => vec![16.0],
            _ => vec![0.5],
        };
        let squares = |stage: usize| Statement::Squares { epoch, step: Step(step), sums: sums(stage) };
        let early = Statement::Squares { epoch, step: Step(step + 1), sums: vec![1.0] };
        assert!(matches!(say(&mut world, &members[1], &early), Err(Refusal::StepOutOfTurn { .. })));
        let nan = Statement::Squares { epoch, step: Step(step), sums: vec![f64::NAN] };
        assert!(matches!(say(&mut world, &members[1], &nan), Err(Refusal::Number { .. })));
        let first = say(&mut world, &members[1], &squares(1)).unwrap();
        assert_eq!(clipped(&first), None);
        assert!(matches!(say(&mut world, &members[1], &squares(1)), Err(Refusal::Repeated { .. })));
        let second = say(&mut world, &members[0], &squares(0)).unwrap();
        let scale = if step == 0 { 0.5 } else { 1.0 };
        assert_eq!(clipped(&second), Some(scale));
        assert_eq!(world.state.clip_scale(Step(step)), Some(scale));
        assert!(matches!(report(&mut world, 0, Some(0.75)), Err(Refusal::Number { .. })));
        report(&mut world, 0, Some(scale)).unwrap();
        report(&mut world, 1, Some(scale)).unwrap();
    }
    assert_eq!(world.state.phase(), Phase::Merging { epoch });
    assert!(
        world.state.epoch_members().iter().all(|work| (work.steps, work.stepped, work.surplus) == (2, 4, 0))
    );
    assert_eq!(world.state.members(StageIndex(1)).count(), 1);
}
