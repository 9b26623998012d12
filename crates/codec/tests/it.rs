//! Integration tests of the codec crate.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "it/lossless.rs"]
mod lossless;
#[path = "it/payload.rs"]
mod payload;
#[path = "it/tensors.rs"]
mod tensors;
