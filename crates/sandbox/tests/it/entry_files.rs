//! Entries' folders and archives: what is laid out, and what is refused before it touches the disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use shoal_sandbox::entry::{copy_folder, unpack_tar};
use shoal_sandbox::{EntryLimits, Fault};
use tar::{Builder, EntryType, Header};

const LIMITS: EntryLimits = EntryLimits { bytes: 10_000, files: 20 };

/// A folder, and a place in it for what is laid out.
fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to");
    (folder, to)
}

/// An archive with one item, whose name is written as it is, without the checks of a well-meaning library.
fn item(builder: &mut Builder<Vec<u8>>, name: &[u8], kind: EntryType, link: &[u8], data: &[u8]) {
    let mut header = Header::new_ustar();
    header.set_size(data.len() as u64);
    header.set_mode(0o755);
    header.set_entry_type(kind);
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_cksum();
    builder.append(&header, data).unwrap();
}

/// Name, kind, link and data.
type Item<'a> = (&'a [u8], EntryType, &'a [u8], &'a [u8]);

fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, link, data) in items {
        item(&mut builder, name, *kind, link, data);
    }
    builder.into_inner().unwrap()
}

fn refused(archive: &[u8], fault: Fault) {
    let (folder, to) = place();
    let canary = folder.path().join("canary");
    fs::write(&canary, "alive").unwrap();
    let error = unpack_tar(archive, &to, &LIMITS).unwrap_err();
    assert_eq!(error.fault(), Some(fault), "{error}");
    assert_eq!(fs::read(canary).unwrap(), b"alive");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "something lies beside the entry");
}

const FILE: EntryType = EntryType::Regular;

#[test]
fn an_honest_archive() {
    let (_folder, to) = place();
    let archive = archive(&[
        (b"./", EntryType::Directory, b"", b""),
        (b"solution.py", FILE, b"", b"print('hello')"),
        (b"./lib/deep/table.bin", FILE, b"", b"0123"),
        (b"lib/", EntryType::Directory, b"", b""),
    ]);
    assert_eq!(unpack_tar(&archive, &to, &LIMITS).unwrap(), 18);
    assert_eq!(fs::read(to.join("lib/deep/table.bin")).unwrap(), b"0123");
    assert_eq!(fs::metadata(to.join("solution.py")).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn names_that_lead_out() {
    for name in [b"../canary".as_slice(), b"/etc/cron.d/x", b"a/../../canary", b"a/b/../../../canary", b".."]
    {
        refused(&archive(&[(name, FILE, b"", b"x")]), Fault::Forbidden);
    }
}

#[test]
fn links_and_special_files() {
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Fifo,
        EntryType::Char,
        EntryType::Block,
        EntryType::Continuous,
        EntryType::GNUSparse,
    ] {
        let archive = archive(&[(b"a", kind, b"../canary", b""), (b"a/b", FILE, b"", b"x")]);
        let (folder, to) = place();
        let error = unpack_tar(&archive, &to, &LIMITS).unwrap_err();
        assert!(matches!(error.fault(), Some(Fault::Forbidden | Fault::Invalid)), "{kind:?}: {error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn names_that_clash() {
    refused(&archive(&[(b"a", FILE, b"", b"1"), (b"a", FILE, b"", b"2")]), Fault::Invalid);
    refused(&archive(&[(b"a", FILE, b"", b"1"), (b"a/b", FILE, b"", b"2")]), Fault::Invalid);
    refused(&archive(&[(b"a/b", FILE, b"", b"1"), (b"a", FILE, b"", b"2")]), Fault::Invalid);
    refused(&archive(&[(b"a\nb", FILE, b"", b"1")]), Fault::Invalid);
    refused(&archive(&[(b"a\x1b[2Jb", FILE, b"", b"1")]), Fault::Invalid);
    refused(&archive(&[(b"..\\canary", FILE, b"", b"1")]), Fault::Invalid);
}

#[test]
fn too_much_of_anything() {
    refused(&archive(&[(b"a", FILE, b"", &[0; 10_001])]), Fault::Invalid);
    refused(&archive(&[(b"a", FILE, b"", &[0; 6000]), (b"b", FILE, b"", &[0; 6000])]), Fault::Invalid);
    let names: Vec<String> = (0..30).map(|n| format!("f{n}")).collect();
    let many: Vec<_> =
        names.iter().map(|name| (name.as_bytes(), FILE, b"".as_slice(), b"".as_slice())).collect();
    refused(&archive(&many), Fault::Invalid);
    refused(&archive(&[("d/".repeat(40).as_bytes(), EntryType::Directory, b"", b"")]), Fault::Invalid);
    // A header that promises more than is there.
    let mut short = archive(&[(b"a", FILE, b"", b"1")]);
    short[124..135].copy_from_slice(b"77777777777");
    let sum: u32 = short[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    short[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    refused(&short, Fault::Invalid);
}

#[test]
fn what_is_no_archive() {
    for bytes in [b"".as_slice(), b"PK\x03\x04 a zip", &[0; 1024], &[0xff; 5000]] {
        refused(bytes, Fault::Invalid);
    }
}

#[test]
fn a_folder_is_copied_but_for_what_leads_out() {
    let (folder, to) = place();
    let from = folder.path().join("from");
    fs::create_dir_all(from.join("sub/sub")).unwrap();
    fs::write(from.join("sub/sub/a"), "12345").unwrap();
    fs::write(from.join("run"), "#!").unwrap();
    fs::set_permissions(from.join("run"), fs::Permissions::from_mode(0o4777)).unwrap();
    assert_eq!(copy_folder(&from, &to, &LIMITS).unwrap(), 7);
    assert_eq!(fs::read(to.join("sub/sub/a")).unwrap(), b"12345");
    assert_eq!(
        fs::metadata(to.join("run")).unwrap().permissions().mode() & 0o7022,
        0,
        "no set-user-id, not for others"
    );

    let again = |name: &str, make: &dyn Fn(&Path)| {
        make(&from.join(name));
        let to = folder.path().join(format!("to-{name}"));
        let error = copy_folder(&from, &to, &LIMITS).unwrap_err();
        assert_eq!(error.fault(), Some(Fault::Forbidden), "{name}: {error}");
        fs::remove_file(from.join(name)).unwrap();
    };
    again("symlink", &|path| symlink("/etc/passwd", path).unwrap());
    again("loop", &|path| symlink(".", path).unwrap());
    again("socket", &|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()));
    again("pipe", &|path| {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    });
    let error =
        copy_folder(&from, &folder.path().join("small"), &EntryLimits { bytes: 6, files: 20 }).unwrap_err();
    assert_eq!(error.fault(), Some(Fault::Invalid), "{error}");
    let error =
        copy_folder(&from, &folder.path().join("few"), &EntryLimits { bytes: 100, files: 3 }).unwrap_err();
    assert_eq!(error.fault(), Some(Fault::Invalid), "{error}");
}
