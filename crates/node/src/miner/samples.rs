//! A sample of what this miner sends, as files: the traffic that codecs are judged on (`shoal arena harvest`).
//!
//! Names say which item a frame is of, so that a harvest can take those that were audited, of several epochs and operators, and
//! how many were offered before it: `forward-RUN-e000003-m00000417-n000012-NODE.frame`.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use codec::CodecId;
use model::config::Message;
use wire::{Direction, FrameHeader, Hash, NodeId, RunId};

use super::frames;
use crate::limits;

/// Writes every so many-th frame to a folder; once it is full, each takes another's place, so that all frames of the run
/// are about as likely to be there (Vitter 1985, algorithm R).
#[derive(Debug)]
pub(super) struct Samples {
    folder: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// Frames sent.
    seen: u64,
    /// Those that could have been kept: more than are in the list once it is full.
    offered: u64,
    files: Vec<PathBuf>,
}

/// Where a frame goes, and which file it replaces.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    instead: Option<PathBuf>,
}

impl Samples {
    /// Goes on with the frames of `node` in `run` that are there already.
    pub(super) fn new(folder: &Path, run: &RunId, node: &NodeId) -> Self {
        let (run, end) = (format!("-{}-", run.short()), format!("-{node}.frame"));
        let listed = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|item| item.path());
        let mut found: Vec<(u64, PathBuf)> = listed
            .filter_map(|path| {
                let name = path.file_name()?.to_str()?;
                let number = name.strip_suffix(&end).filter(|name| name.contains(&run))?.rsplit_once("-n")?.1;
                Some((number.parse().ok()?, path))
            })
            .collect();
        found.sort();
        let offered = found.last().map_or(0, |(number, _)| number + 1);
        let kept = Kept { seen: 0, offered, files: found.into_iter().map(|(_, path)| path).collect() };
        Self { folder: folder.to_owned(), kept: Mutex::new(kept) }
    }

    /// Whether the next frame is one to keep, and where.
    pub(super) fn next(&self, header: &FrameHeader) -> Option<Place> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { seen, offered, files } = &mut *kept;
        let due = seen.is_multiple_of(limits::KEEP_EVERY);
        *seen += 1;
        // An output that is sent again is there already.
        let item = item(header);
        let again = |path: &PathBuf| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&item))
        };
        if !due || files.iter().any(again) {
            return None;
        }
        let number = *offered;
        *offered += 1;
        let path = self.folder.join(format!("{item}-n{number:06}-{}.frame", header.from));
        if files.len() < limits::KEEP_FRAMES {
            files.push(path.clone());
            return Some(Place { path, instead: None });
        }
        let slot = usize::try_from(draw(&header.from, number) % (number + 1)).ok()?;
        let file = files.get_mut(slot)?;
        let instead = std::mem::replace(file, path.clone());
        Some(Place { path, instead: Some(instead) })
    }

    /// Writes one frame as a raw payload, which holds type and shape. A full disk stops no training.
    pub(super) fn write(place: &Place, message: &Message) {
        let Some(payload) = frames::payload(CodecId::Raw, message) else { return };
        // Whole or not at all: somebody may harvest meanwhile.
        let draft = place.path.with_extension("draft");
        let folder = place.path.parent().unwrap_or(Path::new("."));
        let written = std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&draft, payload))
            .and_then(|()| std::fs::rename(&draft, &place.path));
        match (written, &place.instead) {
            (Err(error), _) => {
                drop(std::fs::remove_file(&draft));
                tracing::warn!(%error, path = %place.path.display(), "a frame was not kept");
            }
            (Ok(()), Some(instead)) => drop(std::fs::remove_file(instead)),
            (Ok(()), None) => {}
        }
    }
}

fn item(header: &FrameHeader) -> String {
    let way = if header.direction == Direction::Forward { "forward" } else { "backward" };
    let FrameHeader { run, epoch, micro_batch, .. } = header;
    format!("{way}-{}-e{:06}-m{:08}", run.short(), epoch.0, micro_batch.0)
}

fn draw(node: &NodeId, number: u64) -> u64 {
    let hash = Hash::of_parts("shoal 2026-11 kept frame", &[&node.0, &number.to_le_bytes()]);
    let (first, _) = hash.0.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*first)
}

#[cfg(test)]
mod tests {
    use model::config::Dtype;
    use wire::{Epoch, MicroBatch};

    use super::*;
    use crate::miner::frames::tests::header;

    #[test]
    fn a_long_run_is_kept_from_end_to_end_within_the_limit_and_a_restart_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let tiny = Message { dtype: Dtype::Bf16, shape: vec![1, 2], bytes: vec![0; 4] };
        let frames = 4 * limits::KEEP_FRAMES as u64 * limits::KEEP_EVERY;
        let send = |samples: &Samples, range: std::ops::Range<u64>| {
            for at in range {
                let header =
                    FrameHeader { epoch: Epoch((at / 1000) as u32), micro_batch: MicroBatch(at), ..header() };
                if let Some(place) = samples.next(&header) {
                    Samples::write(&place, &tiny);
                }
            }
        };
        let (run, node) = (header().run, header().from);
        send(&Samples::new(folder.path(), &run, &node), 0..frames / 2);
        send(&Samples::new(folder.path(), &run, &node), frames / 2..frames);
        let names: Vec<String> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|item| item.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names.len(), limits::KEEP_FRAMES);
        let of = |name: &String| name.split("-m").nth(1).unwrap()[..8].parse::<u64>().unwrap();
        for quarter in 0..4 {
            let part = quarter * frames / 4..(quarter + 1) * frames / 4;
            let count = names.iter().filter(|name| part.contains(&of(name))).count();
            assert!(count > limits::KEEP_FRAMES / 7, "{count} of quarter {quarter}");
        }
    }
}
