//! Key files, plain or encrypted with a passphrase (Argon2id, then ChaCha20-Poly1305).

use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result};
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use ratatui::crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, read};
use ratatui::crossterm::terminal;
use wire::{Hash, SigningKey};

use crate::failure::bad_input;

/// First line of an encrypted key file.
const MAGIC: &str = "shoal encrypted key 1";
/// Memory that one guess costs, KiB.
const MEMORY_KIB: u32 = 64 << 10;
/// Passes over it.
const PASSES: u32 = 3;
/// Longest key file, bytes.
const FILE_BYTES: u64 = 4096;
/// Shortest passphrase, characters.
const PASSPHRASE_MIN: usize = 8;

/// Reads a key, also an encrypted one.
pub(crate) fn load_any(path: &Path) -> Result<SigningKey> {
    match sealed(path)? {
        None => Ok(node::key::load(path)?),
        Some(rest) => open(path, &rest, &passphrase(&format!("passphrase of {}: ", path.display()))?),
    }
}

/// What stands in an encrypted key file below its first line; `None` if it is not encrypted.
fn sealed(path: &Path) -> Result<Option<String>> {
    let long = std::fs::metadata(path).is_ok_and(|data| data.len() > FILE_BYTES);
    if long || path.is_dir() {
        let shown = path.display();
        return Err(bad_input(format!(
            "{shown} is no key: name a key file, or make one with `shoal key new FILE`"
        )));
    }
    let text = std::fs::read_to_string(path).ok();
    Ok(text.as_deref().and_then(|text| text.strip_prefix(MAGIC)).map(str::to_owned))
}

fn open(path: &Path, rest: &str, passphrase: &str) -> Result<SigningKey> {
    let wrong = || bad_input(format!("{} is not a whole encrypted key: put back a copy", path.display()));
    let bytes = data_encoding::HEXLOWER.decode(rest.trim().as_bytes()).map_err(|_| wrong())?;
    let (salt, sealed) = bytes.split_first_chunk::<16>().ok_or_else(wrong)?;
    let cipher = cipher(passphrase, salt)?;
    // Each file has its own salt, so its own key: one nonce is enough.
    let payload = Payload { msg: sealed, aad: MAGIC.as_bytes() };
    let secret = cipher
        .decrypt(&Nonce::default(), payload)
        .map_err(|_| bad_input(format!("the passphrase does not open {}", path.display())))?;
    let secret: [u8; 32] = secret.try_into().map_err(|_| wrong())?;
    Ok(SigningKey::from_bytes(&secret))
}

/// Makes a key that only a passphrase opens; the file must not exist.
pub(crate) fn create_encrypted(path: &Path) -> Result<SigningKey> {
    let key = node::key::generate()?;
    let text = seal(&key, &new_passphrase("a passphrase for the new key: ")?)?;
    write_new(path, &text)
        .map_err(|error| bad_input(format!("cannot make the key {}: {error}", path.display())))?;
    Ok(key)
}

/// Puts a key behind a passphrase, in its own file.
pub(crate) fn encrypt(path: &Path) -> Result<SigningKey> {
    let shown = path.display();
    if sealed(path)?.is_some() {
        return Err(bad_input(format!(
            "{shown} is encrypted already: `shoal key decrypt {shown}` first, for another passphrase"
        )));
    }
    let key = node::key::load(path)?;
    let passphrase = new_passphrase(&format!("a passphrase for {shown}: "))?;
    let text = seal(&key, &passphrase)?;
    // What is about to replace the key opens.
    let rest = text.strip_prefix(MAGIC).unwrap_or_default();
    anyhow::ensure!(
        open(path, rest, &passphrase)?.to_bytes() == key.to_bytes(),
        "the key was not sealed well"
    );
    replace(path, &text)?;
    Ok(key)
}

/// Takes the passphrase off a key, in its own file.
pub(crate) fn decrypt(path: &Path) -> Result<SigningKey> {
    let shown = path.display();
    if sealed(path)?.is_none() {
        // What is no key at all, or missing, is named as such.
        node::key::load(path)?;
        return Err(bad_input(format!("{shown} is not encrypted: it can be used as it is")));
    }
    let key = load_any(path)?;
    replace(path, &format!("{}\n", data_encoding::HEXLOWER.encode(&key.to_bytes())))?;
    Ok(key)
}

/// Text of an encrypted key file.
fn seal(key: &SigningKey, passphrase: &str) -> Result<String> {
    let random = node::key::generate()?.to_bytes();
    let salt: [u8; 16] = Hash::of(&random).0[..16].try_into().context("half a hash")?;
    let payload = Payload { msg: &key.to_bytes(), aad: MAGIC.as_bytes() };
    let sealed = cipher(passphrase, &salt)?.encrypt(&Nonce::default(), payload);
    let sealed = sealed.map_err(|_| anyhow::anyhow!("the key could not be encrypted"))?;
    Ok(format!("{MAGIC}\n{}\n", data_encoding::HEXLOWER.encode(&[&salt[..], &sealed].concat())))
}

/// Writes a file that must not exist and only its owner can read; durable when this returns.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    // Half a file would be in the way of the next try, and may hold a secret.
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .inspect_err(|_| drop(std::fs::remove_file(path)))
}

/// Replaces a key file in one step: whoever is interrupted has the old file or the new one, both whole. What a run before left
/// beside it is written anew.
fn replace(path: &Path, text: &str) -> Result<()> {
    let shown = path.display();
    let as_it_was = |error| bad_input(format!("cannot replace the key {shown}, which is as it was: {error}"));
    // A link stays one: the file that it names is replaced.
    let path = path.canonicalize().map_err(as_it_was)?;
    let swap = || {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside = path.with_file_name(format!(".{name}.replacing"));
        match std::fs::remove_file(&aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        write_new(&aside, text)?;
        std::fs::rename(&aside, &path).inspect_err(|_| drop(std::fs::remove_file(&aside)))
    };
    swap().map_err(as_it_was)?;
    let lasting = match path.parent() {
        Some(folder) if cfg!(unix) => std::fs::File::open(folder).and_then(|folder| folder.sync_all()),
        _ => Ok(()),
    };
    lasting.map_err(|error| {
        bad_input(format!("the key {shown} was replaced, but may be the old one after a power cut: {error}"))
    })
}

/// A passphrase that nobody has used yet: typed twice, since a slip would lose the key.
fn new_passphrase(prompt: &str) -> Result<String> {
    let first = passphrase(prompt)?;
    if first.chars().count() < PASSPHRASE_MIN {
        return Err(bad_input(format!("a passphrase of at least {PASSPHRASE_MIN} characters is needed")));
    }
    if passphrase("the same again: ")? != first {
        return Err(bad_input("the two passphrases differ: nothing was changed"));
    }
    Ok(first)
}

fn cipher(passphrase: &str, salt: &[u8; 16]) -> Result<ChaCha20Poly1305> {
    let stretched = |error: argon2::Error| anyhow::anyhow!("the passphrase could not be stretched: {error}");
    let params = Params::new(MEMORY_KIB, PASSES, 1, Some(32)).map_err(stretched)?;
    let mut key = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, &mut key)
        .map_err(stretched)?;
    Ok(ChaCha20Poly1305::new(&Key::from(key)))
}

/// `SHOAL_PASSPHRASE`, else a line from the terminal that is not echoed.
fn passphrase(prompt: &str) -> Result<String> {
    if let Ok(set) = std::env::var("SHOAL_PASSPHRASE") {
        return Ok(set);
    }
    if !std::io::stdin().is_terminal() {
        return Err(bad_input("a passphrase is needed: set SHOAL_PASSPHRASE, or start this in a terminal"));
    }
    write!(std::io::stderr(), "{prompt}")?;
    std::io::stderr().flush()?;
    terminal::enable_raw_mode()?;
    let line = line();
    terminal::disable_raw_mode()?;
    writeln!(std::io::stderr())?;
    line?.ok_or_else(|| bad_input("no passphrase was given"))
}

fn line() -> Result<Option<String>> {
    let mut line = String::new();
    loop {
        // Windows also tells when a key is let go.
        let Event::Key(key) = read()? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match key.code {
            KeyCode::Enter => return Ok(Some(line)),
            KeyCode::Esc => return Ok(None),
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(None),
            KeyCode::Backspace => drop(line.pop()),
            KeyCode::Char(c) => line.push(c),
            _ => {}
        }
    }
}
