//! Runs untrusted code: WebAssembly components and jailed processes; every limit hit is a typed fault with a log.
//!
//! This crate must never know what is being judged: no scores, no rounds, no network of ours, no async.
