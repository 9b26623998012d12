//! Children die with their parent, however it dies.
//!
//! The parent keeps the write end of each child's standard input and never writes: the child reads until it ends.
//! Where the system offers it, the kernel kills the child as well, should it be too stuck to read.

use std::io::Read;

/// Ends this process as soon as the process that started it is gone.
pub(crate) fn die_with_it() {
    #[cfg(target_os = "linux")]
    {
        // A refusal is no harm: the pipe below is enough.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    }
    let watch = || {
        let mut stdin = std::io::stdin().lock();
        let mut ignored = [0_u8; 64];
        loop {
            match stdin.read(&mut ignored) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // Nothing to save: whatever was acknowledged is on disk already.
        std::process::exit(i32::from(crate::failure::FAILED));
    };
    let thread = std::thread::Builder::new().name("parent".to_owned()).spawn(watch);
    if let Err(error) = thread {
        tracing::warn!(%error, "cannot watch the parent process");
    }
}
