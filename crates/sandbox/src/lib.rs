//! Runs untrusted code: WebAssembly components and jailed processes; every limit hit is a typed fault with a log.
//!
//! This crate must never know what is being judged: no scores, no rounds, no links between nodes, no async.
//!
//! Linux holds programs, and the child that compiles components, to their limits. On other systems every program is refused,
//! and [`contained`] says that a component is compiled without bounds: for whoever trusts it, or who named it. What a component
//! does when it runs is bounded everywhere. Where the system does not map its data into a new instance (Windows) they are
//! copied, and a call takes a little more fuel, one for each byte: 0.03 to 0.12 % with the codecs that come with us.
//!
//! A process that uses it calls [`child::run_if_asked`] first in `main`: components are compiled, and jails are
//! supervised, by children that are the same binary.

pub mod child;
mod clock;
pub mod fault;
pub mod jail;
pub mod limits;
#[cfg(target_os = "linux")]
mod restrict;
pub mod wasm;

pub use child::Child;
pub use clock::thread_cpu;
pub use fault::{Error, Failed, Fault, HostError};
pub use jail::{End, Enforcement, Jail, JailLimits, Machine, Mount, Program, Report, Usage};
pub use wasm::{Call, CallLimits, Codec, DType, Direction, Meta, Runtime, Task, contained};
