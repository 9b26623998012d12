//! The daemons in one process: over the in-memory link and over QUIC, with real stores.

#[cfg(test)]
#[path = "it/bad_input.rs"]
mod bad_input;
#[cfg(test)]
#[path = "it/miners.rs"]
mod miners;
#[cfg(test)]
#[path = "it/restarts.rs"]
mod restarts;
#[cfg(test)]
#[path = "it/runs.rs"]
mod runs;
#[cfg(test)]
#[path = "it/script.rs"]
mod script;
#[cfg(test)]
#[path = "it/world.rs"]
mod world;
#[path = "it/miners.rs"]
