//! Runs the built `shoal` and reads what it says.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longest that any command of these tests may take.
pub(crate) const DEADLINE: Duration = Duration::from_mins(4);

/// A spec of a small model in two stages, whose cut sends numbers; its name and what is asked of it come with it.
pub(crate) fn two_stages(name: &str, more: &str) -> String {
    format!(
        "name = \"{name}\"\nstages = 2\n[model]\npreset = \"micro\"\n[cut]\nkind = \"plain\"\nwire = \"bf16\"\n{more}"
    )
}

/// A codec of this project, as a committed component.
pub(crate) fn component(name: &str) -> String {
    let crate_folder = std::env::var_os("CARGO_MANIFEST_DIR").expect("started by cargo");
    let path = PathBuf::from(crate_folder).join("../../components/wasm").join(format!("{name}.wasm"));
    path.canonicalize().expect("a committed component").display().to_string()
}

/// A folder to work in, and the command to run there.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes text that a model can learn something from: it repeats words, but not whole lines.
    pub(crate) fn write_text(&self, name: &str, bytes: usize) {
        let words =
            ["the", "shoal", "turns", "and", "every", "fish", "follows", "its", "neighbour", "home", "\n"];
        let mut state = 0x3039_u64 ^ name.len() as u64;
        let mut text = String::new();
        while text.len() < bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(words[(state >> 33) as usize % words.len()]);
            text.push(' ');
        }
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("inside the folder")).expect("a folder");
        std::fs::write(path, text).expect("a text file");
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
        command.args(args).current_dir(self.folder.path()).env_remove("SHOAL_LOG").stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let child =
            self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("shoal starts");
        Ran::wait(child)
    }
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Waits for the end; a command that hangs is killed and fails the test.
    pub(crate) fn wait(child: Child) -> Self {
        let id = child.id();
        let (done, waiting) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(child.wait_with_output()));
        let Ok(output) = waiting.recv_timeout(DEADLINE) else {
            let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
            panic!("shoal did not end within {} s", DEADLINE.as_secs());
        };
        let Output { status, stdout, stderr } = output.expect("its output");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Self { code: status.code(), out: text(stdout), err: text(stderr) }
    }

    /// Asserts that it went well.
    pub(crate) fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self
    }

    /// Asserts that it failed with `code` and one line that holds all of `words`.
    pub(crate) fn bad(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        let line = self.err.lines().last().unwrap_or_default();
        assert!(line.starts_with("shoal: "), "{}", self.err);
        for word in words {
            assert!(line.contains(word), "{word:?} is not in {line:?}");
        }
    }

    /// The JSON objects on its standard output.
    pub(crate) fn objects(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
    }

    /// The last object, which must be the summary.
    pub(crate) fn summary(&self) -> Value {
        let last = self.objects().pop().expect("at least one object");
        assert_eq!(last["event"], "summary", "{last}");
        last
    }
}

/// Waits until `holds` gives something.
pub(crate) fn until<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = holds() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        // The operating system offers no event for the death of a grandchild.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ids of the processes whose parent is `parent`.
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| parent_of(*id) == Some(parent)).collect()
}

fn parent_of(id: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Whether a process is there and no zombie.
pub(crate) fn alive(id: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{id}/stat")) else { return false };
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Names of the entries of a folder, sorted.
pub(crate) fn entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
