//! End-to-end tests: everything through the built binary.

#[cfg(test)]
mod it {
    mod arena;
    mod arena_host;
    mod arena_local;
    mod arena_native;
    mod arena_sets;
    mod audit;
    mod bad_input;
    mod binary;
    mod champion;
    mod codec;
    mod crew;
    mod damage;
    mod init;
    mod kills;
    mod lending;
    mod memory;
    mod networks;
    mod processes;
    mod runs;
    mod up;
    mod watch;
}
