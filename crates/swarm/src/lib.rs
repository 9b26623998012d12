//! The training protocol, pure.
