//! Remembers signed requests until they are stale, in bounded memory: two sets that take turns.

use std::collections::BTreeSet;

use wire::{Hash, Millis};

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
