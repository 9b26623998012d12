//! Merging a stage after an epoch, and catching up with a merge that was missed (protocol §1.2).
//!
//! [`Merger`] knows what weights this node holds and what the run wants it to hold. [`round`] takes part in one merge
//! and applies its outcome; [`catch_up`] fetches agreed weights by hash when applying is not possible.

mod catch_up;
mod fetches;
pub mod io;
mod round;

use std::collections::VecDeque;

use wire::{Epoch, Hash, Millis, NodeId, RunId, StageIndex};

use crate::miner::Token;
use crate::record::{Statement, Traffic};
use crate::shard::Partition;
use crate::state::{MergeStep, Phase, State};
use catch_up::CatchUp;
pub use io::{Action, Apply, Event, Fetched, Residual, Shard, Summand, Want};
use round::Round;

/// Who merges.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// Run.
    pub run: RunId,
    /// Secret of the node, from which its nonces are derived: a restart gives the same ones.
    pub secret: Hash,
}

/// The merge machine of one miner.
#[derive(Debug)]
pub struct Merger {
    settings: Settings,
    held: Option<Held>,
    round: Option<Round>,
    catch_up: Option<CatchUp>,
    /// Ready statement that is out, and what it says.
    stated: Option<(Token, Held)>,
    /// What was refused, and in which phase: it is not said again in that one.
    refused: Option<(Held, Phase)>,
    out: Outbox,
}

/// Weights and momentum that this node holds: those with which `epoch` opens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    epoch: Epoch,
    states: Vec<Hash>,
}

/// What the run wants a replica of a stage to hold now.
#[derive(Debug)]
struct Target {
    epoch: Epoch,
    partition: Partition,
    /// State hash per shard, as far as it is known.
    states: Vec<Option<Hash>>,
}

/// Actions on their way to the driver.
#[derive(Debug, Default)]
struct Outbox {
    actions: VecDeque<Action>,
    next_token: u64,
}

impl Outbox {
    fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    fn state(&mut self, statement: Statement) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.push(Action::State { token, statement });
        token
    }
}

impl Merger {
    /// A machine that holds no weights yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            held: None,
            round: None,
            catch_up: None,
            stated: None,
            refused: None,
            out: Outbox::default(),
        }
    }

    /// The log has grown, or was read for the first time.
    pub fn on_log(&mut self, now: Millis, state: &State) {
        self.advance(now, state);
    }

    /// Time has passed: [`Merger::next_deadline`] is due.
    pub fn on_time(&mut self, now: Millis, state: &State) {
        self.advance(now, state);
    }

    /// Something happened.
    pub fn on_event(&mut self, now: Millis, state: &State, event: Event) {
        match event {
            Event::Applied { epoch, states } => {
                self.catch_up = None;
                if let Some(before) = epoch.0.checked_sub(1) {
                    self.out.push(Action::Forget { before: Epoch(before) });
                }
                self.held = Some(Held { epoch, states });
            }
            Event::Restored { epoch, missing } => {
                if let Some(catch_up) = &mut self.catch_up {
                    catch_up.on_restored(epoch, missing);
                }
            }
            Event::Answered { token, accepted } => {
                if let Some((_, held)) = self.stated.take_if(|(stated, _)| *stated == token)
                    && !accepted
                {
                    self.refused = Some((held, state.phase()));
                }
            }
            Event::Fetched { want: want @ Want::Part { .. }, from, outcome } => {
                if let Some(catch_up) = &mut self.catch_up {
                    catch_up.on_fetched(now, &want, from, outcome);
                }
            }
            event => {
                if let Some(epoch) = event.epoch()
                    && let Event::Trained { .. } = event
                    && self.round.as_ref().is_none_or(|round| round.epoch() != epoch)
                {
                    self.round = Some(Round::new(epoch));
                }
                if let Some(round) = &mut self.round {
                    round.on_event(now, event);
                }
            }
        }
        self.advance(now, state);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        self.out.actions.pop_front()
    }

    /// When [`Merger::on_time`] is due, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Millis> {
        let round = self.round.as_ref().and_then(Round::next_deadline);
        let catch_up = self.catch_up.as_ref().and_then(CatchUp::next_deadline);
        [round, catch_up].into_iter().flatten().min()
    }

    /// Epoch whose opening weights this node holds.
    pub fn holds(&self) -> Option<Epoch> {
        self.held.as_ref().map(|held| held.epoch)
    }

    fn advance(&mut self, now: Millis, state: &State) {
        let Some(node) = state.node(&self.settings.node) else { return };
        let (Some(stage), true) = (node.stage, node.present()) else { return };
        self.merge(now, state, stage);
        let Some(target) = Target::of(state, stage) else { return };
        match &self.held {
            Some(held) if target.matches(held) => {
                self.catch_up = None;
                let ready = node.ready.as_ref();
                let said =
                    ready.is_some_and(|ready| ready.epoch == held.epoch && ready.states == held.states);
                let refused = self.refused.as_ref();
                let refused =
                    refused.is_some_and(|(theirs, phase)| theirs == held && *phase == state.phase());
                if target.wants_word(state, &self.settings.node) && !said && !refused && self.stated.is_none()
                {
                    let (epoch, states) = (held.epoch, held.states.clone());
                    let token =
                        self.out.state(Statement::Ready { epoch, states, traffic: Traffic::default() });
                    self.stated = Some((token, held.clone()));
                }
            }
            _ if self.follows(state, &target, stage) => {}
            _ => self.catch_up(now, state, stage, &target),
        }
    }

    /// Takes part in the merge of the epoch whose opening weights this node holds, and applies its outcome.
    fn merge(&mut self, now: Millis, state: &State, stage: StageIndex) {
        let Some(merge) = state.merge(stage) else { return };
        let holds_opening = |held: &Held| held.epoch == merge.epoch || held.epoch == merge.epoch.next();
        if state.work().closed.is_none() || !self.held.as_ref().is_some_and(holds_opening) {
            self.round = None;
            return;
        }
        let round = match &mut self.round {
            Some(round) if round.epoch() == merge.epoch => round,
            // It joined, came back or was lost while others trained: it follows.
            round => round.insert(Round::new(merge.epoch)),
        };
        let opening = self.held.as_ref().is_some_and(|held| held.epoch == merge.epoch);
        round.advance(now, &self.settings, state, merge, opening, &mut self.out);
    }

    /// Whether the round under way will bring this node where the run wants it.
    fn follows(&self, state: &State, target: &Target, stage: StageIndex) -> bool {
        let training = matches!(state.phase(), Phase::Training { .. });
        let of_merge = state.merge(stage).is_some_and(|merge| merge.epoch.next() == target.epoch);
        !training && of_merge && self.round.as_ref().is_some_and(Round::will_apply)
    }

    fn catch_up(&mut self, now: Millis, state: &State, stage: StageIndex, target: &Target) {
        if self.catch_up.as_ref().is_none_or(|catch_up| !catch_up.is_for(target)) {
            self.catch_up = Some(CatchUp::new(target));
        }
        if let Some(catch_up) = &mut self.catch_up {
            catch_up.advance(now, &self.settings, state, stage, &mut self.out);
        }
    }
}

impl Target {
    fn of(state: &State, stage: StageIndex) -> Option<Self> {
        let agreed = state.stage(stage)?;
        let (epoch, opened) = match state.phase() {
            Phase::Gathering { epoch, .. } => (epoch, false),
            Phase::Training { epoch } => (epoch, true),
            Phase::Merging { epoch } => match state.merge(stage)?.step {
                MergeStep::Done => (epoch.next(), false),
                _ => (epoch, true),
            },
            Phase::Finished { epochs } => (Epoch(epochs), true),
        };
        if opened {
            let states = agreed.agreed.as_ref()?.iter().copied().map(Some).collect();
            return Some(Self { epoch, partition: state.agreed_partition(stage), states });
        }
        Some(Self { epoch, partition: state.wanted_partition(stage), states: agreed.wanted.clone() })
    }

    /// Whether a node that holds it should say so: not if it trains with it, not after the end.
    fn wants_word(&self, state: &State, node: &NodeId) -> bool {
        match state.phase() {
            Phase::Finished { .. } => false,
            _ => state.work().epoch != self.epoch || !state.is_live_member(node),
        }
    }

    fn matches(&self, held: &Held) -> bool {
        let equal = |(wanted, ours): (&Option<Hash>, &Hash)| wanted.is_none_or(|wanted| wanted == *ours);
        held.epoch == self.epoch
            && held.states.len() == self.states.len()
            && self.states.iter().zip(&held.states).all(equal)
    }
}

/// Shards of a partition.
fn shards_of(partition: &Partition) -> impl Iterator<Item = Shard> + '_ {
    (0..partition.shards()).map(|index| shard_of(partition, index))
}

/// One shard of a partition.
fn shard_of(partition: &Partition, index: u16) -> Shard {
    let range = partition.elements(index);
    Shard { index, start: range.start, end: range.end }
}
