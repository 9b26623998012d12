//! Whole competitions under a seeded world of simulated entrants and judges, in virtual time.
#![expect(clippy::unwrap_used, reason = "a test that unwraps is a test that fails")]

mod it {
    mod boards;
    mod chaos;
    mod gates;
    mod judging;
    mod queues;
    mod rounds;
    mod statements;
    mod takeovers;
    mod tamper;
    mod world;
}
