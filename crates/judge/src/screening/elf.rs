//! What an executable says of itself, read from its headers alone (System V ABI, chapters 4 and 5; 64 bits, little-endian).

use arena::measure::Failure;
use arena::spec::Architecture;

use super::Rejection;

/// Most program headers that are read.
const SEGMENTS_MAX: u64 = 128;
/// Most section headers that are read.
const SECTIONS_MAX: u64 = 4096;
const LOAD: u32 = 1;
const INTERPRETER: u32 = 3;
const STACK: u32 = 0x6474_e551;
const EXECUTE: u32 = 1;
const WRITE: u32 = 2;
/// A section that takes no room in the file.
const NOBITS: u32 = 8;

/// Loaders that a jail has.
fn loaders(of: Architecture) -> [&'static str; 3] {
    match of {
        Architecture::X86 => {
            ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1"]
        }
        Architecture::Arm => {
            ["/lib/ld-linux-aarch64.so.1", "/lib64/ld-linux-aarch64.so.1", "/lib/ld-musl-aarch64.so.1"]
        }
    }
}

/// Little-endian numbers at places of a file that may be cut short or lie.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn at<const N: usize>(&self, place: u64) -> Option<[u8; N]> {
        let place = usize::try_from(place).ok()?;
        self.0.get(place..place.checked_add(N)?)?.try_into().ok()
    }

    fn u16(&self, place: u64) -> Option<u16> {
        self.at(place).map(u16::from_le_bytes)
    }

    fn u32(&self, place: u64) -> Option<u32> {
        self.at(place).map(u32::from_le_bytes)
    }

    fn u64(&self, place: u64) -> Option<u64> {
        self.at(place).map(u64::from_le_bytes)
    }
}

/// Whether bytes are meant to be an executable or a library.
pub(super) fn is_elf(code: &[u8]) -> bool {
    code.starts_with(b"\x7fELF")
}

/// Holds an executable or library against what a competition asks for. `slack` bytes may stand behind its last part.
pub(super) fn check(code: &[u8], asked: Architecture, slack: u64) -> Result<(), Rejection> {
    let reject = |failure, reason: String| Err(Rejection { failure, reason });
    if !is_elf(code) {
        return reject(Failure::Invalid, "is no ELF executable".to_owned());
    }
    let bytes = Bytes(code);
    let damaged = || Rejection { failure: Failure::Invalid, reason: "is a damaged executable".to_owned() };
    if bytes.at::<2>(4) != Some([2, 1]) {
        return reject(Failure::Invalid, "is no executable of 64 bits, little-endian".to_owned());
    }
    let (kind, machine) = (bytes.u16(16).ok_or_else(damaged)?, bytes.u16(18).ok_or_else(damaged)?);
    let expected = if asked == Architecture::X86 { 62 } else { 183 };
    if machine != expected {
        let found = match machine {
            62 => "x86_64".to_owned(),
            183 => "aarch64".to_owned(),
            other => format!("processor {other}"),
        };
        return reject(
            Failure::Invalid,
            format!("is made for {found}, the competition asks for {}", asked.name()),
        );
    }
    if !matches!(kind, 2 | 3) {
        return reject(Failure::Invalid, "is neither an executable nor a library".to_owned());
    }
    let mut end = segments(&bytes, asked)?.ok_or_else(damaged)?;
    if let Some(sections) = sections(&bytes) {
        end = end.max(sections);
    }
    let behind = (code.len() as u64).saturating_sub(end);
    if behind > slack {
        return reject(
            Failure::Hidden,
            format!("has {behind} bytes behind its last part, at most {slack} are allowed"),
        );
    }
    Ok(())
}

/// Where the last segment ends; `Ok(None)` for headers that lie.
fn segments(bytes: &Bytes<'_>, asked: Architecture) -> Result<Option<u64>, Rejection> {
    let forbidden = |reason: String| Err(Rejection { failure: Failure::Forbidden, reason });
    let (Some(first), Some(size), Some(count)) = (bytes.u64(32), bytes.u16(54), bytes.u16(56)) else {
        return Ok(None);
    };
    if first > bytes.0.len() as u64 || size != 56 || u64::from(count) > SEGMENTS_MAX {
        return Ok(None);
    }
    let (mut end, mut loaded) = (0, false);
    for index in 0..u64::from(count) {
        let head = first + index * 56;
        let (Some(kind), Some(flags), Some(offset), Some(length)) =
            (bytes.u32(head), bytes.u32(head + 4), bytes.u64(head + 8), bytes.u64(head + 32))
        else {
            return Ok(None);
        };
        let Some(stop) = offset.checked_add(length).filter(|stop| *stop <= bytes.0.len() as u64) else {
            return Ok(None);
        };
        end = end.max(stop);
        loaded |= kind == LOAD;
        if kind == LOAD && flags & (EXECUTE | WRITE) == EXECUTE | WRITE {
            return forbidden(format!("has a segment (number {index}) that can be written and executed"));
        }
        if kind == STACK && flags & EXECUTE != 0 {
            return forbidden("asks for a stack that can be executed".to_owned());
        }
        if kind == INTERPRETER {
            let text = &bytes.0[offset as usize..stop as usize];
            let name = text.split(|byte| *byte == 0).next().unwrap_or_default();
            let name = String::from_utf8_lossy(name);
            if !loaders(asked).contains(&name.as_ref()) {
                return forbidden(format!("asks for the loader {name:.64}"));
            }
        }
    }
    Ok(loaded.then_some(end))
}

/// Where the last section, or the table of them, ends; none where there are none, or they lie: they matter to nobody who runs it.
fn sections(bytes: &Bytes<'_>) -> Option<u64> {
    let (first, size, count) = (bytes.u64(40)?, bytes.u16(58)?, bytes.u16(60)?);
    if size != 64 || u64::from(count) > SECTIONS_MAX || first == 0 {
        return None;
    }
    let length = bytes.0.len() as u64;
    let mut end = first.checked_add(u64::from(count) * 64).filter(|end| *end <= length)?;
    for index in 0..u64::from(count) {
        let head = first + index * 64;
        if bytes.u32(head + 4)? != NOBITS {
            let stop = bytes.u64(head + 24)?.checked_add(bytes.u64(head + 32)?);
            end = end.max(stop.filter(|stop| *stop <= length)?);
        }
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file with these segments (kind, flags, content), in order behind the headers.
    fn file(machine: u16, segments: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(16, 0);
        for number in [2_u16, machine] {
            head.extend(number.to_le_bytes());
        }
        head.extend([0; 12]); // version, entry
        head.extend(64_u64.to_le_bytes());
        head.extend([0; 8 + 4 + 2]); // no sections, flags, size of the head
        for number in [56_u16, segments.len() as u16, 0, 0, 0] {
            head.extend(number.to_le_bytes());
        }
        let mut at = 64 + 56 * segments.len() as u64;
        for (kind, flags, content) in segments {
            head.extend(kind.to_le_bytes());
            head.extend(flags.to_le_bytes());
            for number in [at, 0, 0, content.len() as u64, content.len() as u64, 1] {
                head.extend(number.to_le_bytes());
            }
            at += content.len() as u64;
        }
        for (_, _, content) in segments {
            head.extend(*content);
        }
        head
    }

    const X86: Architecture = Architecture::X86;

    #[test]
    fn good_executables_pass_and_others_are_told_why() {
        let text = (LOAD, EXECUTE | 4, &b"code"[..]);
        let loader = (INTERPRETER, 4, &b"/lib64/ld-linux-x86-64.so.2\0"[..]);
        assert_eq!(check(&file(62, &[text]), X86, 0), Ok(()));
        assert_eq!(check(&file(62, &[loader, text, (STACK, 6, b"")]), X86, 0), Ok(()));
        assert_eq!(check(&file(183, &[text]), Architecture::Arm, 0), Ok(()));
        let mut appended = file(62, &[text]);
        appended.extend([7; 100]);
        assert_eq!(check(&appended, X86, 100), Ok(()));
        let mut cut = file(62, &[text]);
        cut.pop();
        let mut small = file(62, &[text]);
        small[4] = 1;
        let mut far = file(62, &[text]);
        far[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        let mut near = far.clone();
        near[32..40].copy_from_slice(&(u64::MAX - 40).to_le_bytes());
        for (code, failure, reason) in [
            (appended, Failure::Hidden, "100 bytes behind"),
            (file(183, &[text]), Failure::Invalid, "made for aarch64"),
            (file(3, &[text]), Failure::Invalid, "processor 3"),
            (file(62, &[(LOAD, 7, b"both")]), Failure::Forbidden, "written and executed"),
            (file(62, &[text, (STACK, 7, b"")]), Failure::Forbidden, "stack"),
            (file(62, &[(INTERPRETER, 4, b"/entry/loader\0"), text]), Failure::Forbidden, "/entry/loader"),
            (file(62, &[]), Failure::Invalid, "damaged"),
            (cut, Failure::Invalid, "damaged"),
            (small, Failure::Invalid, "64 bits"),
            (far, Failure::Invalid, "damaged"),
            (near, Failure::Invalid, "damaged"),
            (b"#!/bin/sh\n".to_vec(), Failure::Invalid, "no ELF"),
            (b"\x7fELF".to_vec(), Failure::Invalid, "64 bits"),
        ] {
            let found = check(&code, X86, 99).unwrap_err();
            assert_eq!(found.failure, failure, "{reason}: {}", found.reason);
            assert!(found.reason.contains(reason), "{reason}: {}", found.reason);
        }
    }

    #[test]
    fn a_program_of_this_machine_passes() {
        let Ok(code) = std::fs::read("/proc/self/exe") else { return };
        let ours = match std::env::consts::ARCH {
            "x86_64" => Architecture::X86,
            "aarch64" => Architecture::Arm,
            _ => return,
        };
        assert_eq!(check(&code, ours, 4096), Ok(()));
    }

    proptest! {
        #[test]
        fn damaged_files_are_rejections_and_never_panics(
            flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..12),
            cut in any::<proptest::sample::Index>(),
        ) {
            let mut code = file(62, &[(INTERPRETER, 4, b"/lib/ld-musl-x86_64.so.1\0"), (LOAD, 5, b"code")]);
            for (at, byte) in flips {
                let at = at.index(code.len());
                code[at] = byte;
            }
            code.truncate(code.len() - cut.index(code.len()));
            drop(check(&code, X86, 16));
        }
    }
}
