//! The daemons in one process: over the in-memory link and over QUIC, with real stores.

#[path = "it/bad_input.rs"]
mod bad_input;
#[cfg(test)]
#[path = "it/miners.rs"]
mod miners;
#[path = "it/restarts.rs"]
mod restarts;
#[path = "it/runs.rs"]
mod runs;
#[path = "it/script.rs"]
mod script;
#[path = "it/world.rs"]
mod world;
#[path = "it/miners.rs"]
