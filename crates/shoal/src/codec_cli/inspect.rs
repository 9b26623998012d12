//! `inspect`: what the tensors of a file hold.

use super::InspectArgs;
use super::files::TensorFile;
use codec::{DType, Inspection, inspect};
use serde_json::json;
use std::io::Write;

pub(super) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let file = TensorFile::read(&args.file, &args.raw)?;
    let mut found = Vec::new();
    for entry in &file.tensors {
        let tensor = file.tensor(entry)?;
        let is_half = matches!(tensor.dtype(), DType::Bf16 | DType::F16) && !tensor.is_empty();
        found.push((entry, if is_half { Some(inspect(tensor)?) } else { None }));
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        let all: Vec<_> = found
            .iter()
            .map(|(entry, i)| {
                json!({
                    "name": entry.name,
                    "dtype": entry.dtype.name(),
                    "shape": entry.shape,
                    "statistics": i.as_ref().map(to_json),
                })
            })
            .collect();
        serde_json::to_writer_pretty(&mut out, &all)?;
        writeln!(out)?;
        return Ok(());
    }
    for (entry, i) in &found {
        writeln!(out, "{} {} {:?}", entry.name, entry.dtype, entry.shape)?;
        match i {
            Some(i) => write_text(i, &mut out)?,
            None => writeln!(out, "  no statistics: only bf16 and f16 have them")?,
        }
    }
    Ok(())
}

fn to_json(i: &Inspection) -> serde_json::Value {
    json!({
        "rows": i.rows,
        "columns": i.columns,
        "sign_bits": i.sign_bits,
        "sign_given_column_bits": i.sign_given_column_bits,
        "exponent_bits": i.exponent_bits,
        "exponent_given_row_bits": i.exponent_given_row_bits,
        "exponent_given_column_bits": i.exponent_given_column_bits,
        "mantissa_bits": i.mantissa_bits,
        "zeros": i.zeros,
        "repeated_rows": i.repeated_rows,
        "column_spread_octaves": i.column_spread,
        "row_spread_octaves": i.row_spread,
        "exponent_ratio": i.exponent_ratio,
        "context_ratio": i.context_ratio,
        "predictive_ratio": i.predictive_ratio,
        "best_ratio": i.best_ratio,
    })
}

fn write_text(i: &Inspection, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "  sign      {:6.3} bits, {:6.3} given its column", i.sign_bits, i.sign_given_column_bits)?;
    writeln!(
        out,
        "  exponent  {:6.3} bits, {:6.3} relative to its row, {:6.3} relative to its column",
        i.exponent_bits, i.exponent_given_row_bits, i.exponent_given_column_bits
    )?;
    writeln!(out, "  mantissa  {:6.3} bits", i.mantissa_bits)?;
    writeln!(
        out,
        "  columns differ by {:.2} octaves, rows by {:.2}; {:.1} % of rows repeat another, {:.1} % of elements are zero",
        i.column_spread,
        i.row_spread,
        100.0 * i.repeated_rows,
        100.0 * i.zeros
    )?;
    writeln!(
        out,
        "  ratio: {:.3} by exponents alone, {:.3} in context, {:.3} predicted from earlier rows; best within reach {:.3}",
        i.exponent_ratio, i.context_ratio, i.predictive_ratio, i.best_ratio
    )
}
