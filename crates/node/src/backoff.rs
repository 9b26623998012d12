//! Pauses between tries: they double up to a limit, and differ between nodes so that a fleet does not come at once.

use std::time::Duration;

use wire::{Hash, NodeId};

use crate::limits;

/// Pauses of one caller.
#[derive(Debug)]
pub(crate) struct Backoff {
    node: NodeId,
    tries: u32,
}

impl Backoff {
    /// For one node; its id spreads the pauses.
    pub(crate) fn new(node: NodeId) -> Self {
        Self { node, tries: 0 }
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }

    /// The next pause: from half to the whole of the doubled one.
    pub(crate) fn pause(&mut self) -> Duration {
        let full = limits::RETRY_MIN.saturating_mul(1 << self.tries.min(16)).min(limits::RETRY_MAX);
        let draw = Hash::of_parts("shoal 2026-11 backoff", &[&self.node.0, &self.tries.to_le_bytes()]).0[0];
        self.tries = self.tries.saturating_add(1);
        full / 2 + full.mul_f64(f64::from(draw) / 512.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_differ_between_nodes() {
        let pauses = |node: u8| {
            let mut backoff = Backoff::new(NodeId([node; 32]));
            (0..40).map(|_| backoff.pause()).collect::<Vec<_>>()
        };
        let (a, b) = (pauses(1), pauses(2));
        assert_ne!(a, b);
        assert!(a[0] >= limits::RETRY_MIN / 2 && a[39] >= limits::RETRY_MAX / 2);
        assert!(a.iter().all(|pause| *pause <= limits::RETRY_MAX));
    }
}
