//! Training one epoch, as head, middle or tail of the pipeline (protocol §2.2).
//!
//! [`Pipeline`] follows the log from epoch to epoch; [`training`] holds what lives for one epoch.

pub mod io;
mod items;
mod report;
mod training;

use std::collections::VecDeque;

use wire::{Epoch, Millis, NodeId, Seq};

pub use io::{Action, Answer, Computed, Event, Job, Offer, Refused, Sent};

use crate::miner::{Item, Token, limits};
use crate::record::Member;
use crate::state::{Phase, State};
use training::Training;

/// What a miner decides for itself, or its run does without the log.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// Micro-batches that a head keeps under way at a time.
    pub in_flight: usize,
    /// Micro-batches that the node holds at a time before it answers "busy".
    pub queue: usize,
    /// Older versions of the weights that graphs may still need when it steps (protocol §2.2 "Versions"): 1, or 0, where
    /// it ends what is under way first.
    pub stash: u32,
}

/// The training machine of one miner.
#[derive(Debug)]
pub struct Pipeline {
    settings: Settings,
    training: Option<Training>,
    /// Newest epoch that this node trained or is training; an epoch is never begun twice.
    last: Option<Epoch>,
    /// The job that is out, if any.
    job: Option<Job>,
    /// The job that is out belongs to an epoch that this node dropped.
    job_is_stale: bool,
    /// Frames that wait for this node's log to catch up with their sender's, or for a decision.
    waiting: VecDeque<Waiting>,
    draining: bool,
    head: Option<Seq>,
    out: Outbox,
}

/// An offered frame without an answer.
#[derive(Debug)]
struct Waiting {
    offer: u64,
    frame: Offer,
    /// When it is answered at the latest.
    until: Millis,
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

    fn state(&mut self, statement: crate::record::Statement) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.push(Action::State { token, statement });
        token
    }
}

impl Pipeline {
    /// A machine that has not seen the log yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            training: None,
            last: None,
            job: None,
            job_is_stale: false,
            waiting: VecDeque::new(),
            draining: false,
            head: None,
            out: Outbox::default(),
        }
    }

    /// The log has grown, or was read for the first time.
    ///
    /// `head`: the newest block that `state` contains.
    pub fn on_log(&mut self, now: Millis, head: Seq, state: &State) {
        self.head = Some(head);
        self.follow(now, state);
        self.advance(now, state);
    }

    /// Something happened.
    pub fn on_event(&mut self, now: Millis, state: &State, event: Event) {
        match event {
            Event::Offered { offer, frame } => {
                let until = now.plus(limits::OFFER_WAIT);
                self.waiting.push_back(Waiting { offer, frame, until });
            }
            Event::Sent { item, direction, to, outcome } => {
                if let Some(training) = &mut self.training {
                    training.on_sent(now, &mut self.out, item, direction, to, outcome);
                }
            }
            Event::Computed(computed) => {
                self.job = None;
                let stale = std::mem::take(&mut self.job_is_stale);
                if let Some(training) = self.training.as_mut().filter(|_| !stale) {
                    training.on_computed(now, &mut self.out, computed);
                }
            }
            Event::Answered { token, accepted } => {
                if let Some(training) = &mut self.training {
                    training.on_answered(token, accepted);
                }
            }
            Event::Drain => self.draining = true,
        }
        self.advance(now, state);
    }

    /// Time has passed: [`Pipeline::next_deadline`] is due.
    pub fn on_time(&mut self, now: Millis, state: &State) {
        self.advance(now, state);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        self.out.actions.pop_front()
    }

    /// When [`Pipeline::on_time`] is due, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Millis> {
        let offers = self.waiting.iter().map(|waiting| waiting.until).min();
        let training = self.training.as_ref().and_then(Training::next_deadline);
        [offers, training].into_iter().flatten().min()
    }

    /// Whether this node trains now.
    pub fn is_training(&self) -> bool {
        self.training.is_some()
    }

    fn follow(&mut self, now: Millis, state: &State) {
        let membership = Membership::of(&self.settings.node, state);
        if let Some(training) = &mut self.training
            && membership.is_none_or(|membership| membership.epoch != training.epoch())
        {
            // Lost, or the next epoch is on: what is open here is worth nothing to anybody.
            training.abandon(&mut self.out);
            self.training = None;
            self.job_is_stale = self.job.is_some();
        }
        let Some(membership) = membership else { return };
        if self.training.is_none() && membership.open && self.last.is_none_or(|last| last < membership.epoch)
        {
            self.last = Some(membership.epoch);
            self.training = Some(Training::new(now, &self.settings, &membership, state));
        }
        if let Some(training) = &mut self.training {
            training.on_log(now, &membership, state);
        }
    }

    fn advance(&mut self, now: Millis, state: &State) {
        self.answer(now, state);
        let draining = self.drains(state);
        let Some(training) = &mut self.training else { return };
        training.advance(now, &mut self.out, state, &mut self.job, draining);
        if training.is_done() {
            self.training = None;
        }
    }

    /// Whether new work is left to others: not by the only miner of a stage, without whom the epoch cannot end.
    fn drains(&self, state: &State) -> bool {
        let others = |training: &Training| state.members(training.stage()).count() > 1;
        self.draining && self.training.as_ref().is_none_or(others)
    }

    fn answer(&mut self, now: Millis, state: &State) {
        let known = self.head;
        let draining = self.drains(state);
        for waiting in std::mem::take(&mut self.waiting) {
            let behind = waiting.frame.head.is_some_and(|head| known.is_none_or(|known| known < head));
            let answer = match &mut self.training {
                Some(training) if waiting.frame.epoch == training.epoch() => {
                    training.consider(now, &mut self.out, &waiting.frame, state, draining, self.job.as_ref())
                }
                _ if !state.is_live_member(&self.settings.node) => Err(Refused::Member),
                _ => Err(Refused::Epoch),
            };
            let answer = match answer {
                // The sender has read what this node has not: it may be right.
                Err(_) if behind && now < waiting.until => {
                    self.waiting.push_back(waiting);
                    continue;
                }
                Err(_) if behind => Answer::Busy,
                Err(refused) => Answer::Refuse(refused),
                Ok(answer) => answer,
            };
            self.out.push(Action::Answer { offer: waiting.offer, answer });
        }
        while self.waiting.len() > limits::OFFERS_WAITING {
            if let Some(waiting) = self.waiting.pop_front() {
                self.out.push(Action::Answer { offer: waiting.offer, answer: Answer::Busy });
            }
        }
    }
}

/// What the log says of a node's part in the epoch that is trained or merged.
#[derive(Clone, Copy, Debug)]
struct Membership {
    epoch: Epoch,
    /// Whether gradients may still be added.
    open: bool,
    member: Member,
}

impl Membership {
    fn of(node: &NodeId, state: &State) -> Option<Self> {
        let work = state.member(node).filter(|work| work.live)?;
        let (epoch, open) = match state.phase() {
            Phase::Training { epoch } => (epoch, true),
            Phase::Merging { epoch } => (epoch, false),
            Phase::Gathering { .. } | Phase::Finished { .. } => return None,
        };
        Some(Self { epoch, open, member: work.member })
    }
}

/// Name of the item that a frame carries.
fn item_of(frame: &Offer) -> Item {
    Item { micro_batch: frame.micro_batch, lease: frame.lease }
}
