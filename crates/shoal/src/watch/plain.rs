//! Events as plain lines of text, and the summary at the end.

use std::fmt::Write;
use std::time::Duration;

use node::progress::{ChampionEpoch, MinerState, Needs, PhaseName, Progress, Status, Summary};

use crate::unit;

/// Pause between two status lines.
pub(super) const STATUS_EVERY: Duration = Duration::from_secs(5);

/// A phase's name.
fn phase(phase: PhaseName) -> &'static str {
    match phase {
        PhaseName::Gathering => "gathering",
        PhaseName::Training => "training",
        PhaseName::Merging => "merging",
        PhaseName::Finished => "finished",
    }
}

/// An event in one line; a status has its own.
pub(super) fn line(event: &Progress) -> Option<String> {
    let line = match event {
        Progress::Needs(needs) => needed(needs),
        Progress::Listening(listening) => {
            format!("run {} in {}", listening.run.get(..10).unwrap_or_default(), listening.folder)
        }
        Progress::Joined { node, role, stage: Some(stage) } => format!("{role} {node} joined stage {stage}"),
        Progress::Joined { node, role, stage: None } => format!("{role} {node} joined"),
        Progress::Gone { node, stage, lost } => {
            let of = stage.map(|stage| format!(" of stage {stage}")).unwrap_or_default();
            format!("{node}{of} {}", if *lost { "was lost" } else { "left" })
        }
        Progress::Epoch { epoch, epochs, members, micro_batches } => {
            let members: Vec<_> = members.iter().map(ToString::to_string).collect();
            let of = members.join(" + ");
            format!("epoch {} of {epochs}: {micro_batches} micro-batches, {of} miners", epoch + 1)
        }
        Progress::Merged { epoch, loss, coverage, kept, settled, seconds } => {
            let mut line = format!("epoch {} merged in {}", epoch + 1, unit::seconds(*seconds));
            if let Some(loss) = loss {
                let _ = write!(line, ", loss {loss:.4}");
            }
            if *coverage < 0.9995 {
                let _ = write!(line, ", {:.1} % of the work counted", coverage * 100.0);
            }
            if *kept > 0 {
                let _ = write!(line, ", {kept} of {} shards kept their old value", kept + settled);
            }
            line
        }
        Progress::HeldOut { epoch, loss } => format!("held-out loss {loss:.4} after {epoch} epochs"),
        Progress::Failed { node, epoch, failures } => {
            format!("replays gave other bits for {failures} items of {node} in epoch {}", epoch + 1)
        }
        Progress::Resumed { down_s } => format!("orchestrator is back after {}", unit::seconds(*down_s)),
        Progress::Codec { epoch, component, news, about } => {
            let words = match news.as_str() {
                "pinned" => "is pinned",
                "unfit" => "cannot be run by",
                "in_force" => "is in force",
                "shadow" => "works in the shadow",
                "measured" => "was measured by",
                "declined" => "is not used",
                _ => "is off",
            };
            let about = if about.is_empty() { String::new() } else { format!(": {about}") };
            format!("epoch {}: champion {component} {words}{about}", epoch + 1)
        }
        Progress::Champion(champion) => champion_line(champion),
        Progress::Checkpoint { epoch, path } => format!("checkpoint after {epoch} epochs: {path}"),
        Progress::Status(_) | Progress::Summary(_) => return None,
    };
    Some(line)
}

fn needed(needs: &Needs) -> String {
    let Needs { miners, validators, memory_bytes, disk_bytes, .. } = needs;
    let free = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), unit::bytes);
    format!(
        "needs up to {} of memory ({} free) and {} of disk ({} free) for {miners} miners, {validators} validators",
        unit::bytes(*memory_bytes),
        free(needs.memory_free_bytes),
        unit::bytes(*disk_bytes),
        free(needs.disk_free_bytes),
    )
}

/// A champion's epoch against the codec before.
pub(crate) fn champion_line(champion: &ChampionEpoch) -> String {
    let ChampionEpoch { epoch, component, shadow, tensors, fallbacks, raw_bytes, bytes, .. } = champion;
    let shadow = if *shadow { "in its shadow " } else { "" };
    let mut line =
        format!("epoch {}: champion {component} {shadow}carried {}", epoch + 1, unit::bytes(*bytes));
    let _ = write!(line, " of {} in {}", unit::bytes(*raw_bytes), unit::seconds(champion.seconds));
    if let (Some(bytes), Some(time)) = (champion.previous_bytes, champion.previous_seconds) {
        let _ = write!(line, "; the codec before: {} in {}", unit::bytes(bytes), unit::seconds(time));
        let _ = write!(line, " (by {} of {tensors} tensors)", champion.compared);
    }
    if *fallbacks > 0 {
        let _ = write!(line, "; {fallbacks} of {tensors} tensors fell back");
    }
    line
}

/// Epoch and phase.
pub(super) fn where_it_is(status: &Status) -> String {
    match status.phase {
        PhaseName::Finished => format!("finished after {} epochs", status.epoch),
        running => format!("epoch {}/{} {}", status.epoch + 1, status.epochs, phase(running)),
    }
}

/// A miner's state in a word.
pub(super) fn miner_state(state: MinerState) -> &'static str {
    match state {
        MinerState::Waiting => "waiting",
        MinerState::Training => "training",
        MinerState::Merging => "merging",
        MinerState::Gone => "gone",
    }
}

/// How many miners are in which state.
fn miners(status: &Status) -> String {
    let states = [MinerState::Training, MinerState::Merging, MinerState::Waiting, MinerState::Gone];
    let counted =
        states.map(|state| (state, status.miners.iter().filter(|miner| miner.state == state).count()));
    let words = counted.iter().filter(|(_, count)| *count > 0);
    let words: Vec<String> = words.map(|(state, count)| format!("{count} {}", miner_state(*state))).collect();
    if words.is_empty() { String::new() } else { format!(", miners: {}", words.join(", ")) }
}

/// A status in one line.
pub(super) fn status(status: &Status) -> String {
    let mut line = where_it_is(status);
    if status.phase == PhaseName::Training {
        let _ = write!(line, " {}/{}", status.micro_batches_done, status.micro_batches);
    }
    if let Some(left) = status.left_s {
        let _ = write!(line, " ({} left at most)", unit::seconds(left));
    }
    line.push_str(&miners(status));
    if let Some(loss) = status.loss {
        let _ = write!(line, ", loss {loss:.4}");
    }
    let _ = write!(line, ", {} tokens at {:.0}/s", unit::count(status.tokens), status.tokens_per_s);
    let _ = write!(line, ", activations {}", unit::bytes(status.activation_bytes));
    if let Some(ratio) = status.activation_ratio {
        let _ = write!(line, " ({ratio:.1} times less than bf16)");
    }
    let _ = write!(line, ", merges {}", unit::bytes(status.merge_bytes));
    if let Some(ratio) = status.merge_ratio {
        let _ = write!(line, " ({ratio:.2} times less than their numbers)");
    }
    if status.memory_spared_bytes > 0 {
        let _ = write!(line, ", {} of memory spared", unit::bytes(status.memory_spared_bytes));
    }
    line
}

/// The end of a run, in several lines.
pub(super) fn summary(summary: &Summary) -> String {
    let pair = |first: Option<f64>, last: Option<f64>| match (first, last) {
        (Some(first), Some(last)) => format!("{first:.4} → {last:.4}"),
        (_, Some(last)) => format!("{last:.4}"),
        _ => "not measured".to_owned(),
    };
    let mut text = String::new();
    let _ =
        writeln!(text, "loss            {}  (nats per token)", pair(summary.loss_first, summary.loss_last));
    let _ = writeln!(text, "held-out loss   {}", pair(summary.heldout_loss_first, summary.heldout_loss_last));
    let _ = writeln!(
        text,
        "tokens          {} in {}, {:.0} tokens/s, {} epochs",
        unit::count(summary.tokens),
        unit::seconds(summary.seconds),
        summary.tokens_per_s,
        summary.epochs
    );
    let ratio =
        summary.activation_ratio.map(|r| format!(", {r:.1} times less than bf16")).unwrap_or_default();
    let _ = writeln!(text, "activations     {} sent{ratio}", unit::bytes(summary.activation_bytes));
    let ratio = summary.merge_ratio.map(|r| format!(", {r:.2} times less than their numbers"));
    let (bytes, ratio) = (unit::bytes(summary.merge_bytes), ratio.unwrap_or_default());
    let _ = writeln!(text, "merges          {bytes} sent and received{ratio}");
    let _ = writeln!(text, "codecs          {} of all miners together", unit::seconds(summary.codec_s));
    let _ = write!(
        text,
        "trust           rests with the orchestrator: no merge is witnessed, and a failed replay has no consequences yet"
    );
    if summary.memory_spared_bytes > 0 {
        let spared = unit::bytes(summary.memory_spared_bytes);
        let _ =
            write!(text, "\nmemory          {spared} spared by keeping encoded inputs, all miners together");
    }
    if let Some(checkpoint) = &summary.checkpoint {
        let _ = write!(text, "\ncheckpoint      {checkpoint}");
        let _ = write!(text, "\ntry it          shoal sample {} --prompt \"…\"", shell(checkpoint));
    }
    text
}

/// A path as one word of a shell.
fn shell(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}
