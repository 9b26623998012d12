//! Programs that read what they should not, or leave something behind.

use super::outside::{limits, outside};

#[test]
fn files_of_others() {
    let Some(outside) = outside() else { return };
    let secret = outside.folder.path().join("secret");
    let source = outside.folder.path().join("hostile.c");
    let exe = std::env::current_exe().unwrap();
    let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    outside.shut(
        "read",
        &[
            secret.to_str().unwrap(),
            source.to_str().unwrap(),
            exe.to_str().unwrap(),
            &format!("{manifest}/Cargo.toml"),
            "/.shoal/child",
            "/etc/shadow",
            "/etc/hostname",
            "/etc/machine-id",
            "/etc/ssh/sshd_config",
            "/root/.bashrc",
            "/root/.profile",
            "/var/lib/dpkg/status",
            "/var/log/dpkg.log",
            "/sys/class/dmi/id/product_uuid",
            "/sys/kernel/notes",
            "/boot/config",
            "/run/utmp",
        ],
    );
}

#[test]
fn nothing_can_be_written_but_its_own_disk() {
    let Some(outside) = outside() else { return };
    outside.shut(
        "write",
        &[
            "/x",
            "/usr/x",
            "/usr/bin/env",
            "/lib/x",
            "/etc/passwd",
            "/etc/x",
            "/entry/hostile",
            "/entry/x",
            "/dev/x",
            "/proc/x",
            "/proc/self/oom_score_adj",
            "/proc/self/comm",
            "/.shoal/child",
        ],
    );
}

#[test]
fn links_lead_nowhere() {
    let Some(outside) = outside() else { return };
    outside.shut("links", &[]);
}

#[test]
fn devices_cannot_be_made_or_opened() {
    let Some(outside) = outside() else { return };
    outside.shut("devices", &[]);
}

#[test]
fn state_does_not_pass_from_run_to_run() {
    let Some(outside) = outside() else { return };
    outside.shut("remember", &[]);
    outside.shut("remember", &[]);
}

/// Nothing tells a program which run this is, on what input, or whether it is measured: two runs see the same.
#[test]
fn every_run_looks_the_same() {
    let Some(outside) = outside() else { return };
    let look = "env | sort; id; uname -n; pwd; ls -a / /tmp /dev /dev/shm /entry /etc; cat /proc/self/cgroup /etc/passwd; \
        grep -v -e Mem -e :[[:space:]] /proc/self/mounts | cut -d' ' -f2-3; ls /proc | grep '^[0-9]'; ulimit -a";
    let mut program = outside.program("exit", &["0"], limits()).0;
    program.argv = ["/bin/sh", "-c", look].map(str::to_owned).to_vec();
    program.limits.log_bytes = 1 << 16;
    let reports = [0; 2].map(|_| outside.machine.run(&program).unwrap());
    let text = String::from_utf8_lossy(&reports[0].stdout).into_owned();
    assert_eq!(text, String::from_utf8_lossy(&reports[1].stdout));
    assert!(text.contains("uid=1000(entry)") && text.contains("HOME=/tmp"), "{text}");
    let judge = outside.folder.path().to_str().unwrap();
    for word in ["shoal", "judge", "SANDBOX", judge] {
        assert!(!text.replace("/.shoal", "").replace("\n.shoal\n", "").contains(word), "{word} in {text}");
    }
}
