//! What is looked for in an entry before it is run. A tripwire: it tells honest entrants early what is not wanted, and makes
//! tricks visible. What holds an entry is its sandbox.

use serde::Serialize;

use super::reader::{Reader, SpecError};
use crate::limits;

/// Processor that native programs are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Architecture {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86,
    /// 64-bit Arm.
    #[serde(rename = "aarch64")]
    Arm,
}

impl Architecture {
    /// Name in a spec, and of the target of a compiler.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "aarch64",
        }
    }
}

/// What is looked for in an entry before it is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Screening {
    /// Python sources are parsed and held against the three lists.
    pub python: bool,
    /// Modules that may not be imported, with those below them.
    pub forbidden_modules: Vec<String>,
    /// Names that may not be used: built-in ones, or with their module, like `os.system`.
    pub forbidden_names: Vec<String>,
    /// Attributes that may not be used, of whatever.
    pub forbidden_attributes: Vec<String>,
    /// `getattr` may be called with a name that is computed.
    pub dynamic_attributes: bool,
    /// Longest text or bytes written out in a Python source, bytes: longer ones hide data.
    pub literal_bytes_max: u64,
    /// All files of an entry that are no Python sources, its executable or its libraries, together, bytes.
    pub data_bytes_max: u64,
    /// A Python entry may bring executable code that is no Python source: libraries, byte code, archives.
    pub binaries: bool,
    /// What native programs are made for.
    pub architecture: Architecture,
}

impl Default for Screening {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            python: true,
            forbidden_modules: list(&[
                "_ctypes",
                "_posixsubprocess",
                "cffi",
                "ctypes",
                "marshal",
                "posix",
                "pty",
                "subprocess",
            ]),
            forbidden_names: list(&[
                "__import__",
                "compile",
                "eval",
                "exec",
                "importlib.import_module",
                "os.execl",
                "os.execle",
                "os.execlp",
                "os.execlpe",
                "os.execv",
                "os.execve",
                "os.execvp",
                "os.execvpe",
                "os.popen",
                "os.posix_spawn",
                "os.posix_spawnp",
                "os.spawnl",
                "os.spawnle",
                "os.spawnlp",
                "os.spawnlpe",
                "os.spawnv",
                "os.spawnve",
                "os.spawnvp",
                "os.spawnvpe",
                "os.system",
                "runpy.run_module",
                "runpy.run_path",
            ]),
            forbidden_attributes: list(&["__builtins__", "__code__", "__globals__", "__subclasses__"]),
            dynamic_attributes: true,
            literal_bytes_max: 64 << 10,
            data_bytes_max: 64 << 20,
            binaries: false,
            architecture: Architecture::X86,
        }
    }
}

impl Screening {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, SpecError> {
        let default = Self::default();
        let dotted = |text: &str| {
            let part = |part: &str| {
                !part.starts_with(|c: char| c.is_ascii_digit())
                    && !part.is_empty()
                    && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            };
            text.len() <= limits::SCREENING_NAME_BYTES && text.split('.').all(part)
        };
        let plain = |text: &str| dotted(text) && !text.contains('.');
        let of_modules = "names of modules";
        let of_names = "names, with or without their module";
        let machines = [("x86_64", Architecture::X86), ("aarch64", Architecture::Arm)];
        Ok(Self {
            python: reader.flag("python", default.python)?,
            forbidden_modules: reader.texts(
                "forbidden_modules",
                &default.forbidden_modules,
                limits::SCREENING_NAMES_MAX,
                of_modules,
                dotted,
            )?,
            forbidden_names: reader.texts(
                "forbidden_names",
                &default.forbidden_names,
                limits::SCREENING_NAMES_MAX,
                of_names,
                dotted,
            )?,
            forbidden_attributes: reader.texts(
                "forbidden_attributes",
                &default.forbidden_attributes,
                limits::SCREENING_NAMES_MAX,
                "names of attributes",
                plain,
            )?,
            dynamic_attributes: reader.flag("dynamic_attributes", default.dynamic_attributes)?,
            literal_bytes_max: reader.number(
                "literal_bytes_max",
                default.literal_bytes_max,
                64..=limits::CODE_BYTES_MAX,
            )?,
            data_bytes_max: reader.number(
                "data_bytes_max",
                default.data_bytes_max,
                0..=limits::CODE_BYTES_MAX,
            )?,
            binaries: reader.flag("binaries", default.binaries)?,
            architecture: reader.choice("architecture", Some(default.architecture), &machines)?,
        })
    }

    /// All of it as text: one part of the name under which what was found is kept.
    pub fn canonical(&self) -> String {
        toml::to_string(self).expect("a section holds only strings, numbers and lists")
    }
}
