//! Whole runs of the protocol under a seeded world of simulated miners.
#![expect(clippy::unwrap_used, reason = "a test that unwraps is a test that fails")]

mod it {
    mod codec;
    mod hostile;
    mod lockstep;
    mod restart;
    mod runs;
    mod tamper;
    mod world;
}
