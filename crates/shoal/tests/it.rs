//! End-to-end tests: everything through the built binary.

#[cfg(test)]
mod it {
    mod arena;
    mod bad_input;
    mod binary;
    mod processes;
    mod runs;
    mod up;
    mod watch;
}
