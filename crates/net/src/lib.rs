//! Links between nodes: calls of a message and its answer under a deadline, over iroh or within one process.
//!
//! This crate must never know what a message means: it moves bytes between proven identities, and bounds them.

pub mod address;
pub mod frame;
pub mod limits;
pub mod link;
mod memory;
mod meter;
mod quic;
pub mod relay;
pub mod ticket;

pub use address::{AddressError, PeerAddress};
pub use link::{Handler, Link, LinkError, Message, PeerTraffic, Refusal, Traffic};
pub use memory::{MemoryLink, MemoryNetwork};
pub use quic::{ALPN, BindError, Congestion, EndpointOptions, QuicLink};
pub use relay::{Relay, RelayError, RelayOptions};
pub use ticket::{Ticket, TicketError};
