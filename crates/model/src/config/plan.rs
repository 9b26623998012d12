//! Which part of the model a stage holds, where its parameters lie, and how they start.

use super::{ConfigError, Cut, ModelConfig, range, rule};
use crate::cut;
use crate::random;
use std::ops::Range;

/// Deviation of a matrix's starting weights.
const DEVIATION: f32 = 0.02;
/// Deviation of a token table's starting rows. As small as a matrix's, they would vanish beside what blocks add after a few
/// of Muon's updates, and a model learns much slower: held-out loss after 100 steps of 1,024 tokens (preset "tiny",
/// vocabulary of 2,048) 5.20 for 0.02, 4.92 for 0.1, 4.85 for 0.3, 4.87 for 1.
const TABLE_DEVIATION: f32 = 0.3;

/// How a parameter is initialised and optimised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    /// Weight of a block or of a cut, `[out, in]`: Muon's share.
    Matrix,
    /// Gain of a norm.
    Vector,
    /// Rows looked up by token.
    Table,
    /// The output layer.
    Head,
}

/// One tensor in a stage's flat weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Hugging Face's name; for cuts "cut.{i}.…", where cut i lies behind stage i.
    pub name: String,
    /// Shape, slowest first.
    pub shape: Vec<usize>,
    /// Index of the first number in the stage's flat weights.
    pub offset: usize,
    /// How it is initialised and optimised.
    pub kind: ParameterKind,
}

impl Parameter {
    /// Numbers in this tensor.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds nothing (it never does; for completeness of `len`).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where it lies in the stage's flat weights.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// A group of parameters whose squared gradients are summed together, in model order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// The receiving half of cut i.
    Receive(usize),
    /// The token embedding.
    Embedding,
    /// Block i of the model.
    Block(usize),
    /// Last norm and output layer.
    Output,
    /// The sending half of cut i.
    Send(usize),
}

/// One stage: a contiguous range of blocks, with the embedding in the first and norm, output layer and loss in the last.
#[derive(Debug, Clone, PartialEq)]
pub struct StageSpec {
    /// The whole model.
    pub model: ModelConfig,
    /// How stages are joined.
    pub cut: Cut,
    /// This stage, from 0.
    pub index: usize,
    /// Number of stages.
    pub count: usize,
    /// Blocks of the model that this stage holds.
    pub blocks: Range<usize>,
    /// Seed of the run.
    pub seed: [u8; 32],
}

impl StageSpec {
    /// Cuts the model into `stages` so that the costliest stage costs as little as possible; the output layer counts.
    pub fn plan(
        model: &ModelConfig,
        cut: Cut,
        stages: usize,
        seed: [u8; 32],
    ) -> Result<Vec<StageSpec>, ConfigError> {
        model.check()?;
        range("stages", stages, 1..=model.blocks)?;
        let block = block_flops(model);
        let output = output_flops(model);
        let mut best: Option<(u64, u128, usize)> = None;
        for tail in 1..=model.blocks - (stages - 1) {
            let costs = spread(model.blocks - tail, stages - 1).chain([tail]).enumerate();
            let costs = costs.map(|(i, n)| n as u64 * block + if i + 1 == stages { output } else { 0 });
            let (most, squares) =
                costs.fold((0, 0), |(most, sum), c| (c.max(most), sum + u128::from(c) * u128::from(c)));
            if stages == 1 && tail != model.blocks {
                continue;
            }
            if best.is_none_or(|(m, s, _)| (most, squares) < (m, s)) {
                best = Some((most, squares, tail));
            }
        }
        let tail = best.map_or(model.blocks, |b| b.2);
        let mut ends = Vec::with_capacity(stages - 1);
        let mut end = 0;
        for n in spread(model.blocks - tail, stages - 1) {
            end += n;
            ends.push(end);
        }
        StageSpec::plan_at(model, cut, &ends, seed)
    }

    /// Cuts the model behind the given numbers of blocks: `[2, 5]` makes stages `0..2`, `2..5`, `5..`.
    pub fn plan_at(
        model: &ModelConfig,
        cut: Cut,
        ends: &[usize],
        seed: [u8; 32],
    ) -> Result<Vec<StageSpec>, ConfigError> {
        model.check()?;
        cut.check(model)?;
        let mut bounds = vec![0];
        bounds.extend_from_slice(ends);
        bounds.push(model.blocks);
        let rising = bounds.windows(2).all(|w| w[0] < w[1]);
        rule("cuts", &format!("{ends:?}"), rising, "must rise and leave every stage at least one block")?;
        let count = bounds.len() - 1;
        Ok((0..count)
            .map(|index| StageSpec {
                model: model.clone(),
                cut,
                index,
                count,
                blocks: bounds[index]..bounds[index + 1],
                seed,
            })
            .collect())
    }

    /// Whether this stage holds the embedding.
    pub fn is_head(&self) -> bool {
        self.index == 0
    }

    /// Whether this stage holds norm, output layer and loss.
    pub fn is_tail(&self) -> bool {
        self.index + 1 == self.count
    }

    /// Whether this stage reads tokens: the head its inputs, the tail its targets, a receiver what its table puts back.
    pub fn needs_tokens(&self) -> bool {
        self.is_head() || self.is_tail() || self.cut.needs_tokens()
    }

    /// Units of this stage in model order, with the names, shapes and kinds of their parameters.
    fn units_with_parameters(&self) -> Vec<(Unit, Vec<cut::Shape>)> {
        let (d, vocab) = (self.model.d_model, self.model.vocab);
        let mut units = Vec::new();
        if !self.is_head() {
            let i = self.index - 1;
            units.push((Unit::Receive(i), cut::boundary(self.cut).receiver_parameters(&self.model, i)));
        }
        if self.is_head() {
            let name = "model.embed_tokens.weight".to_owned();
            units.push((Unit::Embedding, vec![(name, vec![vocab, d], ParameterKind::Table)]));
        }
        for i in self.blocks.clone() {
            units.push((Unit::Block(i), block_parameters(&self.model, i)));
        }
        if self.is_tail() {
            let norm = ("model.norm.weight".to_owned(), vec![d], ParameterKind::Vector);
            let head = ("lm_head.weight".to_owned(), vec![vocab, d], ParameterKind::Head);
            units.push((Unit::Output, vec![norm, head]));
        }
        if !self.is_tail() {
            let i = self.index;
            units.push((Unit::Send(i), cut::boundary(self.cut).sender_parameters(&self.model, i)));
        }
        units.retain(|(_, parameters)| !parameters.is_empty());
        units
    }

    /// All parameters in the order of the flat weights.
    pub fn layout(&self) -> Vec<Parameter> {
        let mut offset = 0;
        let mut layout = Vec::new();
        for (_, parameters) in self.units_with_parameters() {
            for (name, shape, kind) in parameters {
                let parameter = Parameter { name, shape, offset, kind };
                offset += parameter.len();
                layout.push(parameter);
            }
        }
        layout
    }

    /// Units in model order with their ranges in the flat weights.
    pub fn units(&self) -> Vec<(Unit, Range<usize>)> {
        let mut start = 0;
        let sized = self.units_with_parameters().into_iter().map(|(unit, parameters)| {
            let len: usize = parameters.iter().map(|(_, shape, _)| shape.iter().product::<usize>()).sum();
            let range = start..start + len;
            start += len;
            (unit, range)
        });
        sized.collect()
    }

    /// Numbers in this stage's flat weights.
    pub fn parameters(&self) -> usize {
        self.units().last().map_or(0, |(_, range)| range.end)
    }

    /// Starting weights, a function of seed and parameter names alone: the same bits on every CPU and for every split.
    ///
    /// Norm gains are 1; everything else is normal: tables of tokens with deviation 0.3 (a factorised one's product, too),
    /// matrices with 0.02, output projections of blocks with 0.02/√(2·blocks).
    pub fn initial_weights(&self) -> Vec<f32> {
        let mut weights = vec![0.0; self.parameters()];
        for parameter in self.layout() {
            let out = &mut weights[parameter.range()];
            if parameter.kind == ParameterKind::Vector {
                out.fill(1.0);
                continue;
            }
            let residual =
                parameter.name.ends_with("o_proj.weight") || parameter.name.ends_with("down_proj.weight");
            let deviation = match parameter.kind {
                _ if parameter.name.ends_with("table.basis.weight") => {
                    1.0 / (parameter.shape[1] as f32).sqrt()
                }
                ParameterKind::Table => TABLE_DEVIATION,
                _ if residual => DEVIATION / (2.0 * self.model.blocks as f32).sqrt(),
                _ => DEVIATION,
            };
            random::fill_normal(random::key(&self.seed, &parameter.name), deviation, out);
        }
        weights
    }

    /// Multiply-adds × 2 of a forward pass, per token; a backward costs twice as much.
    pub fn flops_per_token(&self) -> u64 {
        let blocks = self.blocks.len() as u64 * block_flops(&self.model);
        let output = if self.is_tail() { output_flops(&self.model) } else { 0 };
        let cuts: usize = self
            .units_with_parameters()
            .iter()
            .filter(|(unit, _)| matches!(unit, Unit::Receive(_) | Unit::Send(_)))
            .flat_map(|(_, parameters)| parameters)
            .filter(|(_, _, kind)| *kind == ParameterKind::Matrix)
            .map(|(_, shape, _)| 2 * shape.iter().product::<usize>())
            .sum();
        blocks + output + cuts as u64
    }
}

/// `blocks` spread over `stages`, earlier stages taking what is left over.
fn spread(blocks: usize, stages: usize) -> impl Iterator<Item = usize> {
    (0..stages).map(move |i| blocks / stages + usize::from(i < blocks % stages))
}

/// Matrix products and causal attention of one block, per token.
fn block_flops(model: &ModelConfig) -> u64 {
    let matrices = model.block_parameters() - 2 * model.d_model as u64;
    2 * matrices + 2 * (model.d_model * (model.sequence + 1)) as u64
}

fn output_flops(model: &ModelConfig) -> u64 {
    2 * (model.d_model * model.vocab) as u64
}

/// Query, key and value lie one behind the other, gate and up too: each group is one matrix product.
fn block_parameters(model: &ModelConfig, i: usize) -> Vec<cut::Shape> {
    let (d, kv, ffn) = (model.d_model, model.kv_width(), model.ffn);
    let matrix = |name: &str, out: usize, inner: usize| {
        (format!("model.layers.{i}.{name}.weight"), vec![out, inner], ParameterKind::Matrix)
    };
    let vector = |name: &str| (format!("model.layers.{i}.{name}.weight"), vec![d], ParameterKind::Vector);
    vec![
        vector("input_layernorm"),
        matrix("self_attn.q_proj", d, d),
        matrix("self_attn.k_proj", kv, d),
        matrix("self_attn.v_proj", kv, d),
        matrix("self_attn.o_proj", d, d),
        vector("post_attention_layernorm"),
        matrix("mlp.gate_proj", ffn, d),
        matrix("mlp.up_proj", ffn, d),
        matrix("mlp.down_proj", d, ffn),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::Dtype;
    use super::*;

    fn micro() -> ModelConfig {
        ModelConfig::preset("micro").expect("known")
    }

    #[test]
    fn a_split_holds_every_parameter_once_with_the_bits_of_the_whole() {
        let model = micro();
        let plain = Cut::Plain { wire: Dtype::F32 };
        let whole = &StageSpec::plan(&model, plain, 1, [7; 32]).expect("fits")[0];
        assert_eq!(whole.parameters() as u64, model.parameters());
        let joined: Vec<f32> = StageSpec::plan(&model, plain, 3, [7; 32])
            .expect("fits")
            .iter()
            .flat_map(StageSpec::initial_weights)
            .collect();
        assert!(joined == whole.initial_weights());
    }

    #[test]
    fn the_costliest_stage_is_as_cheap_as_can_be() {
        let mut model = micro();
        model.vocab = 4096; // the output layer outweighs several blocks
        let stages = StageSpec::plan(&model, Cut::anchored(64), 2, [0; 32]).expect("fits");
        assert_eq!(stages[1].blocks, 3..4);
        model.vocab = 300;
        let stages = StageSpec::plan(&model, Cut::anchored(64), 4, [0; 32]).expect("fits");
        assert_eq!(stages.iter().map(|s| s.blocks.len()).collect::<Vec<_>>(), [1, 1, 1, 1]);
    }

    #[test]
    fn impossible_plans_are_refused() {
        let model = micro();
        assert!(StageSpec::plan(&model, Cut::anchored(64), 5, [0; 32]).is_err());
        assert!(StageSpec::plan(&model, Cut::anchored(64), 0, [0; 32]).is_err());
        assert!(StageSpec::plan_at(&model, Cut::anchored(64), &[2, 2], [0; 32]).is_err());
        assert!(StageSpec::plan_at(&model, Cut::anchored(64), &[4], [0; 32]).is_err());
    }

    #[test]
    fn units_cover_the_flat_weights_in_order() {
        for spec in StageSpec::plan(&micro(), Cut::anchored(64), 3, [0; 32]).expect("fits") {
            let units = spec.units();
            assert!(units.windows(2).all(|w| w[0].1.end == w[1].1.start));
            assert_eq!(units[0].1.start, 0);
            let last = spec.layout().last().expect("not empty").range().end;
            assert_eq!(spec.parameters(), last);
        }
    }
}
