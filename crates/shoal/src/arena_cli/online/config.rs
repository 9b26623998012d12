//! What `link` remembers, in the user's config folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::failure::bad_input;

/// Where a host listens if nobody says otherwise.
pub(crate) const PORT: u16 = 7464;

/// Host and key of a user.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Address of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<String>,
    /// Key file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct LinkArgs {
    /// Address of the host.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Key file that signs; made if it is not there.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Encrypt a new key with a passphrase.
    #[arg(long, requires = "key")]
    encrypt: bool,
}

/// Our folder in the one that `variable` names, or in `home` of the user's; on Windows, in the one that `windows` names.
fn folder(variable: &str, home: &str, windows: &str) -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let (user, below) = if cfg!(windows) { (windows, "") } else { ("HOME", home) };
    let base = set(variable).or_else(|| set(user).map(|folder| folder.join(below)));
    let base =
        base.with_context(|| format!("neither {variable} nor {user} is set: where is your config?"))?;
    Ok(base.join("shoal"))
}

/// Folder of sealed entries and verdicts.
pub(crate) fn data_folder() -> Result<PathBuf> {
    folder("XDG_DATA_HOME", ".local/share", "LOCALAPPDATA")
}

fn path() -> Result<PathBuf> {
    Ok(folder("XDG_CONFIG_HOME", ".config", "APPDATA")?.join("arena.toml"))
}

impl Config {
    /// What is remembered; nothing if nothing was.
    pub(crate) fn load() -> Result<Self> {
        let path = path()?;
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(bad_input(format!("cannot read {}: {error}", path.display()))),
        };
        toml::from_str(&text).map_err(|error| bad_input(format!("{}: {error}", path.display())))
    }

    /// The host that is meant.
    pub(crate) fn server(&self, given: Option<&str>) -> String {
        let set = std::env::var("SHOAL_ARENA").ok().filter(|text| !text.is_empty());
        let known = given.map(str::to_owned).or(set).or_else(|| self.server.clone());
        known.unwrap_or_else(|| format!("http://127.0.0.1:{PORT}"))
    }

    fn save(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let aside = path.with_extension("new");
        std::fs::write(&aside, toml::to_string(self)?)?;
        std::fs::rename(aside, path)?;
        Ok(())
    }
}

/// `shoal arena link`.
pub(crate) fn link(args: &LinkArgs, json: bool) -> Result<String> {
    let path = path()?;
    let mut config = Config::load()?;
    if let Some(server) = &args.server {
        config.server = Some(server.clone());
    }
    if let Some(key) = &args.key {
        if !key.exists() {
            if args.encrypt {
                super::create_encrypted(key)?;
            } else {
                node::key::create(key)?;
            }
        }
        // What Windows takes for canonical begins with `\\?\`, which is nothing to show.
        let whole = if cfg!(windows) { std::path::absolute(key)? } else { std::fs::canonicalize(key)? };
        config.key = Some(whole);
    }
    if args.server.is_some() || args.key.is_some() {
        config.save(&path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let id =
        config.key.as_ref().map(|key| super::load_any(key)).transpose()?.map(|key| key.node_id().to_string());
    let server = config.server(None);
    if json {
        let row = json!({ "server": server, "key": config.key, "id": id, "config": path });
        return Ok(row.to_string());
    }
    let key = match (&config.key, id) {
        (Some(path), Some(id)) => format!("{} ({id})", path.display()),
        _ => "none: make one with `shoal arena link --key FILE`".to_owned(),
    };
    Ok(format!("server {server}\nkey    {key}\nconfig {}", path.display()))
}
