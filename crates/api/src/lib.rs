//! The arena over HTTP: a host around the pure fold, an OpenAPI server, a client, the loops of judges and entrants.
//!
//! It must never decide what the fold decides, nor know how an entry is run: it signs, stores, serves, and asks a judge's
//! [`judge::Evaluate`] for its finding.

pub mod client;
pub use leader::clock;
pub mod epistula;
pub mod host;
pub mod judge;
pub mod limits;
pub mod model;
mod replay;
pub mod request;
pub mod seals;
mod server;

pub use client::{Client, ClientError};
pub use host::{Host, HostError, Parts};
