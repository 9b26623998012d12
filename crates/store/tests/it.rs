//! Integration tests of the stores.

#[cfg(test)]
#[path = "it/blobs.rs"]
mod blobs;
#[cfg(test)]
#[path = "it/full.rs"]
mod full;
#[cfg(test)]
#[path = "it/log.rs"]
mod log;
