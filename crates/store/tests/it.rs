//! Integration tests of the stores.

#[path = "it/blobs.rs"]
mod blobs;
#[path = "it/full.rs"]
mod full;
#[path = "it/log.rs"]
mod log;
