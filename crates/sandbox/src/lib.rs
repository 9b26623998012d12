//! Runs untrusted code: WebAssembly components and jailed processes; every limit hit is a typed fault with a log.
//!
//! This crate must never know what is being judged: no scores, no rounds, no links between nodes, no async. It needs Linux.
//!
//! A process that uses it calls [`child::run_if_asked`] first in `main`: components are compiled, and jails are
//! supervised, by children that are the same binary.

pub mod child;
pub mod fault;
pub mod jail;
pub mod limits;
mod restrict;
pub mod wasm;

pub use child::Child;
pub use fault::{Error, Failed, Fault, HostError};
pub use jail::{End, Enforcement, Jail, JailLimits, Machine, Mount, Program, Report, Usage};
pub use wasm::{Call, CallLimits, Codec, DType, Direction, Meta, Runtime, Task};
