//! The daemons in one process: over the in-memory link and over QUIC, with real stores.

#[cfg(test)]
mod it {
    mod alone;
    mod bad_input;
    mod between;
    mod champion;
    mod equality;
    mod frames;
    mod learning;
    mod lossy;
    mod miners;
    mod predicted;
    mod replays;
    mod restarts;
    mod runs;
    mod script;
    mod versions;
    mod world;

    /// Children of the sandbox are this binary: they are started with the name of this test, and never return from it.
    #[test]
    fn sandbox_child() {
        sandbox::child::run_if_asked();
    }
}
