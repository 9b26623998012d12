//! Entropy coders: interleaved rANS for planes of symbols, an adaptive range coder for side information.

pub(crate) mod plane;
pub(crate) mod range;
pub(crate) mod rans;
pub(crate) mod tables;
pub(crate) mod weights;
