//! Codecs: compress and decompress, in different sandboxes.

use std::time::Instant;

use arena::account::Metric;
use arena::limits::{ITEM_TIME_NS_MAX, OBJECTIVE_NANO_MAX};
use arena::measure::{CodecItem, Failure, Measures, Wall};
use arena::number::PPB;
use wire::Hash;

use super::{Kind, Measured, outputs_hash};
use crate::coder::{Answer, Clock, Coder, Contract, Meta, Side, Stop, in_time};
use crate::error::JudgeError;
use crate::input::{Direction, Input};
use crate::judge::{Case, Cost, Judge};
use crate::limits;
use crate::log::RunLog;
use crate::pair::Pairs;
use crate::plan::{self, Call};
use crate::synthetic;

pub(super) struct Codec;

impl Kind for Codec {
    /// Without code the tensors of [`synthetic`]; a generator's `decompress` is called with seed and index (36 bytes,
    /// the index little-endian) and gives rows and columns (two `u32`, little-endian), then the bf16 values; or a tensor with
    /// its head ([`crate::input`]), which says whether it is a gradient. No tensor has as many rows as the head's magic means.
    fn generate(&self, judge: &Judge, case: &Case<'_>) -> Result<Vec<Input>, JudgeError> {
        let Some(code) = case.reference else {
            return match case.spec.inputs.code {
                None => Ok(synthetic::tensors(&case.seed, case.spec.inputs.items)),
                Some(hash) => Err(JudgeError::MissingCode { what: "generator", hash }),
            };
        };
        let mut generator = judge.reference(case, code, "generator", case.deadline())?;
        let broken = |reason: &str| JudgeError::Reference { what: "generator", reason: reason.to_owned() };
        (0..case.spec.inputs.items)
            .map(|index| {
                let request = [&case.seed.0[..], &index.to_le_bytes()].concat();
                let answer = generator
                    .call(Side::Decompress, &request, &Meta::bytes(request.len()), limits::INPUT_BYTES_MAX)
                    .map_err(|stop| stop.into_reference("generator"))?;
                let name = format!("generated-{index:04}");
                if Input::has_head(&answer.bytes) {
                    let made = Input::of_blob(name, &answer.bytes, None, Direction::Forward);
                    return made.map_err(|error| broken(&error.to_string()));
                }
                let (head, values) = answer.bytes.split_at_checked(8).ok_or_else(|| broken("no shape"))?;
                let side =
                    |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
                let shape = Some(vec![side(0), side(4)]);
                Input::new(name, shape, Direction::Forward, values)
                    .map_err(|error| broken(&error.to_string()))
            })
            .collect()
    }

    fn measure(
        &self,
        judge: &Judge,
        case: &Case<'_>,
        inputs: &[Input],
        deadline: Instant,
        log: &mut RunLog,
    ) -> Result<Measured, Stop> {
        let mut entry = judge.coder(case, case.entry, Contract::Codec, deadline)?;
        let baseline = case.baseline.map(|code| judge.reference(case, code, "baseline", deadline));
        let mut bench = Bench::new(inputs, baseline.transpose()?, deadline);
        let result = bench.run(case, &mut *entry, log);
        log.entry("entry", &entry.written());
        log.account.usage = entry.usage();
        result?;
        Ok(bench.measured(&*entry, log))
    }
}

/// What one side gave for one input, the first time.
#[derive(Clone, Debug)]
struct First {
    hash: Hash,
    bytes: Vec<u8>,
    fuel: u64,
    time_ns: u64,
}

/// One entry's run over all inputs.
struct Bench<'a> {
    inputs: &'a [Input],
    packed: Vec<Option<First>>,
    decoded: Vec<Option<First>>,
    items: Vec<Option<CodecItem>>,
    baseline: Option<Box<dyn Coder>>,
    deadline: Instant,
    /// What the baseline made of an input, its time and fuel, until it is decompressed.
    beside: Vec<Option<Answer>>,
    pairs: Pairs,
    fuel: (u64, u64),
    cost: Cost,
}

impl<'a> Bench<'a> {
    fn new(inputs: &'a [Input], baseline: Option<Box<dyn Coder>>, deadline: Instant) -> Self {
        let count = inputs.len();
        Self {
            inputs,
            packed: vec![None; count],
            decoded: vec![None; count],
            items: vec![None; count],
            baseline,
            deadline,
            beside: vec![None; count],
            pairs: Pairs::default(),
            fuel: (0, 0),
            cost: Cost::default(),
        }
    }

    fn run(&mut self, case: &Case<'_>, entry: &mut dyn Coder, log: &mut RunLog) -> Result<(), Stop> {
        let clock = Clock::start();
        let calls = plan::calls(self.inputs.len(), &case.order());
        let mut left = vec![0_u8; self.inputs.len()];
        for call in &calls {
            let (Call::Compress(index) | Call::Decompress(index)) = call;
            left[*index] += 1;
        }
        for call in calls {
            let mut coders: Vec<&dyn Coder> = vec![&*entry];
            coders.extend(self.baseline.as_deref());
            in_time(self.deadline, &coders)?;
            match call {
                Call::Compress(index) => self.compress(entry, index)?,
                Call::Decompress(index) => self.decompress(entry, index, left[index] > 2)?,
            }
        }
        self.cost.total_ns = clock.elapsed_ns();
        let more = if entry.has_fuel() { Ok(()) } else { self.more_pairs(entry) };
        // All that was asked for is measured: the tries until now count.
        if let Err(Stop::Judge(JudgeError::Busy { what })) = &more {
            log.line(&format!("{what} took too long on a busy machine: no more tries"));
            return Ok(());
        }
        more
    }

    /// A program's time is the clock's alone, so some inputs are tried several times, in rounds over all of them: the tries
    /// of one input lie far apart. At most half of the time that is left goes there.
    fn more_pairs(&mut self, entry: &mut dyn Coder) -> Result<(), Stop> {
        if self.baseline.is_none() {
            return Ok(());
        }
        let now = Instant::now();
        let until = now + self.deadline.saturating_duration_since(now) / 2;
        let inputs = self.inputs;
        let timed = inputs.len().min(limits::TIMED_INPUTS_MAX);
        for _ in 0..limits::TRIES {
            for (index, input) in inputs.iter().enumerate().take(timed) {
                if Instant::now() > until {
                    return Ok(());
                }
                if self.pairs.tries(index) < limits::TRIES {
                    self.pair(entry, index, &input.bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Entry and baseline once more on one input.
    fn pair(&mut self, entry: &mut dyn Coder, index: usize, data: &[u8]) -> Result<(), Stop> {
        let Some(first) = self.packed[index].clone() else { return Ok(()) };
        let most = 2 * data.len() + limits::COMPRESSED_SLACK_BYTES;
        let there = self.call(entry, Side::Compress, index, data, most)?;
        first.same(index, Side::Compress, Hash::of(&there.bytes), there.fuel)?;
        let beside = self.beside(Side::Compress, index, data, most)?;
        let back = self.call(entry, Side::Decompress, index, &first.bytes, most)?;
        let Some(beside) = beside else { return Ok(()) };
        if let Some(other) = self.beside(Side::Decompress, index, &beside.bytes, most)? {
            self.pairs.push(index, there.time_ns + back.time_ns, beside.time_ns + other.time_ns);
        }
        Ok(())
    }

    fn compress(&mut self, entry: &mut dyn Coder, index: usize) -> Result<(), Stop> {
        let input = &self.inputs[index];
        let most = input.bytes.len() + limits::COMPRESSED_SLACK_BYTES;
        let answer = self.call(entry, Side::Compress, index, &input.bytes, most)?;
        if answer.bytes.is_empty() {
            return Err(Stop::Entry(Failure::Output, format!("input {index}: compressed to nothing")));
        }
        let hash = Hash::of(&answer.bytes);
        if let Some(first) = &self.packed[index] {
            return first.same(index, Side::Compress, hash, answer.fuel);
        }
        let Answer { bytes, fuel, time_ns } = answer;
        self.packed[index] = Some(First { hash, bytes, fuel, time_ns });
        if index < limits::PAIRS_MAX {
            let most = 2 * input.bytes.len() + limits::COMPRESSED_SLACK_BYTES;
            self.beside[index] = self.beside(Side::Compress, index, &input.bytes, most)?;
        }
        Ok(())
    }

    fn decompress(&mut self, entry: &mut dyn Coder, index: usize, repeats: bool) -> Result<(), Stop> {
        let Some(packed) = self.packed[index].take() else { return Ok(()) };
        let input = &self.inputs[index];
        let most = input.bytes.len() + limits::DECODED_SLACK_BYTES;
        let answer = self.call(entry, Side::Decompress, index, &packed.bytes, most)?;
        let exact = answer.bytes[..] == input.bytes[..];
        // An exact copy has the input's hash; others are hashed only where they come again.
        let hash = match () {
            () if exact => input.hash,
            () if repeats => Hash::of(&answer.bytes),
            () => Hash([0; 32]),
        };
        let (fuel, time_ns) = (packed.fuel + answer.fuel, packed.time_ns + answer.time_ns);
        let length = packed.bytes.len();
        self.packed[index] = Some(packed);
        if let Some(first) = &self.decoded[index] {
            return first.same(index, Side::Decompress, hash, answer.fuel);
        }
        self.items[index] = Some(input.measure(length, &answer.bytes, fuel));
        self.decoded[index] =
            Some(First { hash, bytes: Vec::new(), fuel: answer.fuel, time_ns: answer.time_ns });
        let Some(beside) = self.beside[index].take() else { return Ok(()) };
        if let Some(back) = self.beside(Side::Decompress, index, &beside.bytes, most)? {
            self.pairs.push(index, time_ns, beside.time_ns + back.time_ns);
            self.fuel.0 += fuel;
            self.fuel.1 += beside.fuel + back.fuel;
        }
        Ok(())
    }

    /// The baseline right after the entry.
    fn beside(&mut self, side: Side, index: usize, data: &[u8], most: usize) -> Result<Option<Answer>, Stop> {
        let Some(baseline) = &mut self.baseline else { return Ok(None) };
        let answer = baseline.call(side, data, &Meta::of(&self.inputs[index]), most);
        let answer = answer.map_err(|stop| stop.beside("baseline", self.deadline))?;
        self.cost.baseline_ns += answer.time_ns;
        Ok(Some(answer))
    }

    fn call(
        &mut self,
        entry: &mut dyn Coder,
        side: Side,
        index: usize,
        data: &[u8],
        most: usize,
    ) -> Result<Answer, Stop> {
        let answer =
            entry.call(side, data, &Meta::of(&self.inputs[index]), most).map_err(|stop| match stop {
                Stop::Entry(failure, reason) => {
                    let reason = format!("{} of input {index} ({} bytes): {reason}", side.name(), data.len());
                    Stop::Entry(failure, reason)
                }
                stop @ Stop::Judge(_) => stop,
            })?;
        self.cost.entry_ns += answer.time_ns;
        Ok(answer)
    }

    fn measured(self, entry: &dyn Coder, log: &mut RunLog) -> Measured {
        let items: Vec<CodecItem> = self.items.into_iter().flatten().collect();
        let time = |sides: &[Option<First>]| sides.iter().flatten().map(|first| first.time_ns).sum::<u64>();
        let total_ns = time(&self.packed) + time(&self.decoded);
        let mean_ns = total_ns / (items.len().max(1) as u64);
        // With fuel the clock is only asked whether it contradicts, without it it is all there is.
        let clock = if entry.has_fuel() { self.pairs.lower_bound() } else { self.pairs.least_ratio() };
        let counts = match (clock, entry.has_fuel()) {
            (None, _) => None,
            (Some(ratio), false) => Some(ratio),
            // Fuel decides, unless the clock contradicts it by far; then what is beyond the slack counts.
            (Some(ratio), true) => {
                let by_fuel = self.fuel.0 as f64 / self.fuel.1.max(1) as f64;
                (ratio > limits::CLOCK_SLACK * by_fuel).then_some(ratio / limits::CLOCK_SLACK)
            }
        };
        if let Some(ratio) = clock {
            log.line(&format!(
                "time: {}{ratio:.3} × the baseline's by {} pairs; {} by fuel{}",
                if entry.has_fuel() { "at least " } else { "" },
                self.pairs.len(),
                if entry.has_fuel() {
                    format!("{:.3} ×", self.fuel.0 as f64 / self.fuel.1.max(1) as f64)
                } else {
                    "not measured".to_owned()
                },
                if counts.is_some() { ", the clock counts" } else { "" },
            ));
        }
        for (index, (item, input)) in items.iter().zip(self.inputs).enumerate() {
            log.line(&format!(
                "input {index} {} {:?} {}: {} -> {} bytes, similarity {:.9}{}, fuel {}",
                input.hash.short(),
                input.shape,
                input.direction,
                item.original_bytes,
                item.compressed_bytes,
                item.similarity_ppb as f64 / 1e9,
                if item.exact { " (exact)" } else { "" },
                item.fuel
            ));
        }
        log.account.metrics = by_direction(&items, self.inputs);
        let outputs: Vec<Hash> = self.packed.iter().flatten().map(|first| first.hash).collect();
        Measured {
            outputs: outputs_hash(&outputs),
            measures: Measures::Codec(items),
            wall: Some(Wall {
                task_time_ns: mean_ns.min(ITEM_TIME_NS_MAX),
                over_baseline_ppm: counts.map_or(0, |ratio| (ratio * 1e6) as u64).min(ITEM_TIME_NS_MAX),
            }),
            cost: self.cost,
        }
    }
}

/// Ratio and mean similarity of each direction, by the names of [`arena::account::CODEC_METRICS`]: integers, the same at every judge.
/// Nothing where no gradient is among the inputs: what is called forward may then be anything.
fn by_direction(items: &[CodecItem], inputs: &[Input]) -> Vec<Metric> {
    if inputs.iter().all(|input| input.direction == Direction::Forward) {
        return Vec::new();
    }
    let of = |direction: Direction| {
        let those = || items.iter().zip(inputs).filter(move |(_, input)| input.direction == direction);
        let count = those().count() as i128;
        let sum =
            |value: fn(&CodecItem) -> u64| those().map(|(item, _)| i128::from(value(item))).sum::<i128>();
        let similarity: i128 = those().map(|(item, _)| i128::from(item.similarity_ppb)).sum();
        let ratio =
            sum(|item| item.original_bytes) * i128::from(PPB) / sum(|item| item.compressed_bytes).max(1);
        let metric = |what: &str, nano: i128| Metric {
            name: format!("{what}_{direction}"),
            unit: String::new(),
            nano: nano.min(OBJECTIVE_NANO_MAX.into()) as i64,
        };
        (count > 0).then(|| [metric("ratio", ratio), metric("similarity", similarity / count.max(1))])
    };
    Direction::ALL.into_iter().filter_map(of).flatten().collect()
}

impl First {
    /// The same input must give the same bytes, for the same fuel.
    fn same(&self, index: usize, side: Side, hash: Hash, fuel: u64) -> Result<(), Stop> {
        if (self.hash, self.fuel) == (hash, fuel) {
            return Ok(());
        }
        let reason = format!("{} of input {index} gave {} and then {hash}", side.name(), self.hash);
        Err(Stop::Entry(Failure::NotDeterministic, reason))
    }
}
