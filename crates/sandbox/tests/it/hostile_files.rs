//! Programs that read what they should not, or leave something behind.

use super::outside::outside;

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
