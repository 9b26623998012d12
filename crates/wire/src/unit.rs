//! Units and counters: newtypes, so that no bare integer crosses a crate boundary.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

counter!(
    /// Number of merges before this point, from 0.
    Epoch(u32)
);
counter!(
    /// Index of a micro-batch in the run's data order, from 0.
    MicroBatch(u64)
);
counter!(
    /// Inner optimiser step within an epoch, from 0.
    Step(u32)
);
counter!(
    /// Position of a block in the log, from 0.
    Seq(u64)
);
counter!(
    /// Reign of one orchestrator; a standby that takes over starts the next.
    Term(u64)
);

/// Milliseconds: a point in time (since the Unix epoch) or a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Millis(pub u64);

impl Millis {
    /// `self + span`, saturating.
    #[must_use]
    pub fn plus(self, span: Millis) -> Millis {
        Millis(self.0.saturating_add(span.0))
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Millis) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}
