//! Integration tests of the codec crate.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "it/corpus.rs"]
mod corpus;
#[path = "it/learned.rs"]
mod learned;
#[path = "it/lossless.rs"]
mod lossless;
#[path = "it/lossy.rs"]
mod lossy;
#[path = "it/payload.rs"]
mod payload;
#[path = "it/tensors.rs"]
mod tensors;
