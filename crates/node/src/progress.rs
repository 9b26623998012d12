//! What people and programs see of a run: events derived from the folded state.
//!
//! Serialised as one JSON object a line, `{"event": "…", …}`; the keys are part of the command line's contract.

use serde::{Deserialize, Serialize};
use wire::NodeId;

/// One event of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Progress {
    /// What a run needs of the machine that is to run all of it; told before anything starts.
    Needs(Needs),
    /// The log is open and nodes can join.
    Listening(Listening),
    /// A miner or validator is in the run.
    Joined {
        /// Its id.
        node: String,
        /// "miner" or "validator".
        role: String,
        /// Stage of a miner.
        stage: Option<u16>,
    },
    /// A node left, or went silent.
    Gone {
        /// Its id.
        node: String,
        /// Stage of a miner.
        stage: Option<u16>,
        /// Whether it was lost (it left in good order otherwise).
        lost: bool,
    },
    /// A training phase began.
    Epoch {
        /// Epoch, from 0.
        epoch: u32,
        /// Of how many.
        epochs: u32,
        /// Members per stage.
        members: Vec<usize>,
        /// Micro-batches to train on.
        micro_batches: usize,
    },
    /// A merge was decided.
    Merged {
        /// Epoch.
        epoch: u32,
        /// Mean training loss of the epoch, nats per token.
        loss: Option<f64>,
        /// Cells merged ÷ cells leased, over all stages.
        coverage: f64,
        /// Shards that kept their old value.
        kept: usize,
        /// Shards settled.
        settled: usize,
        /// From the end of training to the last stage's manifest, seconds.
        seconds: f64,
    },
    /// Held-out loss of merged weights.
    HeldOut {
        /// Epoch that opens with these weights.
        epoch: u32,
        /// Nats per token.
        loss: f64,
    },
    /// A replay did not give what the miner signed.
    Failed {
        /// Miner.
        node: String,
        /// Epoch.
        epoch: u32,
        /// How many of its items since the last such event.
        failures: u64,
    },
    /// The orchestrator came back.
    Resumed {
        /// Time not served, seconds.
        down_s: f64,
    },
    /// Something happened to a champion of the arena.
    Codec {
        /// Epoch under way, or about to open.
        epoch: u32,
        /// First digits of the component's hash.
        component: String,
        /// "pinned", "unfit" (one node cannot run it), "in_force", "declined" (too few were ready) or "off".
        news: String,
        /// Where it comes from, first epoch, or why: for people.
        about: String,
    },
    /// What a champion did in an epoch, against the codec that it replaced.
    Champion(ChampionEpoch),
    /// A checkpoint was written.
    Checkpoint {
        /// Epoch whose opening weights it holds.
        epoch: u32,
        /// Folder.
        path: String,
    },
    /// The picture as it is now; sent every half second while something changes.
    Status(Box<Status>),
    /// The run's last event.
    Summary(Box<Summary>),
}

/// A champion's epoch in figures. What the codec before would have taken is scaled up from a sample by seed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChampionEpoch {
    /// Epoch.
    pub epoch: u32,
    /// First digits of the component's hash.
    pub component: String,
    /// Only one in ten micro-batches was to cross by it, to see what it does.
    pub shadow: bool,
    /// Tensors that were to cross by it.
    pub tensors: u64,
    /// Those that crossed by the built-in codec instead.
    pub fallbacks: u64,
    /// Bytes of the tensors that crossed by it, as they are.
    pub raw_bytes: u64,
    /// The same, encoded.
    pub bytes: u64,
    /// What the codec before would have made of them, bytes; none without a sample.
    pub previous_bytes: Option<u64>,
    /// Time of encoding and the sender's own decoding, seconds, summed over the miners.
    pub seconds: f64,
    /// The time of the codec before, likewise.
    pub previous_seconds: Option<f64>,
    /// Tensors in the sample.
    pub compared: u64,
}

/// What all nodes of a run on one machine need at most, and what the machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Miners of all stages.
    pub miners: usize,
    /// Validators.
    pub validators: usize,
    /// Memory of all of them together, bytes.
    pub memory_bytes: u64,
    /// Memory of the largest miner, bytes.
    pub miner_bytes: u64,
    /// Disk for the states that miners keep, bytes.
    pub disk_bytes: u64,
    /// Memory that can be had: the least of what is free and what control groups leave; none where the system does not tell.
    pub memory_free_bytes: Option<u64>,
    /// Disk that is free where the run lies; none where the system does not tell.
    pub disk_free_bytes: Option<u64>,
}

/// What others need to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// Run id, hex.
    pub run: String,
    /// One string with everything a node needs to join.
    pub ticket: String,
    /// Folder of the run.
    pub folder: String,
}

/// Where the run is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Epoch, from 0.
    pub epoch: u32,
    /// Of how many.
    pub epochs: u32,
    /// Phase.
    pub phase: PhaseName,
    /// Time until the phase ends at the latest, seconds; none while nothing is due.
    pub left_s: Option<f64>,
    /// Since the log began, seconds.
    pub elapsed_s: f64,
    /// Mean training loss of the present epoch (the last one while it has none), nats per token.
    pub loss: Option<f64>,
    /// Newest held-out loss, nats per token.
    pub heldout_loss: Option<f64>,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// Over the last seconds of training.
    pub tokens_per_s: f64,
    /// Micro-batches of this epoch that came back to their head.
    pub micro_batches_done: u64,
    /// Micro-batches of this epoch.
    pub micro_batches: u64,
    /// Encoded activations and gradients sent so far, bytes.
    pub activation_bytes: u64,
    /// The same at bf16 and full width, divided by `activation_bytes`; none before the first.
    pub activation_ratio: Option<f64>,
    /// Merge traffic so far, sent plus received, bytes.
    pub merge_bytes: u64,
    /// The same vectors before their encoding, divided by `merge_bytes`; none before the first.
    #[serde(default)]
    pub merge_ratio: Option<f64>,
    /// Time that encoding and decoding took so far, summed over the miners, seconds.
    #[serde(default)]
    pub codec_s: f64,
    /// Memory that keeping only encoded forward inputs spared: the most of each miner at a time, summed, bytes.
    #[serde(default)]
    pub memory_spared_bytes: u64,
    /// Cells merged ÷ cells leased so far; none before the first merge.
    pub coverage: Option<f64>,
    /// Miners, by stage then id.
    pub miners: Vec<MinerStatus>,
    /// Live validators.
    pub validators: usize,
    /// Replays: equal.
    pub passed: u64,
    /// Replays: not equal.
    pub failed: u64,
}

/// Phases by the name shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseName {
    /// Waiting for enough nodes.
    #[default]
    Gathering,
    /// Training.
    Training,
    /// Merging.
    Merging,
    /// Over.
    Finished,
}

/// One miner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MinerStatus {
    /// First digits of its id.
    pub node: String,
    /// Stage; none before it was assigned.
    pub stage: Option<u16>,
    /// What it is doing.
    pub state: MinerState,
    /// Share of time that it computed, over its last reports, 0 to 1.
    pub busy: f64,
    /// Micro-batches of this epoch that it worked through in both directions.
    pub micro_batches: u64,
    /// Micro-batches per inner step.
    pub accumulate: u32,
    /// Inner steps taken in this epoch.
    pub steps: u32,
}

/// State of a miner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MinerState {
    /// Catching up, or waiting for the next epoch.
    Waiting,
    /// Member of the epoch.
    Training,
    /// Merging.
    Merging,
    /// Left or lost.
    Gone,
}

/// The last line of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Mean training loss of the first epoch, nats per token.
    pub loss_first: Option<f64>,
    /// Mean training loss of the last epoch.
    pub loss_last: Option<f64>,
    /// Held-out loss of the weights that the run began with.
    pub heldout_loss_first: Option<f64>,
    /// Held-out loss of the last weights that were measured.
    pub heldout_loss_last: Option<f64>,
    /// Tokens trained on.
    pub tokens: u64,
    /// From the first epoch's opening to the end, seconds.
    pub seconds: f64,
    /// `tokens / seconds`.
    pub tokens_per_s: f64,
    /// Encoded activations and gradients sent, bytes.
    pub activation_bytes: u64,
    /// The same at bf16 and full width, divided by `activation_bytes`.
    pub activation_ratio: Option<f64>,
    /// Merge traffic, sent plus received, bytes.
    pub merge_bytes: u64,
    /// The same vectors before their encoding, divided by `merge_bytes`.
    #[serde(default)]
    pub merge_ratio: Option<f64>,
    /// Time that encoding and decoding took, summed over the miners, seconds.
    #[serde(default)]
    pub codec_s: f64,
    /// Memory that keeping only encoded forward inputs spared: the most of each miner at a time, summed, bytes.
    #[serde(default)]
    pub memory_spared_bytes: u64,
    /// Epochs merged.
    pub epochs: u32,
    /// Cells merged ÷ cells leased.
    pub coverage: Option<f64>,
    /// Folder of the last checkpoint.
    pub checkpoint: Option<String>,
    /// Run id, hex.
    pub run: String,
    /// Hash of the log's last block.
    pub head: Option<String>,
}

/// A node's id as it is shown.
pub fn shown(node: &NodeId) -> String {
    node.short()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_the_last_line_are_a_contract() {
        let summary = Summary {
            loss_first: Some(5.5),
            loss_last: Some(4.0),
            heldout_loss_first: Some(5.6),
            heldout_loss_last: None,
            tokens: 1000,
            seconds: 2.0,
            tokens_per_s: 500.0,
            activation_bytes: 10,
            activation_ratio: Some(64.0),
            merge_bytes: 20,
            merge_ratio: Some(1.5),
            codec_s: 0.5,
            memory_spared_bytes: 0,
            epochs: 3,
            coverage: Some(1.0),
            checkpoint: Some("here".into()),
            run: "ab".into(),
            head: None,
        };
        let line = serde_json::to_string(&Progress::Summary(Box::new(summary))).unwrap();
        assert_eq!(
            line,
            r#"{"event":"summary","loss_first":5.5,"loss_last":4.0,"heldout_loss_first":5.6,"heldout_loss_last":null,"tokens":1000,"seconds":2.0,"tokens_per_s":500.0,"activation_bytes":10,"activation_ratio":64.0,"merge_bytes":20,"merge_ratio":1.5,"codec_s":0.5,"memory_spared_bytes":0,"epochs":3,"coverage":1.0,"checkpoint":"here","run":"ab","head":null}"#
        );
        assert!(matches!(serde_json::from_str(&line), Ok(Progress::Summary(_))));
    }

    #[test]
    fn every_event_says_what_it_is() {
        let gone = Progress::Gone { node: "n".into(), stage: Some(1), lost: true };
        assert_eq!(
            serde_json::to_string(&gone).unwrap(),
            r#"{"event":"gone","node":"n","stage":1,"lost":true}"#
        );
        let held_out = Progress::HeldOut { epoch: 1, loss: 2.5 };
        assert_eq!(serde_json::to_string(&held_out).unwrap(), r#"{"event":"held_out","epoch":1,"loss":2.5}"#);
        let status = serde_json::to_string(&Progress::Status(Box::default())).unwrap();
        assert!(status.starts_with(r#"{"event":"status","epoch":0"#), "{status}");
    }
}
