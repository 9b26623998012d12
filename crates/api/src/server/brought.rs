//! Who has sent which bytes: a hash that stands in the log can be sealed by anybody, its bytes only be sent by who has them.

use std::collections::{HashSet, VecDeque};

use wire::{Hash, NodeId};

use crate::limits;

/// The newest uploads whose bytes were checked. Whoever is forgotten, by a restart or by others, sends them again.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    known: HashSet<(NodeId, Hash)>,
    order: VecDeque<(NodeId, Hash)>,
}

impl Brought {
    pub(crate) fn note(&mut self, key: NodeId, hash: Hash) {
        if self.known.insert((key, hash)) {
            self.order.push_back((key, hash));
        }
        if self.order.len() > limits::BROUGHT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    pub(crate) fn has(&self, key: NodeId, hash: Hash) -> bool {
        self.known.contains(&(key, hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first_and_nobody_has_what_another_sent() {
        let key = |number: u8| NodeId([number; 32]);
        let hash = |number: usize| Hash::of(&number.to_le_bytes());
        let mut brought = Brought::default();
        for number in 0..=limits::BROUGHT_MAX {
            brought.note(key(1), hash(number));
            brought.note(key(1), hash(number));
        }
        assert!(!brought.has(key(1), hash(0)) && brought.has(key(1), hash(1)));
        assert!(brought.has(key(1), hash(limits::BROUGHT_MAX)) && !brought.has(key(2), hash(1)));
        assert_eq!((brought.known.len(), brought.order.len()), (limits::BROUGHT_MAX, limits::BROUGHT_MAX));
    }
}
