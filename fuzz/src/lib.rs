//! Fuzz targets: one function each, which any bytes must not make panic, and the inputs to start from.
//! It must never know how inputs are made: libFuzzer's binary, `mutate` and the tests all call these functions.

mod arena_targets;
mod codec_targets;
mod model_targets;
pub mod mutate;
mod net_targets;
mod node_targets;
mod seeds;
mod wire_targets;

use std::path::{Path, PathBuf};

/// A target: its name, what it does with an input, and inputs to start from.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// Every target.
pub const TARGETS: &[Target] = &[
    ("arena_epistula", arena_targets::epistula, arena_targets::signed_requests),
    ("arena_manifest", arena_targets::manifest, arena_targets::manifests),
    ("arena_records", arena_targets::records, arena_targets::some_records),
    ("arena_spec", arena_targets::spec, arena_targets::specs),
    ("codec_decode", codec_targets::codec_decode, seeds::payloads),
    ("codec_round_trip", codec_targets::codec_round_trip, seeds::tensors),
    ("codec_shared", codec_targets::codec_shared, seeds::shared),
    ("ledger_log", wire_targets::ledger_log, seeds::logs),
    ("model_checkpoint", model_targets::checkpoint, model_targets::checkpoint_files),
    ("model_cuts", model_targets::cuts, model_targets::messages),
    ("model_data", model_targets::data, model_targets::data_files),
    ("model_shards", model_targets::shards, model_targets::some_shards),
    ("model_tensors", model_targets::tensors, model_targets::tensor_files),
    ("model_tokenizer", model_targets::tokenizer, model_targets::tokenizers),
    ("net_frames", net_targets::frames, net_targets::heads),
    ("net_tickets", net_targets::tickets, net_targets::some_tickets),
    ("node_frames", node_targets::frames, seeds::payloads),
    ("node_rpc", node_targets::rpc, node_targets::calls),
    ("node_spec", node_targets::spec, node_targets::specs),
    ("swarm_records", wire_targets::swarm_records, seeds::swarm_records),
    ("wire_messages", wire_targets::wire_messages, seeds::messages),
];

/// Folder of what is kept of a target: inputs that once found something, and such as reach what others do not.
pub fn corpus(name: &str) -> PathBuf {
    let home = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| Path::new("fuzz").into(), PathBuf::from);
    home.join("corpus").join(name)
}

/// Kept inputs of a target.
pub fn kept(name: &str) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(corpus(name)) else { return Vec::new() };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}
