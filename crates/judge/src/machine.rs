//! What this judge's machine is, as its verdicts say it.

use std::fs;
use std::thread::available_parallelism;

use arena::account::Machine;
use arena::limits::NAME_BYTES;

use crate::judge::plain;

/// This machine; `jail` is what holds programs here, where the entry was one.
pub(crate) fn describe(jail: Option<&sandbox::Machine>) -> Machine {
    let cores = available_parallelism().map_or(0, |cores| cores.get().try_into().unwrap_or(u32::MAX));
    Machine {
        cpu_model: plain(&cpu_model(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()), NAME_BYTES),
        cores,
        memory_bytes: memory_bytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        sandbox: plain(&sandbox_words(jail), NAME_BYTES),
    }
}

fn sandbox_words(jail: Option<&sandbox::Machine>) -> String {
    let Some(jail) = jail else {
        let settings = sandbox::wasm::settings_hash();
        return format!("wasmtime {}, settings {}", sandbox::wasm::WASMTIME, settings.short());
    };
    let holds = jail.enforcement();
    let cgroup = match holds.cgroup {
        sandbox::jail::Version::V1 => "cgroup v1",
        sandbox::jail::Version::V2 => "cgroup v2",
    };
    let mut words = vec!["bubblewrap", "seccomp", cgroup];
    words.extend(holds.cpu_quota.then_some("processor quota"));
    words.extend(holds.landlock.then_some("landlock"));
    words.join(", ")
}

/// Name of the first processor; where there is none (Arm), its architecture.
fn cpu_model(cpuinfo: &str) -> String {
    let value = |line: &str| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim().to_owned())
    };
    cpuinfo.lines().find_map(value).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn memory_bytes(meminfo: &str) -> u64 {
    let kib = |line: &str| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok();
    meminfo.lines().find_map(kib).unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_told_within_a_verdicts_bounds() {
        let machine = describe(None);
        let account = arena::account::Account { machine: machine.clone(), ..Default::default() };
        assert_eq!(account.check(), Ok(()));
        assert!(machine.cores > 0 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(machine.sandbox.starts_with("wasmtime ") && !machine.cpu_model.is_empty(), "{machine:?}");
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\n"), "Fast CPU @ 3 GHz");
        assert_eq!(cpu_model("CPU implementer : 0x41\n"), std::env::consts::ARCH);
        assert_eq!(memory_bytes("MemTotal:       16 kB\nMemFree: 1 kB\n"), 16384);
        assert_eq!(plain(&"é".repeat(NAME_BYTES), NAME_BYTES + 1).len(), NAME_BYTES);
        assert_eq!(plain("a\tb", 9), "ab");
    }
}
