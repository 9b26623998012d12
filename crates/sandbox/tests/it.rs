//! Everything that runs untrusted code for real.
#![expect(clippy::unwrap_used, reason = "a test that unwraps is a test that fails")]

mod it {
    mod component;
    mod hostile_files;
    mod hostile_kernel;
    mod hostile_limits;
    mod hostile_server;
    mod hostile_wasm;
    mod listeners;
    mod outside;
    mod wasm;

    /// Children of the sandbox are this binary: they are started with the name of this test, and never return from it.
    #[test]
    fn sandbox_child() {
        shoal_sandbox::child::run_if_asked();
    }
}
