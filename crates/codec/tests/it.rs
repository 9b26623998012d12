//! Integration tests of the codec crate.

#[path = "it/payload.rs"]
mod payload;
