//! Ids, units, limits, messages and their version, signed envelopes and frames.
