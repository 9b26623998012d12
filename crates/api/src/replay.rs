//! Remembers signed requests until they are stale, in bounded memory: two sets that take turns.
//!
//! A host that starts again has forgotten them. What was signed before it started it refuses; what it took although it was
//! signed ahead of its clock, and would be fresh still, it has [on its disk](Ahead).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use wire::{Hash, Millis, NodeId};

use crate::limits;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Replays {
    current: BTreeSet<Hash>,
    previous: BTreeSet<Hash>,
    turned: Millis,
}

/// What a signature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// New.
    New,
    /// Seen before.
    Before,
    /// Cannot be told: too many came in a short time.
    Full,
}

impl Replays {
    /// Notes a signature that is within the time window.
    pub(crate) fn note(&mut self, id: Hash, now: Millis) -> Seen {
        // A signature is valid for one window before and one after its own time.
        if now.since(self.turned).0 > 2 * limits::REQUEST_SKEW_MS {
            self.previous = std::mem::take(&mut self.current);
            if now.since(self.turned).0 > 4 * limits::REQUEST_SKEW_MS {
                self.previous.clear();
            }
            self.turned = now;
        }
        match () {
            () if self.previous.contains(&id) => Seen::Before,
            () if self.current.contains(&id) => Seen::Before,
            () if self.current.len() >= limits::REPLAYS => Seen::Full,
            () => {
                self.current.insert(id);
                Seen::New
            }
        }
    }
}

/// Requests that were signed ahead of the host's clock, with their times: what a restart must not forget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ahead(BTreeMap<Hash, (Millis, NodeId)>);

impl Ahead {
    /// Notes a request that is to be on the disk before it counts. Keys are free to make: each has a few places, and those
    /// that the arena does not know have half of all among them, so that the others find room.
    pub(crate) fn note(
        &mut self,
        id: Hash,
        (time, key): (Millis, NodeId),
        known: impl Fn(NodeId) -> bool,
        now: Millis,
    ) -> Seen {
        self.0.retain(|_, (time, _)| now.since(*time).0 <= limits::REQUEST_SKEW_MS);
        let own = || self.0.values().filter(|(_, other)| *other == key).count();
        let strangers = || self.0.values().filter(|(_, other)| !known(*other)).count();
        match () {
            () if self.0.contains_key(&id) => Seen::Before,
            () if self.0.len() >= limits::AHEAD || own() >= limits::AHEAD_OF_KEY => Seen::Full,
            () if !known(key) && strangers() >= limits::AHEAD / 2 => Seen::Full,
            () => {
                self.0.insert(id, (time, key));
                Seen::New
            }
        }
    }

    /// Whether it was noted.
    pub(crate) fn has(&self, id: &Hash) -> bool {
        self.0.contains_key(id)
    }

    /// The newest time among them.
    pub(crate) fn until(&self) -> Millis {
        self.0.values().map(|(time, _)| *time).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_ahead_of_the_clock_are_kept_until_they_are_stale() {
        let (mut ahead, now) = (Ahead::default(), Millis(1_000_000));
        let later = |ms| now.plus(Millis(ms));
        let key = |number: u64| NodeId(Hash::of(&number.to_le_bytes()).0);
        let known = |_| true;
        let note = |ahead: &mut Ahead, id: u8, time, now| {
            ahead.note(Hash([id; 32]), (time, key(id.into())), known, now)
        };
        assert_eq!(note(&mut ahead, 1, later(30_000), now), Seen::New);
        assert_eq!(note(&mut ahead, 1, later(30_000), later(89_000)), Seen::Before);
        assert_eq!((ahead.until(), ahead.has(&Hash([2; 32]))), (later(30_000), false));
        for number in 0..limits::AHEAD as u64 - 1 {
            let id = Hash::of(&number.to_le_bytes());
            assert_eq!(ahead.note(id, (later(60_000), key(1000 + number)), known, later(1000)), Seen::New);
        }
        assert_eq!(note(&mut ahead, 3, later(60_000), later(2000)), Seen::Full);
        // Half a minute after its time and a minute of grace the first one makes room.
        assert_eq!(note(&mut ahead, 3, later(95_000), later(91_000)), Seen::New);
        assert_eq!(note(&mut ahead, 1, later(30_000), later(119_000)), Seen::Full);
        let bytes = wire::to_bytes(&ahead);
        assert_eq!(wire::from_bytes::<Ahead>(&bytes).unwrap(), ahead);
    }

    #[test]
    fn keys_that_nobody_knows_leave_room_ahead_of_the_clock() {
        let (mut ahead, now) = (Ahead::default(), Millis(1_000_000));
        let (member, time) = (NodeId([7; 32]), now.plus(Millis(30_000)));
        let known = |key| key == member;
        let mut note =
            |number: u64, key| ahead.note(Hash::of(&number.to_le_bytes()), (time, key), known, now);
        let stranger = |number: u64| NodeId(Hash::of(&number.to_le_bytes()).0);
        let half = limits::AHEAD as u64 / 2;
        assert!((0..half).all(|number| note(number, stranger(number)) == Seen::New));
        assert_eq!(note(half, stranger(half)), Seen::Full);
        let own = limits::AHEAD_OF_KEY as u64;
        assert!((0..own).all(|number| note(half + 1 + number, member) == Seen::New));
        assert_eq!(note(half + 1 + own, member), Seen::Full, "nor has one key all of it");
    }

    proptest! {
        #[test]
        fn nothing_is_admitted_twice_while_it_is_fresh(steps in prop::collection::vec((0_u64..200_000, 0_u8..20), 1..60)) {
            let mut replays = Replays::default();
            let mut seen: Vec<(u8, Millis)> = Vec::new();
            let mut now = Millis(1_000_000);
            for (pass, id) in steps {
                now = now.plus(Millis(pass));
                let answer = replays.note(Hash([id; 32]), now);
                let fresh = |(other, at): &(u8, Millis)| *other == id && now.since(*at).0 <= 2 * limits::REQUEST_SKEW_MS;
                if seen.iter().any(fresh) {
                    prop_assert_eq!(answer, Seen::Before);
                }
                if answer == Seen::New {
                    seen.push((id, now));
                }
            }
        }
    }
}
