//! Fuzz targets: one function each, which any bytes must not make panic, and the inputs to start from.
//! It must never know how inputs are made: libFuzzer's binaries and `mutate` both call these functions.

mod codec_targets;
#[cfg(feature = "heavy")]
mod heavy_targets;
mod seeds;
mod wire_targets;

pub use codec_targets::{codec_decode, codec_round_trip, codec_shared};
#[cfg(feature = "heavy")]
pub use heavy_targets::{model_tensors, model_tokenizer, net_frames, net_tickets};
pub use wire_targets::{ledger_log, wire_messages};

/// A target: its name, what it does with an input, and inputs to start from.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// Every target.
pub const TARGETS: &[Target] = &[
    ("codec_decode", codec_decode, seeds::payloads),
    ("codec_round_trip", codec_round_trip, seeds::tensors),
    ("codec_shared", codec_shared, seeds::shared),
    ("ledger_log", ledger_log, seeds::logs),
    ("wire_messages", wire_messages, seeds::messages),
    #[cfg(feature = "heavy")]
    ("net_frames", net_frames, heavy_targets::heads),
    #[cfg(feature = "heavy")]
    ("net_tickets", net_tickets, heavy_targets::tickets),
    #[cfg(feature = "heavy")]
    ("model_tokenizer", model_tokenizer, heavy_targets::tokenizers),
    #[cfg(feature = "heavy")]
    ("model_tensors", model_tensors, heavy_targets::tensor_files),
];

/// Kept inputs of a target: what once found something.
pub fn kept(name: &str) -> Vec<Vec<u8>> {
    let home = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| ".".into(), std::path::PathBuf::from);
    let Ok(entries) = std::fs::read_dir(home.join("corpus").join(name)) else { return Vec::new() };
    let mut paths: Vec<_> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    paths.iter().filter_map(|p| std::fs::read(p).ok()).collect()
}
