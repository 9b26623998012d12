//! Programs that try to leave by way of the kernel or of other processes.

use std::process::{Command, Stdio};

use shoal_sandbox::{End, Fault};

use super::outside::{limits, lives, outside};

/// The filter ends these; what they ask for has no honest use.
fn escapes(attacks: &[&str]) {
    let Some(outside) = outside() else { return };
    for attack in attacks {
        outside.ends(attack, &[], limits(), Fault::Escape);
    }
}

#[test]
fn tracing_and_reading_other_processes() {
    escapes(&["ptrace", "ptrace-me", "read-memory"]);
}

#[test]
fn nested_namespaces() {
    escapes(&["unshare", "unshare-net", "clone-user", "clone-pid", "setns"]);
    let Some(outside) = outside() else { return };
    outside.shut("clone3", &[]);
}

#[test]
fn mounts() {
    escapes(&["mount", "remount", "new-mount", "umount", "chroot", "pivot"]);
}

#[test]
fn keyrings() {
    escapes(&["keyring", "add-key"]);
}

#[test]
fn bpf_perf_and_user_faults() {
    escapes(&["bpf", "perf", "userfault"]);
}

#[test]
fn modules_reboot_clock_and_handles() {
    escapes(&["module", "reboot", "clock", "handle"]);
}

#[test]
fn io_uring_and_personality_do_not_exist() {
    let Some(outside) = outside() else { return };
    outside.shut("io-uring", &[]);
    outside.shut("personality", &[]);
}

#[test]
fn the_filter_stays_on() {
    let Some(outside) = outside() else { return };
    outside.shut("seccomp-off", &[]);
    outside.shut("child-escapes", &[]);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn other_entries_to_the_kernel() {
    let Some(outside) = outside() else { return };
    outside.shut("x32", &[]);
    // Killed by the filter, or by the processor where the kernel has no such entry.
    let report = outside.run("int80", &[], limits());
    assert!(matches!(report.end, End::Failed(Fault::Escape | Fault::Trap)), "{report:?}");
}

#[test]
fn a_shell_whose_command_is_caught_is_caught() {
    let Some(outside) = outside() else { return };
    let (mut program, token) = outside.program("mount", &[], limits());
    let line = program.argv.join(" ");
    program.argv = ["/bin/sh".to_owned(), "-c".to_owned(), format!("{line}; exit $?")].to_vec();
    let report = outside.machine.run(&program).unwrap();
    assert_eq!(report.end, End::Failed(Fault::Escape), "{report:?}");
    outside.nothing_is_left(&token);
}

#[test]
fn rights_cannot_be_gained() {
    let Some(outside) = outside() else { return };
    outside.shut("setuid-file", &[]);
}

#[test]
fn signals_do_not_get_out() {
    let Some(outside) = outside() else { return };
    let mut sleeper = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
    let (theirs, ours) = (sleeper.id().to_string(), std::process::id().to_string());
    outside.shut("signal", &[&theirs, &ours]);
    // To all it sees. Where landlock knows signals (6.12) they reach nobody; elsewhere they end the supervisor, and so
    // the run.
    for what in ["signal-all", "signal-supervisor"] {
        let report = outside.run(what, &[], limits());
        assert!(matches!(report.end, End::Exited(0) | End::Failed(Fault::Escape)), "{what}: {report:?}");
    }
    assert!(sleeper.try_wait().unwrap().is_none() && lives(sleeper.id()));
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[test]
fn a_stopped_supervisor_does_not_stop_the_clock() {
    let Some(outside) = outside() else { return };
    let limits = shoal_sandbox::JailLimits { wall: std::time::Duration::from_millis(500), ..limits() };
    let report = outside.run("stop-supervisor", &[], limits);
    assert!(matches!(report.end, End::Exited(0) | End::Failed(Fault::Time)), "{report:?}");
}

#[test]
fn proc_gives_nothing_away() {
    let Some(outside) = outside() else { return };
    outside.shut("proc", &[]);
    outside.shut("see-processes", &[]);
}
