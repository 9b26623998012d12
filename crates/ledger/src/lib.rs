//! The signed hash-chained log: blocks, records, beacons from commit-reveal, integer splits.
