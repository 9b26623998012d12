//! The daemons in one process: over the in-memory link and over QUIC, with real stores.

#[path = "it/miners.rs"]
mod miners;
