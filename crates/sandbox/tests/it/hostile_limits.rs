//! Programs that take too much of something.

use std::io::Write as _;
use std::time::{Duration, Instant};

use shoal_sandbox::{End, Fault, JailLimits, Program};

use super::outside::{limits, outside};

#[test]
fn endless_loop() {
    let Some(outside) = outside() else { return };
    let limits = JailLimits { cpu: Duration::from_millis(300), ..limits() };
    let report = outside.ends("spin", &[], limits, Fault::Time);
    assert!(report.usage.cpu >= Duration::from_millis(300), "{report:?}");
    assert!(report.note.contains("processor time"), "{report:?}");
}

#[test]
fn sleep() {
    let Some(outside) = outside() else { return };
    let limits = JailLimits { wall: Duration::from_millis(300), ..limits() };
    for what in ["sleep", "stop", "ignore-signals"] {
        let started = Instant::now();
        outside.ends(what, &[], limits, Fault::Time);
        assert!(started.elapsed() >= Duration::from_millis(300));
    }
}

/// What prepares a program lives under its limits and sees its files; where it fails, the program never starts.
#[test]
fn what_prepares_a_program() {
    let Some(outside) = outside() else { return };
    let run = |prepare: &str, script: &str| {
        let mut program = Program::new(["/bin/sh", "-c", script]);
        program.prepare = ["/bin/sh", "-c", prepare].map(str::to_owned).into();
        program.env = vec![("SIDE".to_owned(), "left".to_owned())];
        program.limits = limits();
        program.stdin = b"for the program".to_vec();
        outside.machine.run(&program).unwrap()
    };
    let report = run("cat; echo made for $SIDE > /tmp/made; echo first", "cat /tmp/made; cat");
    assert_eq!(report.end, End::Exited(0), "{report:?}");
    assert_eq!(report.stdout, b"first\nmade for left\nfor the program", "{report:?}");

    let report = run("echo broken >&2; exit 3", "echo started");
    assert_eq!(report.end, End::Failed(Fault::Startup), "{report:?}");
    assert!(report.note.contains("`/bin/sh`") && report.note.contains('3'), "{report:?}");
    assert_eq!((&report.stdout[..], &report.stderr[..]), (&b""[..], &b"broken\n"[..]), "{report:?}");

    let report = run("while :; do sleep 0.1; done & exec /no/such/program", "echo started");
    assert_eq!(report.end, End::Failed(Fault::Startup), "{report:?}");
    let report = run("exec head -c 9000000 /dev/zero > /tmp/full", "echo started");
    assert_eq!(report.end, End::Failed(Fault::Disk), "{report:?}");
    let slow = JailLimits { wall: Duration::from_millis(300), ..limits() };
    let mut program = Program::new(["/bin/true"]);
    program.prepare = ["/bin/sleep", "60"].map(str::to_owned).into();
    program.limits = slow;
    assert_eq!(outside.machine.run(&program).unwrap().end, End::Failed(Fault::Time));
    program.prepare = vec!["no-such-compiler".to_owned()];
    let error = outside.machine.run(&program).unwrap_err().to_string();
    assert!(
        error.contains("`no-such-compiler` is not installed") && error.contains("other judges"),
        "{error}"
    );
    for (signal, fault) in [("SYS", Fault::Escape), ("XFSZ", Fault::Disk), ("SEGV", Fault::Startup)] {
        let report = run(&format!("kill -{signal} $$"), "echo started");
        assert_eq!(report.end, End::Failed(fault), "{report:?}");
    }
    program.prepare = vec!["/no/such/program".to_owned()];
    let report = outside.machine.run(&program).unwrap();
    assert_eq!(report.end, End::Failed(Fault::Startup), "{report:?}");
    assert!(report.note.contains("does not start"), "{report:?}");
}

#[test]
fn fork_bomb() {
    let Some(outside) = outside() else { return };
    outside.ends("fork-bomb", &[], limits(), Fault::Processes);
}

#[test]
fn thread_bomb() {
    let Some(outside) = outside() else { return };
    outside.ends("thread-bomb", &[], limits(), Fault::Processes);
}

#[test]
fn memory_bomb() {
    let Some(outside) = outside() else { return };
    let report = outside.ends("memory-bomb", &[], limits(), Fault::Memory);
    assert!(report.usage.memory_peak_bytes >= 60 << 20, "{report:?}");
    outside.ends("memory-bomb-children", &[], JailLimits { processes: 40, ..limits() }, Fault::Memory);
    outside.run("locked-memory", &[], limits());
}

#[test]
fn memory_that_looks_like_a_file() {
    let Some(outside) = outside() else { return };
    outside.ends("memfd-bomb", &[], limits(), Fault::Memory);
}

#[test]
fn disk_bomb() {
    let Some(outside) = outside() else { return };
    let small = JailLimits { disk_bytes: 4 << 20, ..limits() };
    // One file may be as large as the disk, so the disk is full first; both have the same name.
    outside.ends("disk-bomb", &[], small, Fault::Disk);
    outside.ends("disk-bomb-exit", &[], small, Fault::Disk);
    outside.ends("shm-bomb", &[], small, Fault::Disk);
    outside.ends("sparse-bomb", &[], small, Fault::Disk);
}

#[test]
fn files_without_bytes() {
    let Some(outside) = outside() else { return };
    let report = outside.run("inode-bomb", &[], limits());
    assert!(matches!(report.end, End::Failed(Fault::Memory | Fault::Disk)), "{report:?}");
}

#[test]
fn open_files() {
    let Some(outside) = outside() else { return };
    outside.shut("file-bomb", &[]);
}

#[test]
fn endless_output() {
    let Some(outside) = outside() else { return };
    for what in ["output-bomb", "error-bomb"] {
        let report = outside.ends(what, &[], limits(), Fault::OutputTooLarge);
        assert!(report.truncated && report.stdout.len() + report.stderr.len() <= 1000, "{report:?}");
        assert!(report.usage.output_bytes < 64 << 20, "{report:?}");
    }
}

#[test]
fn a_log_is_cut_but_counted() {
    let Some(outside) = outside() else { return };
    let report = outside.run("print", &["5000"], limits());
    assert_eq!((report.end, report.truncated), (End::Exited(0), true));
    assert_eq!((report.stdout, report.usage.output_bytes), (vec![b'a'; 1000], 5000));
    let report = outside.run("print", &["1000"], limits());
    assert!(!report.truncated && report.stdout.len() == 1000);
}

#[test]
fn a_crash_is_a_trap_and_leaves_no_core() {
    let Some(outside) = outside() else { return };
    assert!(outside.ends("abort", &[], limits(), Fault::Trap).note.contains("signal 6"));
    assert!(outside.ends("crash", &[], limits(), Fault::Trap).note.contains("signal 11"));
}

#[test]
fn exit_codes_are_reported() {
    let Some(outside) = outside() else { return };
    for code in [0, 1, 42, 255] {
        assert_eq!(outside.run("exit", &[&code.to_string()], limits()).end, End::Exited(code));
    }
}

#[test]
fn limits_cannot_be_raised_from_inside() {
    let Some(outside) = outside() else { return };
    outside.shut("raise-limits", &[]);
}

#[test]
fn a_daemon_dies_with_its_run() {
    let Some(outside) = outside() else { return };
    outside.shut("daemon", &[]);
}

#[test]
fn a_dropped_jail_leaves_nothing() {
    let Some(outside) = outside() else { return };
    let (program, token) = outside.program("sleep", &[], limits());
    drop(outside.machine.start(&program).unwrap());
    outside.nothing_is_left(&token);
    let jail = outside.machine.start(&program).unwrap();
    assert_eq!(jail.stop().unwrap().end, End::Stopped);
    outside.nothing_is_left(&token);
}

#[test]
fn a_quota_slows_a_program_down() {
    let Some(outside) = outside() else { return };
    if !outside.machine.enforcement().cpu_quota {
        _ = writeln!(std::io::stderr(), "skipped: no processor quota on this machine");
        return;
    }
    let limits = JailLimits { cpus: Some(0.2), wall: Duration::from_secs(1), ..limits() };
    let report = outside.ends("spin", &[], limits, Fault::Time);
    assert!(report.usage.cpu < Duration::from_millis(600), "{report:?}");
}

#[test]
fn a_program_that_is_not_there() {
    let Some(outside) = outside() else { return };
    let (mut program, token) = outside.program("exit", &["0"], limits());
    program.argv[0] = "/entry/nothing".to_owned();
    let report = outside.machine.run(&program).unwrap();
    assert_eq!(report.end, End::Failed(Fault::Startup), "{report:?}");
    assert!(report.note.contains("/entry/nothing"), "{report:?}");
    program.argv[0] = "/etc/passwd".to_owned();
    assert_eq!(outside.machine.run(&program).unwrap().end, End::Failed(Fault::Startup));
    outside.nothing_is_left(&token);
}

#[test]
fn what_the_caller_may_not_ask() {
    let Some(outside) = outside() else { return };
    let (program, _) = outside.program("exit", &["0"], limits());
    let refuse = |change: fn(&mut shoal_sandbox::Program)| {
        let mut changed = program.clone();
        change(&mut changed);
        let error = outside.machine.start(&changed).unwrap_err();
        assert!(error.to_string().contains("cannot be jailed"), "{error}");
    };
    refuse(|program| program.argv.clear());
    refuse(|program| program.argv.push("a\0b".to_owned()));
    refuse(|program| program.argv.push("a".repeat(100_000)));
    refuse(|program| program.mounts[0].to = "/proc/self".into());
    refuse(|program| program.mounts[0].to = "/entry/../proc".into());
    refuse(|program| program.mounts[0].to = "entry".into());
    refuse(|program| program.mounts[0].from = "/nonexistent".into());
    refuse(|program| program.folder = "tmp".into());
}

#[test]
fn standard_input_and_environment_arrive() {
    let Some(outside) = outside() else { return };
    let mut program =
        shoal_sandbox::Program::new(["/bin/sh", "-c", "cat; echo $A:$HOME:$SHOAL_SANDBOX_CHILD; pwd >&2"]);
    program.stdin = b"given ".repeat(20_000);
    program.env = vec![("A".to_owned(), "b c".to_owned())];
    program.limits = JailLimits { log_bytes: 1 << 20, ..limits() };
    let report = outside.machine.run(&program).unwrap();
    assert_eq!(report.end, End::Exited(0), "{report:?}");
    let mut expected = program.stdin.clone();
    expected.extend_from_slice(b"b c:/tmp:\n");
    assert!(
        report.stdout == expected,
        "{}",
        String::from_utf8_lossy(&report.stdout[report.stdout.len() - 50..])
    );
    assert_eq!(report.stderr, b"/tmp\n");
}

#[test]
fn without_bubblewrap_the_next_step_is_named() {
    let out = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["it::hostile_limits::exit_codes_are_reported", "--exact", "--nocapture"])
        .env("PATH", "/nonexistent")
        .env_remove("SHOAL_TEST_JAIL")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(
        text.contains(
            "skipped: programs cannot be jailed on this machine: bubblewrap (bwrap) is not installed"
        )
    );
    assert!(text.contains("apt install bubblewrap") && out.status.success(), "{text}");
}
