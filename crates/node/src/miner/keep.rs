//! What a miner keeps of micro-batches between forward and backward, and what that spares.

use std::collections::BTreeSet;

use swarm::miner::Item;

/// What stays of a micro-batch between forward and backward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// All that backward needs.
    #[default]
    Graphs,
    /// The forward input as it came, still encoded, and one graph: that of the newest forward. Before backward of
    /// another micro-batch its forward runs again. The numbers are the same to the bit.
    Inputs,
}

/// Which micro-batches have their graph, and which only their input. The compute thread keeps to the same rule.
#[derive(Debug, Default)]
pub(super) struct Kept {
    keep: Keep,
    /// The one with a graph.
    whole: Option<Item>,
    /// Those whose forward ran, and whose graph is gone.
    aside: BTreeSet<Item>,
}

impl Kept {
    pub(super) fn new(keep: Keep) -> Self {
        Self { keep, ..Self::default() }
    }

    /// Whether only inputs are kept.
    pub(super) fn inputs(&self) -> bool {
        self.keep == Keep::Inputs
    }

    /// Forward of an item is asked for.
    pub(super) fn forward(&mut self, item: Item) {
        if self.inputs() {
            self.put_aside();
            self.whole = Some(item);
        }
    }

    /// Backward of an item is asked for: whether its forward must run again first.
    pub(super) fn backward(&mut self, item: Item) -> bool {
        if !self.inputs() {
            return false;
        }
        let again = self.whole != Some(item);
        if again {
            self.put_aside();
        }
        self.drop(item);
        again
    }

    /// An item is of no use any more.
    pub(super) fn drop(&mut self, item: Item) {
        self.whole.take_if(|whole| *whole == item);
        self.aside.remove(&item);
    }

    /// Micro-batches whose graph is gone.
    pub(super) fn without_graph(&self) -> usize {
        self.aside.len()
    }

    fn put_aside(&mut self) {
        self.aside.extend(self.whole.take());
    }
}

#[cfg(test)]
mod tests {
    use wire::{LeaseId, MicroBatch};

    use super::*;

    #[test]
    fn one_graph_stays_and_the_others_run_again() {
        let [a, b, c] = [0, 1, 2].map(|n| Item { micro_batch: MicroBatch(n), lease: LeaseId(0) });
        let mut kept = Kept::new(Keep::Inputs);
        // A tail: backward follows its forward.
        kept.forward(a);
        assert!(!kept.backward(a));
        for item in [a, b, c] {
            kept.forward(item);
        }
        assert_eq!(kept.without_graph(), 2);
        assert!(kept.backward(a));
        // The newest graph made room for that of `a`, which is used up.
        assert_eq!(kept.without_graph(), 2);
        assert!(kept.backward(c));
        kept.drop(b);
        assert_eq!(kept.without_graph(), 0);

        let mut kept = Kept::new(Keep::Graphs);
        kept.forward(a);
        kept.forward(b);
        assert!(!kept.backward(a));
        assert_eq!(kept.without_graph(), 0);
    }
}
