//! Which frames a training miner takes: each reason to refuse one, beside the honest frame that it takes.

use wire::{Direction, Epoch, LeaseId, Millis, NodeId, Seq, StageIndex};

use super::world::World;
use super::{CALM, END, spec};
use crate::limits::LEASE_HOLDER_PERCENT;
use crate::miner::Item;
use crate::miner::limits::OFFER_WAIT;
use crate::miner::pipeline::{
    Action, Answer, Computed, Event, Job, Offer, Pipeline, Refused, Sent, Settings,
};
use crate::state::{Phase, State};

const NOW: Millis = Millis(1);
/// The newest block that everybody has read.
const HEAD: Seq = Seq(5);
/// Time that frames leave for their lease.
const TTL: Millis = Millis(1_000);

const TAKEN: Answer = Answer::Accept;

fn refused(reason: Refused) -> Answer {
    Answer::Refuse(reason)
}

/// Three stages of two miners, leases of both heads, and a micro-batch of one that the others have not seen.
struct Scene {
    state: State,
    item: Item,
    grad_mask: u64,
    /// The lease's holder, then the first ranks of its route.
    path: [NodeId; 3],
}

impl Scene {
    fn new() -> Self {
        let mut spec = spec(3, 64);
        spec.miners_min = 2;
        let mut world = World::new(1, spec, 6, CALM);
        world.run_until(END, |state| state.leases().len() > 1);
        let state = world.state;
        let (id, path) = state.paths().iter().find(|(_, path)| path.lease.is_some()).expect("work");
        let (micro_batch, lease, grad_mask) = (*id, path.lease.expect("leased"), path.grad_mask);
        let first = |stage| state.route(micro_batch, StageIndex(stage))[0];
        let path = [state.leases()[&lease].node, first(1), first(2)];
        Self { item: Item { micro_batch, lease }, grad_mask, path, state }
    }

    /// The miner of a stage that is not on the path.
    fn other(&self, stage: u16) -> NodeId {
        let mut members = self.state.members(StageIndex(stage)).map(|member| member.node);
        members.find(|node| !self.path.contains(node)).expect("two in each stage")
    }

    /// Another item that this head has leased.
    fn item_of(&self, head: &NodeId) -> Item {
        let mut items = self.state.paths().iter().filter_map(|(micro_batch, path)| {
            let item = Item { micro_batch: *micro_batch, lease: path.lease? };
            (item != self.item && self.state.leases()[&item.lease].node == *head).then_some(item)
        });
        items.next().expect("a lease of two")
    }

    fn miner(&self, node: NodeId) -> Miner<'_> {
        let mut pipeline = Pipeline::new(Settings { node, in_flight: 4, queue: 1, stash: 1 });
        pipeline.on_log(NOW, HEAD, &self.state);
        Miner { scene: self, pipeline, actions: Vec::new() }
    }

    /// The middle miner of the path.
    fn middle(&self) -> Miner<'_> {
        self.miner(self.path[1])
    }

    /// What the middle miner gets from its neighbour on the path.
    fn frame(&self, direction: Direction) -> Offer {
        let stage = if direction == Direction::Forward { 0 } else { 2 };
        Offer {
            epoch: self.state.epoch(),
            micro_batch: self.item.micro_batch,
            lease: self.item.lease,
            direction,
            stage: StageIndex(stage),
            from: self.path[usize::from(stage)],
            grad_mask: self.grad_mask,
            ttl: TTL,
            loss: (direction == Direction::Backward).then_some(1.0),
            head: Some(HEAD),
        }
    }
}

struct Miner<'a> {
    scene: &'a Scene,
    pipeline: Pipeline,
    actions: Vec<Action>,
}

impl Miner<'_> {
    fn event(&mut self, now: Millis, event: Event) {
        self.pipeline.on_event(now, &self.scene.state, event);
        self.look();
    }

    /// Takes note of what it wants done.
    fn look(&mut self) {
        self.actions.extend(std::iter::from_fn(|| self.pipeline.poll()));
    }

    /// The answer to a frame.
    fn offer(&mut self, now: Millis, frame: Offer) -> Answer {
        self.event(now, Event::Offered { offer: 7, frame });
        self.answer().expect("an answer at once")
    }

    fn answer(&mut self) -> Option<Answer> {
        let at = self.actions.iter().position(|action| matches!(action, Action::Answer { .. }))?;
        match self.actions.remove(at) {
            Action::Answer { answer, .. } => Some(answer),
            _ => None,
        }
    }

    /// Ends the job that is out.
    fn compute(&mut self) {
        let computed = self.actions.drain(..).find_map(|action| match action {
            Action::Compute(Job::Forward(item)) => Some(Computed::Forward { item, loss: None }),
            Action::Compute(Job::Backward { item, .. }) => Some(Computed::Backward(item)),
            _ => None,
        });
        self.event(NOW, Event::Computed(computed.expect("a job")));
    }

    /// Takes the activation, runs forward and offers the result to the tail.
    fn forward(&mut self) {
        assert_eq!(self.offer(NOW, self.scene.frame(Direction::Forward)), TAKEN);
        self.compute();
        let to_tail =
            |action: &Action| matches!(action, Action::Send { to, .. } if *to == self.scene.path[2]);
        assert!(self.actions.iter().any(to_tail), "{:?}", self.actions);
    }

    fn forward_is_taken(&mut self) {
        let (item, direction, to) = (self.scene.item, Direction::Forward, self.scene.path[2]);
        self.event(NOW, Event::Sent { item, direction, to, outcome: Sent::Accepted });
    }
}

#[test]
fn an_activation_is_taken_once() {
    let scene = Scene::new();
    let mut middle = scene.middle();
    let frame = scene.frame(Direction::Forward);
    assert_eq!(middle.offer(NOW, frame), TAKEN);
    assert_eq!(middle.offer(NOW, frame), refused(Refused::Duplicate));
}

#[test]
fn an_activation_of_another_epoch_lease_stage_or_sender_is_refused() {
    let scene = Scene::new();
    let good = scene.frame(Direction::Forward);
    let nobody = NodeId([77; 32]);
    let of_another_lease = scene.item_of(&scene.other(0)).micro_batch;
    let bad = [
        ("the next epoch", Refused::Epoch, Offer { epoch: good.epoch.next(), ..good }),
        ("no such lease", Refused::Lease, Offer { lease: LeaseId(u64::MAX), ..good }),
        ("not of this lease", Refused::Lease, Offer { micro_batch: of_another_lease, ..good }),
        ("another mask", Refused::Lease, Offer { grad_mask: good.grad_mask ^ 1, ..good }),
        ("a head without the lease", Refused::Lease, Offer { from: scene.other(0), ..good }),
        ("nobody", Refused::Neighbour, Offer { from: nobody, ..good }),
        ("another stage than its own", Refused::Neighbour, Offer { stage: StageIndex(2), ..good }),
        (
            "a stage that is no neighbour",
            Refused::Neighbour,
            Offer { stage: StageIndex(2), from: scene.path[2], ..good },
        ),
        (
            "a miner of the same stage",
            Refused::Neighbour,
            Offer { stage: StageIndex(1), from: scene.other(1), ..good },
        ),
        ("no time left", Refused::Expired, Offer { ttl: Millis(0), ..good }),
    ];
    let mut middle = scene.middle();
    for (what, reason, frame) in bad {
        assert_eq!(middle.offer(NOW, frame), refused(reason), "{what}");
    }
    assert_eq!(middle.offer(NOW, good), TAKEN, "none of them left anything behind");
}

#[test]
fn whoever_takes_no_part_in_the_epoch_says_so() {
    let scene = Scene::new();
    let mut stranger = scene.miner(NodeId([77; 32]));
    assert_eq!(stranger.offer(NOW, scene.frame(Direction::Forward)), refused(Refused::Member));
}

#[test]
fn once_the_epoch_is_closed_nothing_is_taken() {
    let scene = Scene::new();
    let mut middle = scene.middle();
    assert_eq!(middle.offer(NOW, scene.frame(Direction::Forward)), TAKEN);
    let mut closed = World::new(1, scene.state.spec().clone(), 6, CALM);
    closed.run_until(END, |state| matches!(state.phase(), Phase::Merging { epoch: Epoch(0) }));
    // Its forward is still out.
    middle.pipeline.on_log(NOW, HEAD.next(), &closed.state);
    let Item { micro_batch, lease } = scene.item_of(&scene.path[0]);
    let next = Offer { micro_batch, lease, ..scene.frame(Direction::Forward) };
    assert_eq!(middle.offer(NOW, next), refused(Refused::Epoch));
    assert_eq!(middle.offer(NOW, scene.frame(Direction::Backward)), refused(Refused::Epoch));
}

#[test]
fn a_frame_waits_for_the_log_that_its_sender_has_read() {
    let scene = Scene::new();
    let mut middle = scene.middle();
    let frame =
        Offer { lease: LeaseId(u64::MAX), head: Some(HEAD.next()), ..scene.frame(Direction::Forward) };
    middle.event(NOW, Event::Offered { offer: 1, frame });
    assert_eq!(middle.answer(), None, "the lease may stand in that block");
    let late = NOW.plus(OFFER_WAIT);
    assert!(middle.pipeline.next_deadline().is_some_and(|at| at <= late));
    for (now, answer) in [(Millis(late.0 - 1), None), (late, Some(Answer::Busy))] {
        middle.pipeline.on_time(now, &scene.state);
        middle.look();
        assert_eq!(middle.answer(), answer, "at {now:?}");
    }
    middle.event(NOW, Event::Offered { offer: 2, frame });
    assert_eq!(middle.answer(), None);
    middle.pipeline.on_log(NOW, HEAD.next(), &scene.state);
    middle.look();
    assert_eq!(middle.answer(), Some(refused(Refused::Lease)), "it does not");
}

#[test]
fn a_gradient_is_taken_once_from_whoever_took_the_activation() {
    let scene = Scene::new();
    let gradient = scene.frame(Direction::Backward);
    let mut middle = scene.middle();
    assert_eq!(middle.offer(NOW, gradient), refused(Refused::Unknown), "no such item");
    middle.forward();
    assert_eq!(
        middle.offer(NOW, Offer { from: scene.other(2), ..gradient }),
        refused(Refused::Unknown),
        "somebody else is asked"
    );
    middle.forward_is_taken();
    let bad = [
        ("from somebody else", Refused::Unknown, Offer { from: scene.other(2), ..gradient }),
        ("from the stage before", Refused::Unknown, Offer { from: scene.path[0], ..gradient }),
        ("no such lease", Refused::Unknown, Offer { lease: LeaseId(u64::MAX), ..gradient }),
        ("the next epoch", Refused::Epoch, Offer { epoch: gradient.epoch.next(), ..gradient }),
    ];
    for (what, reason, frame) in bad {
        assert_eq!(middle.offer(NOW, frame), refused(reason), "{what}");
    }
    assert_eq!(middle.offer(NOW, gradient), TAKEN);
    assert_eq!(middle.offer(NOW, gradient), refused(Refused::Duplicate), "before its backward");
    middle.compute();
    assert_eq!(middle.offer(NOW, gradient), refused(Refused::Duplicate), "behind its backward");
}

#[test]
fn a_gradient_before_its_forward_has_nothing_that_waits_for_it() {
    let scene = Scene::new();
    let mut middle = scene.middle();
    assert_eq!(middle.offer(NOW, scene.frame(Direction::Forward)), TAKEN);
    assert_eq!(middle.offer(NOW, scene.frame(Direction::Backward)), refused(Refused::Unknown));
}

#[test]
fn a_gradient_may_overtake_the_answer_to_its_activation() {
    let scene = Scene::new();
    let mut middle = scene.middle();
    middle.forward();
    assert_eq!(middle.offer(NOW, scene.frame(Direction::Backward)), TAKEN);
}

#[test]
fn a_gradient_is_late_once_the_time_of_its_lease_is_up() {
    let scene = Scene::new();
    let holder = Millis(scene.state.spec().lease_ttl.0 * LEASE_HOLDER_PERCENT / 100);
    assert!(TTL < holder, "what its sender leaves is less than anybody may have");
    for (now, answer) in [(Millis(NOW.plus(TTL).0 - 1), TAKEN), (NOW.plus(TTL), refused(Refused::Expired))] {
        let mut middle = scene.middle();
        middle.forward();
        middle.forward_is_taken();
        assert_eq!(middle.offer(now, scene.frame(Direction::Backward)), answer, "at {now:?}");
    }
}

#[test]
fn one_without_room_is_busy_and_not_refusing() {
    let scene = Scene::new();
    let Item { micro_batch, lease } = scene.item_of(&scene.path[0]);
    let mut middle = scene.middle();
    assert_eq!(middle.offer(NOW, scene.frame(Direction::Forward)), TAKEN);
    let frame = Offer { micro_batch, lease, ..scene.frame(Direction::Forward) };
    assert_eq!(middle.offer(NOW, frame), Answer::Busy);
    assert_eq!(middle.offer(NOW, Offer { ttl: Millis(0), ..frame }), refused(Refused::Expired));
}
