//! Whole runs of the protocol under a seeded world of simulated miners.

mod it {
    mod hostile;
    mod restart;
    mod runs;
    mod tamper;
    mod world;
}
