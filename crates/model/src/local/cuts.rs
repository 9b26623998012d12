//! How much a narrow cut costs in held-out loss: equal tokens, optimiser and seeds for every cut.
//!
//! A gap means nothing without the control that sends nothing: "kept" is the share of the wire's worth that a
//! cut keeps, (nothing − cut) / (nothing − plain).

use std::{fmt::Write as _, sync::Arc, time::Instant};

use rayon::ThreadPool;
use serde::Serialize;

use super::{Crossing, LocalClip, LocalError, LocalModel, LocalPlan, train};
use crate::{
    config::{Cut, Dtype, ModelConfig, StageSpec, Table},
    data::Dataset,
    hash::BlobHash,
    optim::{OptimiserConfig, Schedule},
};

/// One way to cross.
#[derive(Debug, Clone)]
pub struct Contender {
    /// Name in the table.
    pub name: String,
    /// The cut.
    pub cut: Cut,
    /// What its messages go through in training, if anything.
    pub crossing: Option<Arc<dyn Crossing>>,
}

/// What to compare, and for how long.
#[derive(Debug, Clone)]
pub struct CutsPlan {
    /// The model.
    pub model: ModelConfig,
    /// Blocks before each cut; at least one.
    pub ends: Vec<usize>,
    /// The first is the baseline; one of them should be [`Cut::Nothing`].
    pub cuts: Vec<Contender>,
    /// Seeds of weights and data order, the same for every cut.
    pub seeds: Vec<u64>,
    /// Rows of a micro-batch.
    pub batch: usize,
    /// Micro-batches of a step.
    pub accumulate: u64,
    /// Steps of each run.
    pub steps: u64,
    /// The optimiser of every run.
    pub optimiser: OptimiserConfig,
    /// Longest gradient of the whole model.
    pub clip: f32,
    /// Held-out batches that are measured at the end.
    pub held_out_batches: u64,
}

/// The cuts that `shoal bench cuts` compares.
pub fn standard_cuts(model: &ModelConfig) -> Vec<Contender> {
    let d = model.d_model;
    let bottleneck = |times: usize| Cut::Bottleneck { width: (d / times).max(1), wire: Dtype::Bf16 };
    let anchored =
        |times: usize| Cut::Anchored { width: (4 * d / times).max(1), bits: 4, table: Table::Full };
    let cuts = [
        ("plain, bf16", Cut::Plain { wire: Dtype::Bf16 }),
        ("plain + table, bf16", Cut::Tabled { wire: Dtype::Bf16, table: Table::Full }),
        ("IOTA, 16×", bottleneck(16)),
        ("IOTA, 32×", bottleneck(32)),
        ("IOTA, 64×", bottleneck(64)),
        ("token-anchored, 16×", anchored(16)),
        ("token-anchored, 32×", anchored(32)),
        ("token-anchored, 64×", anchored(64)),
        ("nothing", Cut::Nothing { table: Table::Full }),
    ];
    cuts.map(|(name, cut)| Contender { name: name.to_owned(), cut, crossing: None }).into()
}

/// What one cut cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CutRow {
    /// Name given.
    pub name: String,
    /// Bytes per token and cut as counted in training: forward, backward.
    pub bytes_per_token: [f64; 2],
    /// Times smaller than bf16, both ways together. None if nothing was sent.
    pub ratio_bf16: Option<f64>,
    /// Held-out loss of every seed, in nats.
    pub losses: Vec<f64>,
    /// Mean of them.
    pub loss: f64,
    /// Loss above the baseline, as a share of the baseline's.
    pub gap: f64,
    /// Share of the wire's worth that is kept; none without a control, or where the wire is worth nothing.
    pub kept: Option<f64>,
    /// Parameters more (or less) than the baseline has.
    pub parameters_added: i64,
    /// Seconds of all its runs.
    pub seconds: f64,
}

/// A finished run, for progress.
#[derive(Debug, Clone, Copy)]
pub struct CutRun<'a> {
    /// Runs done and in all.
    pub done: (usize, usize),
    /// Name of the cut.
    pub name: &'a str,
    /// Its seed.
    pub seed: u64,
    /// Held-out loss at its end.
    pub loss: f64,
}

/// Trains every cut with every seed. `on_run` hears of each run.
pub fn run(
    plan: &CutsPlan,
    data: &Dataset,
    pool: &Arc<ThreadPool>,
    mut on_run: impl FnMut(CutRun<'_>),
) -> Result<Vec<CutRow>, LocalError> {
    for (key, value) in
        [("cuts", plan.cuts.len()), ("seeds", plan.seeds.len()), ("places to cut", plan.ends.len())]
    {
        if value == 0 {
            return Err(LocalError::Zero { key });
        }
    }
    let mut rows = Vec::new();
    let mut baseline_parameters = None;
    let total = plan.cuts.len() * plan.seeds.len();
    for Contender { name, cut, crossing } in &plan.cuts {
        let start = Instant::now();
        let (mut losses, mut bytes, mut parameters) = (Vec::new(), [0; 2], 0);
        for &seed in &plan.seeds {
            let specs = StageSpec::plan_at(&plan.model, *cut, &plan.ends, wide(seed))?;
            parameters = specs.iter().map(StageSpec::parameters).sum::<usize>() as i64;
            let weights = specs.iter().map(StageSpec::initial_weights).collect();
            let model = LocalModel::new(&specs, weights, plan.optimiser, pool)?;
            let mut model = model.through(crossing.clone());
            let curve =
                train(&mut model, &local_plan(plan, data, seed), |_| true).map_err(|error| match error {
                    LocalError::Crossing { micro_batch, reason } => {
                        LocalError::Crossing { micro_batch, reason: format!("{name}: {reason}") }
                    }
                    error => error,
                })?;
            losses.push(curve.held_out_last());
            bytes = [bytes[0] + model.wire_bytes()[0], bytes[1] + model.wire_bytes()[1]];
            let done = (rows.len() * plan.seeds.len() + losses.len(), total);
            on_run(CutRun { done, name, seed, loss: curve.held_out_last() });
        }
        let tokens = plan.steps * plan.accumulate * (plan.batch * plan.model.sequence) as u64;
        let crossings = (tokens * (plan.ends.len() * plan.seeds.len()) as u64) as f64;
        let bytes_per_token = bytes.map(|bytes| bytes as f64 / crossings);
        let sent = bytes_per_token[0] + bytes_per_token[1];
        rows.push(CutRow {
            name: name.clone(),
            bytes_per_token,
            ratio_bf16: (sent > 0.0).then(|| (2 * 2 * plan.model.d_model) as f64 / sent),
            loss: losses.iter().sum::<f64>() / losses.len() as f64,
            losses,
            gap: 0.0,
            kept: None,
            parameters_added: parameters - *baseline_parameters.get_or_insert(parameters),
            seconds: start.elapsed().as_secs_f64(),
        });
    }
    compare(&mut rows, &plan.cuts);
    Ok(rows)
}

fn local_plan<'a>(plan: &CutsPlan, data: &'a Dataset, seed: u64) -> LocalPlan<'a> {
    LocalPlan {
        data,
        seed: wide(seed),
        batch: plan.batch,
        accumulate: plan.accumulate,
        steps: plan.steps,
        schedule: Schedule::cosine(plan.steps),
        clip: LocalClip::Model(plan.clip),
        evaluate_every: 0,
        held_out_batches: plan.held_out_batches,
    }
}

fn wide(seed: u64) -> [u8; 32] {
    BlobHash::of(&seed.to_le_bytes()).0
}

/// Fills in gaps and shares: the first row is the baseline, the first cut that sends nothing the control.
fn compare(rows: &mut [CutRow], cuts: &[Contender]) {
    let baseline = rows[0].loss;
    let control = cuts.iter().position(|one| matches!(one.cut, Cut::Nothing { .. })).map(|i| rows[i].loss);
    for row in rows {
        row.gap = row.loss / baseline - 1.0;
        row.kept = control
            .filter(|control| *control > baseline)
            .map(|control| (control - row.loss) / (control - baseline));
    }
}

/// The rows as a Markdown table.
pub fn markdown(rows: &[CutRow]) -> String {
    let mut table = String::from(
        "| cut | bytes/token forward + backward | × against bf16 (f32) | held-out loss (lowest–highest seed) | gap | wire value kept | parameters | s |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let [forward, backward] = row.bytes_per_token;
        let ratio = row.ratio_bf16.map_or("–".to_owned(), |x| format!("{x:.1} ({:.1})", 2.0 * x));
        let (lowest, highest) = (
            row.losses.iter().copied().fold(f64::INFINITY, f64::min),
            row.losses.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        );
        let kept = match row.kept {
            None => "–".to_owned(),
            Some(kept) if kept < 0.0 => "worse than nothing".to_owned(),
            Some(kept) => format!("{:.0} %", 100.0 * kept),
        };
        writeln!(
            table,
            "| {} | {forward:.2} + {backward:.2} | {ratio} | {:.4} ({lowest:.4}–{highest:.4}) | {:+.2} % | {kept} | {:+} | {:.0} |",
            row.name,
            row.loss,
            100.0 * row.gap,
            row.parameters_added,
            row.seconds,
        )
        .expect("a string takes all");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, loss: f64, bytes: f64) -> CutRow {
        CutRow {
            name: name.to_owned(),
            bytes_per_token: [bytes; 2],
            ratio_bf16: (bytes > 0.0).then(|| 512.0 / bytes),
            losses: vec![loss - 0.1, loss + 0.1],
            loss,
            gap: 0.0,
            kept: None,
            parameters_added: 10,
            seconds: 3.0,
        }
    }

    #[test]
    fn gaps_are_against_the_first_row_and_shares_against_the_control() {
        let nothing = Cut::Nothing { table: Table::Full };
        let cuts: Vec<_> =
            [Cut::Plain { wire: Dtype::Bf16 }, Cut::anchored(256), Cut::anchored(256), nothing]
                .map(|cut| Contender { name: String::new(), cut, crossing: None })
                .into();
        let mut rows = [
            row("plain", 4.0, 512.0),
            row("good", 4.02, 8.0),
            row("bad", 4.4, 8.0),
            row("nothing", 4.2, 0.0),
        ];
        compare(&mut rows, &cuts);
        let table = markdown(&rows);
        let lines: Vec<_> = table.lines().skip(2).collect();
        assert_eq!(
            lines[1],
            "| good | 8.00 + 8.00 | 64.0 (128.0) | 4.0200 (3.9200–4.1200) | +0.50 % | 90 % | +10 | 3 |"
        );
        assert!(lines[0].contains("+0.00 % | 100 %"));
        assert!(lines[2].contains("+10.00 % | worse than nothing"));
        assert!(lines[3].contains("| – | 4.2000 (4.1000–4.3000) | +5.00 % | 0 %"));
    }
}
