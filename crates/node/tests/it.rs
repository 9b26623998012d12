//! The daemons in one process: over the in-memory link and over QUIC, with real stores.

#[cfg(test)]
mod it {
    mod alone;
    mod bad_input;
    mod equality;
    mod learning;
    mod miners;
    mod restarts;
    mod runs;
    mod script;
    mod world;
}
