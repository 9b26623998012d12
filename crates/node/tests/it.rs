//! The daemons in one process: over the in-memory link and over QUIC, with real stores.

#[cfg(test)]
mod it {
    mod bad_input;
    mod miners;
    mod restarts;
    mod runs;
    mod script;
    mod world;
}
