//! `--data`: files, folders and patterns to a [`Corpus`], in an order that depends on names only.

use std::{
    collections::HashSet,
    path::{Component, Path, PathBuf},
};

use globset::{GlobBuilder, GlobMatcher};
use ignore::WalkBuilder;

use super::{
    DataError,
    read::{Format, documents, read_error, skip_reason},
    summary::{SkipReason, Summary},
    tables::too_much,
};
use crate::limits::{
    DEFAULT_CORPUS_BYTES, MAX_CORPUS_BYTES, MAX_DOCUMENTS, MAX_SCANNED_FILE_BYTES, MAX_SCANNED_FILES,
    MAX_SCANNED_TABLE_BYTES,
};

/// How to collect.
#[derive(Debug, Clone)]
pub struct CollectOptions {
    /// Name of the text in .jsonl and .parquet files.
    pub text_field: String,
    /// Most text to take, in bytes.
    pub most_bytes: u64,
    /// Folders that a scan leaves out, such as the one runs are kept in.
    pub exclude: Vec<PathBuf>,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self { text_field: "text".to_owned(), most_bytes: MAX_CORPUS_BYTES, exclude: Vec::new() }
    }
}

/// One file that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path as it was found, with `/` between the parts.
    pub name: String,
    /// Its texts; none is blank.
    pub documents: Vec<String>,
}

impl SourceFile {
    /// Bytes of text.
    pub fn bytes(&self) -> u64 {
        self.documents.iter().map(|text| text.len() as u64).sum()
    }
}

/// The text that was found. Has at least one file.
#[derive(Debug, Clone)]
pub struct Corpus {
    /// By source in the order given, then by name.
    pub files: Vec<SourceFile>,
    /// What was taken and skipped.
    pub summary: Summary,
}

impl Corpus {
    /// All texts in order.
    pub fn texts(&self) -> impl Iterator<Item = &str> + Send {
        self.files.iter().flat_map(|file| file.documents.iter().map(String::as_str))
    }
}

/// Collects from files, folders and glob patterns.
///
/// A named file must be usable; in folders and patterns unusable files are skipped and counted. Folders honour
/// .gitignore and hidden files are left out; patterns take whatever they match. Links are followed only if
/// they are named.
pub fn collect(sources: &[String], options: &CollectOptions) -> Result<Corpus, DataError> {
    let mut collector = Collector::new(options);
    for source in sources {
        let path = Path::new(source);
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => collector.scan(path, source, None)?,
            Ok(_) => collector.take_named(path)?,
            Err(_) if source.contains(['*', '?', '[', '{']) => collector.pattern(source)?,
            Err(error) => return Err(read_error(source, error)),
        }
    }
    collector.finish(&sources.join(", "))
}

/// The default without `--data`: text below `folder`, at most `DEFAULT_CORPUS_BYTES` of it.
pub fn collect_current_folder(folder: &Path, options: &CollectOptions) -> Result<Corpus, DataError> {
    let options =
        CollectOptions { most_bytes: options.most_bytes.min(DEFAULT_CORPUS_BYTES), ..options.clone() };
    let name = folder.display().to_string();
    let mut collector = Collector::new(&options);
    collector.scan(folder, &name, None)?;
    collector.finish(&name)
}

struct Collector<'a> {
    options: &'a CollectOptions,
    files: Vec<SourceFile>,
    summary: Summary,
    seen: HashSet<PathBuf>,
    excluded: HashSet<PathBuf>,
}

impl<'a> Collector<'a> {
    fn new(options: &'a CollectOptions) -> Self {
        let excluded = options.exclude.iter().filter_map(|folder| folder.canonicalize().ok()).collect();
        Self { options, files: Vec::new(), summary: Summary::default(), seen: HashSet::new(), excluded }
    }

    fn finish(self, source_name: &str) -> Result<Corpus, DataError> {
        if self.files.is_empty() {
            return Err(DataError::Nothing {
                source_name: source_name.to_owned(),
                summary: self.summary.skipped_words(),
            });
        }
        Ok(Corpus { files: self.files, summary: self.summary })
    }

    fn room(&self) -> u64 {
        self.options.most_bytes.saturating_sub(self.summary.bytes)
    }

    fn take_named(&mut self, path: &Path) -> Result<(), DataError> {
        let name = display_name(path);
        let bytes = path.metadata().map_err(|error| read_error(&name, error))?.len();
        if Format::of(path) != Format::Parquet && bytes > self.room() {
            return Err(too_much(&name, self.room()));
        }
        self.take(path, name)
    }

    fn take(&mut self, path: &Path, name: String) -> Result<(), DataError> {
        let canonical = path.canonicalize().map_err(|error| read_error(&name, error))?;
        if self.seen.contains(&canonical) {
            return Ok(());
        }
        let documents = documents(path, &name, &self.options.text_field, self.room())?;
        let file = SourceFile { name, documents };
        if file.bytes() > self.room() {
            return Err(too_much(&file.name, self.room()));
        }
        if self.summary.documents as usize + file.documents.len() > MAX_DOCUMENTS {
            return Err(DataError::TooMuch {
                what: format!("the number of documents up to {}", file.name),
                limit: format!("{MAX_DOCUMENTS} documents"),
                next: "join short documents, or give --data fewer files".to_owned(),
            });
        }
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
        self.summary.take(&extension, file.documents.len() as u64, file.bytes());
        self.seen.insert(canonical);
        self.files.push(file);
        Ok(())
    }

    fn pattern(&mut self, source: &str) -> Result<(), DataError> {
        let source = source.strip_prefix("./").unwrap_or(source);
        let glob = GlobBuilder::new(source).literal_separator(true).build().map_err(|error| {
            DataError::Pattern { pattern: source.to_owned(), reason: error.kind().to_string() }
        })?;
        let fixed: PathBuf = Path::new(source)
            .components()
            .take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{']))
            .collect();
        let root = if fixed.as_os_str().is_empty() { Path::new(".") } else { &fixed };
        if !root.exists() {
            return Err(DataError::NoMatch { pattern: source.to_owned() });
        }
        self.scan(root, source, Some(&glob.compile_matcher()))
    }

    /// Takes every usable file below `root`, in the order of their names.
    fn scan(&mut self, root: &Path, source: &str, only: Option<&GlobMatcher>) -> Result<(), DataError> {
        let excluded = self.excluded.clone();
        let mut walk = WalkBuilder::new(root);
        walk.standard_filters(only.is_none()).require_git(false).follow_links(false);
        if !excluded.is_empty() {
            walk.filter_entry(move |entry| {
                !entry.path().canonicalize().is_ok_and(|path| excluded.contains(&path))
            });
        }
        let mut found = Vec::new();
        for entry in walk.build() {
            let Ok(entry) = entry else {
                self.summary.skip(SkipReason::Unreadable, 0, source);
                continue;
            };
            let is_file = entry.file_type().is_some_and(|kind| kind.is_file());
            let name = display_name(entry.path());
            if !is_file || only.is_some_and(|glob| !glob.is_match(&name)) {
                continue;
            }
            if found.len() == MAX_SCANNED_FILES {
                return Err(DataError::TooMuch {
                    what: format!("the number of files in {source}"),
                    limit: format!("{MAX_SCANNED_FILES} files"),
                    next: "name a smaller folder, or a pattern".to_owned(),
                });
            }
            let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
            found.push((name, entry.into_path(), bytes));
        }
        if found.is_empty() && only.is_some() {
            return Err(DataError::NoMatch { pattern: source.to_owned() });
        }
        found.sort();
        for (name, path, bytes) in found {
            if let Err(reason) = self.take_scanned(&path, &name, bytes) {
                self.summary.skip(reason, bytes, &name);
            }
        }
        Ok(())
    }

    fn take_scanned(&mut self, path: &Path, name: &str, bytes: u64) -> Result<(), SkipReason> {
        let most = match Format::of(path) {
            Format::Text => MAX_SCANNED_FILE_BYTES,
            Format::JsonLines | Format::Parquet => MAX_SCANNED_TABLE_BYTES,
        };
        if is_lock_file(path) {
            return Err(SkipReason::LockFile);
        }
        if bytes > most {
            return Err(SkipReason::TooLarge);
        }
        if bytes > self.room() {
            return Err(SkipReason::OverLimit);
        }
        self.take(path, name.to_owned()).map_err(|error| skip_reason(&error))
    }
}

/// Lock files of package managers are hashes and version numbers.
fn is_lock_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".lock") || name == "package-lock.json" || name == "pnpm-lock.yaml"
}

/// The path with `/` between its parts and without a leading `./`.
fn display_name(path: &Path) -> String {
    let parts: Vec<_> = path
        .components()
        .filter(|part| !matches!(part, Component::CurDir | Component::RootDir))
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    let root = if path.has_root() { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}
