//! Links between nodes: calls of a message and its answer under a deadline, over iroh or within one process.
//!
//! This crate must never know what a message means: it moves bytes between proven identities, and bounds them.

pub mod address;
pub mod limits;
pub mod link;

pub use address::{AddressError, PeerAddress};
pub use link::{Handler, Link, LinkError, Message, PeerTraffic, Refusal, Traffic};
