//! `shoal arena samples`: shows a data set, checked, or writes one: a draw from another, or tensors from a seed.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use judge::{Input, dataset as sets, synthetic};
use serde_json::json;

use super::eval::{dataset_with_operators, seed};
use super::online::{Where, draw};
use crate::failure::bad_input;

/// Arguments of `shoal arena samples`.
#[derive(Debug, Args)]
pub(crate) struct SamplesArgs {
    /// Folder or object-store prefix with inputs and manifest.csv. Default: tensors from --seed.
    data: Option<String>,
    #[command(flatten)]
    at: Where,
    /// The samples of this competition, from its host.
    #[arg(short, long, value_name = "NAME", conflicts_with = "data")]
    competition: Option<String>,
    /// What a round of the competition was judged on: a number, or `last`. Shown once the round is over.
    #[arg(long, requires = "competition")]
    round: Option<String>,
    /// Write the samples to this new folder.
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Number of samples. Default: all of a data set, 16 from a seed.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    items: Option<u32>,
    /// Seed of generated tensors, or of the draw.
    #[arg(long, value_name = "TEXT", default_value = "samples")]
    seed: String,
}

/// Samples from a seed where nothing says how many.
const ITEMS: u32 = 16;

pub(super) fn run(args: &SamplesArgs, json: bool) -> Result<String> {
    let seed = seed(&args.seed);
    let inputs = match (&args.competition, &args.data) {
        (Some(name), _) => {
            let most = args.items.map_or(usize::MAX, |items| items as usize);
            nobodys(draw(&args.at, name, args.round.as_deref(), most, &seed)?)
        }
        (None, None) => nobodys(synthetic::tensors(&seed, args.items.unwrap_or(ITEMS))),
        (None, Some(place)) => {
            let mut all = dataset_with_operators(place)?;
            if let Some(items) = args.items {
                // Ordered by a hash of the seed and the content: the same draw wherever the data set lies.
                all.sort_by_key(|(input, _)| {
                    wire::Hash::of_parts("shoal 2026-11 samples", &[&seed.0, &input.hash.0])
                });
                all.truncate(items as usize);
            }
            all
        }
    };
    list_and_write(&inputs, args.output.as_ref(), json)
}

/// Inputs whose maker is not known.
pub(super) fn nobodys(inputs: Vec<Input>) -> Vec<(Input, Option<wire::NodeId>)> {
    inputs.into_iter().map(|input| (input, None)).collect()
}

/// Writes a data set if a folder is given, and lists it.
pub(super) fn list_and_write(
    inputs: &[(Input, Option<wire::NodeId>)],
    output: Option<&PathBuf>,
    json: bool,
) -> Result<String> {
    if inputs.is_empty() {
        return Err(bad_input("there is nothing to list"));
    }
    let mut text = String::new();
    for (input, _) in inputs {
        if json {
            let row = json!({
                "file": input.name, "blake3": input.hash.to_string(), "bytes": input.bytes.len(),
                "shape": input.shape, "direction": input.direction.name(),
            });
            _ = writeln!(text, "{row}");
        } else {
            _ = writeln!(
                text,
                "{:<32} {:>10} bytes {:<14} {:<8} {}",
                input.name,
                input.bytes.len(),
                format!("{:?}", input.shape),
                input.direction,
                input.hash.short()
            );
        }
    }
    if let Some(folder) = output {
        sets::write(folder, inputs).map_err(|error| bad_input(error.to_string()))?;
        if !json {
            _ = writeln!(text, "\n{} files and manifest.csv in {}", inputs.len(), folder.display());
        }
    }
    Ok(text.trim_end().to_owned())
}
