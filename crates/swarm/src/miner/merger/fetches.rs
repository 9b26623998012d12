//! What is being fetched, from whom next, and when.

use std::collections::BTreeMap;

use wire::{Millis, NodeId};

use super::io::{Action, Fetched, Want};
use crate::miner::limits;

/// All open fetches. Each goes on until it is held or dropped; the caller decides how long it matters.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    open: BTreeMap<Want, Fetch>,
}

#[derive(Debug)]
struct Fetch {
    sources: Vec<NodeId>,
    next: usize,
    asked: Option<NodeId>,
    /// When it may be asked for again.
    at: Millis,
    /// Rounds over all sources in which nobody had it.
    rounds: u32,
    /// Answers other than "not yet".
    failures: u32,
}

impl Fetches {
    /// Wants something from the first of `sources` that has it; new sources replace those of before.
    pub(super) fn want(&mut self, now: Millis, want: Want, sources: Vec<NodeId>) {
        let fetch = self.open.entry(want).or_insert_with(|| Fetch {
            sources: Vec::new(),
            next: 0,
            asked: None,
            at: now,
            rounds: 0,
            failures: 0,
        });
        fetch.sources = sources;
    }

    /// Whether every source failed several times.
    pub(super) fn is_out_of_reach(&self, want: &Want) -> bool {
        let tries = |fetch: &Fetch| limits::FETCH_ATTEMPTS * fetch.sources.len().max(1) as u32;
        self.open.get(want).is_some_and(|fetch| fetch.failures >= tries(fetch))
    }

    /// Notes an outcome; true if what came is still wanted.
    pub(super) fn on_fetched(&mut self, now: Millis, want: &Want, from: NodeId, outcome: Fetched) -> bool {
        let Some(fetch) = self.open.get_mut(want) else { return false };
        if let Fetched::Held { .. } = outcome {
            self.open.remove(want);
            return true;
        }
        if fetch.asked != Some(from) {
            return false;
        }
        fetch.asked = None;
        fetch.failures += u32::from(outcome == Fetched::Failed);
        fetch.next += 1;
        if fetch.next >= fetch.sources.len() {
            fetch.next = 0;
            let pause = limits::FETCH_RETRY.0 << fetch.rounds.min(16);
            fetch.at = now.plus(Millis(pause.min(limits::FETCH_RETRY_MAX.0)));
            fetch.rounds += 1;
        }
        false
    }

    /// Keeps only what `matters` still.
    pub(super) fn retain(&mut self, matters: impl Fn(&Want) -> bool) {
        self.open.retain(|want, _| matters(want));
    }

    pub(super) fn has_any(&self, of: impl Fn(&Want) -> bool) -> bool {
        self.open.keys().any(of)
    }

    /// Asks for everything that can be asked for now.
    pub(super) fn advance(&mut self, now: Millis, mut push: impl FnMut(Action)) {
        for (want, fetch) in &mut self.open {
            if fetch.asked.is_some() || now < fetch.at {
                continue;
            }
            let at = if fetch.next < fetch.sources.len() { fetch.next } else { 0 };
            let Some(from) = fetch.sources.get(at).copied() else { continue };
            fetch.next = at;
            fetch.asked = Some(from);
            push(Action::Fetch { want: want.clone(), from });
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let idle = self.open.values().filter(|fetch| fetch.asked.is_none() && !fetch.sources.is_empty());
        idle.map(|fetch| fetch.at).min()
    }
}
