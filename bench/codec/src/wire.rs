//! A step's activations over an emulated link: encoding, transfer and decoding at the same time, wall clock.

use crate::File;
use anyhow::{Context, anyhow, ensure};
use codec::bench::median;
use codec::{
    Auto, CodecId, Level, Limits, Link, Predictor, Shared, TensorRef, decode_into_at, encode_at, encode_predictive,
};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Rows of a micro-batch.
const ROWS: usize = 512;
/// Rounds in which every contender sends the step once, after one round that is checked and not timed.
const ROUNDS: usize = 7;
/// Encoded micro-batches that wait for the link.
const QUEUE: usize = 4;
/// What a link is taken for before anything was sent, bytes a second.
const UNMEASURED: f64 = 12.5e6;
/// Links, in bits a second.
const LINKS: [(&str, f64); 2] = [("100 Mbit/s", 100e6), ("1 Gbit/s", 1e9)];

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Zstd,
    Codec(CodecId),
    Auto,
}

const CONTENDERS: [(&str, How); 7] = [
    ("raw bf16", How::Codec(CodecId::Raw)),
    ("zstd 3", How::Zstd),
    ("fast", How::Codec(CodecId::Fast)),
    ("huffman", How::Codec(CodecId::Huffman)),
    ("context", How::Codec(CodecId::Context)),
    ("predictive", How::Codec(CodecId::Predictive)),
    ("auto", How::Auto),
];

/// A wire of the model, with what both ends learned from its earlier rows.
struct Wire {
    predictor: Arc<Predictor>,
    shared: Shared,
}

/// One micro-batch.
struct Item<'a> {
    wire: usize,
    shape: [usize; 2],
    bytes: &'a [u8],
}

impl Item<'_> {
    fn tensor(&self) -> anyhow::Result<TensorRef<'_>> {
        Ok(TensorRef::new(codec::DType::Bf16, &self.shape, self.bytes)?)
    }
}

/// What one contender did in one round.
#[derive(Clone, Copy, Default)]
struct Sent {
    seconds: f64,
    bytes: u64,
}

/// Learns from the first half of each file's rows; the second half is sent, in micro-batches, wire by wire.
fn prepare(files: &[File]) -> anyhow::Result<(Vec<Wire>, Vec<Item<'_>>)> {
    let (mut wires, mut items) = (Vec::new(), Vec::new());
    for file in files {
        let tensor = file.tensor()?;
        let (rows, cols) = tensor.rows_cols();
        let (first, second) = file.bytes.split_at(rows / 2 * cols * 2);
        let predictor =
            Arc::new(Predictor::learn(&[TensorRef::new(codec::DType::Bf16, &[rows / 2, cols], first)?])?);
        let mut shared = Shared::new();
        shared.add_predictor(Arc::clone(&predictor));
        for bytes in second.chunks(ROWS * cols * 2) {
            items.push(Item { wire: wires.len(), shape: [bytes.len() / cols / 2, cols], bytes });
        }
        wires.push(Wire { predictor, shared });
    }
    // As they come in training: a micro-batch crosses all wires, then the next one does.
    let mut at = vec![0; wires.len()];
    let mut order: Vec<(usize, usize)> = Vec::new();
    for item in &items {
        order.push((at[item.wire], item.wire));
        at[item.wire] += 1;
    }
    let mut ordered: Vec<_> = items.into_iter().zip(order).collect();
    ordered.sort_by_key(|(_, place)| *place);
    Ok((wires, ordered.into_iter().map(|(item, _)| item).collect()))
}

/// What the sender knows of the link: what it carried so far.
#[derive(Default)]
struct Gauge {
    queued: AtomicU64,
    delivered: AtomicU64,
    busy_ns: AtomicU64,
    /// Time that the decoder is expected to need for what was encoded and not decoded yet.
    decoding_ns: AtomicU64,
}

impl Gauge {
    fn link(&self) -> Link {
        let (queued, delivered) = (self.queued.load(Relaxed), self.delivered.load(Relaxed));
        let busy_s = self.busy_ns.load(Relaxed) as f64 / 1e9;
        let bytes_per_s = if delivered > 0 { delivered as f64 / busy_s } else { UNMEASURED };
        let backlog_s = queued.saturating_sub(delivered) as f64 / bytes_per_s;
        Link { bytes_per_s, backlog_s, decoding_s: self.decoding_ns.load(Relaxed) as f64 / 1e9 }
    }
}

fn lock(auto: &Mutex<Auto>) -> std::sync::MutexGuard<'_, Auto> {
    auto.lock().unwrap_or_else(PoisonError::into_inner)
}

fn encode(
    how: How,
    auto: &Mutex<Auto>,
    memory: &mut codec::Wire,
    gauge: &Gauge,
    wire: &Wire,
    item: &Item<'_>,
) -> anyhow::Result<(How, Vec<u8>)> {
    let level = Level::detect();
    let tensor = item.tensor()?;
    let how = if how == How::Auto {
        let auto = lock(auto).clone();
        How::Codec(auto.choose_on(memory, tensor, gauge.link(), Some(&wire.predictor))?)
    } else {
        how
    };
    let start = Instant::now();
    let mut out = Vec::with_capacity(item.bytes.len() + 64);
    match how {
        How::Zstd => out = zstd::bulk::compress(item.bytes, 3)?,
        How::Codec(CodecId::Predictive) => {
            encode_predictive(level, &wire.predictor, tensor, &mut out)?;
        }
        How::Codec(codec) => {
            encode_at(level, codec, tensor, &mut out)?;
        }
        How::Auto => return Err(anyhow!("auto chose itself")),
    }
    if let How::Codec(codec) = how {
        lock(auto).observe(codec, item.bytes.len(), start.elapsed().as_secs_f64(), 0.0);
        memory.note(codec, item.bytes.len(), out.len());
    }
    Ok((how, out))
}

fn decode(how: How, auto: &Mutex<Auto>, wire: &Wire, item: &Item<'_>, packed: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    let How::Codec(_) = how else {
        return Ok(zstd::bulk::decompress(packed, item.bytes.len())?);
    };
    let start = Instant::now();
    // As in the swarm: a hash around the payload was checked already.
    let limits = Limits { max_decoded_bytes: item.bytes.len(), verify_checksum: false };
    let codec = decode_into_at(Level::detect(), packed, &limits, &wire.shared, &mut out)?.codec;
    lock(auto).observe(codec, item.bytes.len(), 0.0, start.elapsed().as_secs_f64());
    Ok(out)
}

/// Time that decoding is expected to take.
fn expected_ns(auto: &Mutex<Auto>, packed: &[u8], item: &Item<'_>) -> u64 {
    let codec = codec::Header::parse(packed, &Limits::default()).map(|header| header.codec);
    let speed = codec.ok().and_then(|codec| lock(auto).speed(codec));
    speed.map_or(0, |speed| (1e9 * item.bytes.len() as f64 / speed.decode) as u64)
}

/// Sends all items once; three threads: encoder, link, decoder.
fn send(
    how: How,
    bytes_per_s: f64,
    auto: &Mutex<Auto>,
    memories: &mut [codec::Wire],
    gauge: &Gauge,
    wires: &[Wire],
    items: &[Item<'_>],
    check: bool,
) -> anyhow::Result<Sent> {
    let start = Instant::now();
    let mut sent = Sent::default();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let (to_link, from_encoder) = sync_channel::<(usize, How, u64, Vec<u8>)>(QUEUE);
        let (to_decoder, from_link) = sync_channel::<(usize, How, u64, Vec<u8>)>(items.len());
        let encoder = scope.spawn(move || -> anyhow::Result<()> {
            for (i, item) in items.iter().enumerate() {
                let (how, packed) = encode(how, auto, &mut memories[item.wire], gauge, &wires[item.wire], item)?;
                gauge.queued.fetch_add(packed.len() as u64, Relaxed);
                let decoding = expected_ns(auto, &packed, item);
                gauge.decoding_ns.fetch_add(decoding, Relaxed);
                to_link.send((i, how, decoding, packed)).map_err(|_| anyhow!("the link is gone"))?;
            }
            Ok(())
        });
        let link = scope.spawn(move || {
            let (mut free, mut bytes) = (start, 0);
            for (i, how, decoding, packed) in from_encoder {
                let begin = free.max(Instant::now());
                let takes = Duration::from_secs_f64(packed.len() as f64 / bytes_per_s);
                free = begin + takes;
                std::thread::sleep(free.saturating_duration_since(Instant::now()));
                bytes += packed.len() as u64;
                gauge.delivered.fetch_add(packed.len() as u64, Relaxed);
                gauge.busy_ns.fetch_add(takes.as_nanos() as u64, Relaxed);
                if to_decoder.send((i, how, decoding, packed)).is_err() {
                    break;
                }
            }
            bytes
        });
        for (i, how, decoding, packed) in from_link {
            let item = &items[i];
            let decoded = decode(how, auto, &wires[item.wire], item, &packed)?;
            gauge.decoding_ns.fetch_sub(decoding, Relaxed);
            ensure!(!check || decoded == item.bytes, "a micro-batch came out changed");
        }
        sent.seconds = start.elapsed().as_secs_f64();
        encoder.join().map_err(|_| anyhow!("the encoder failed"))??;
        sent.bytes = link.join().map_err(|_| anyhow!("the link failed"))?;
        Ok(())
    })?;
    Ok(sent)
}

/// Measures and prints.
pub(crate) fn run(files: &[File]) -> anyhow::Result<()> {
    let (wires, items) = prepare(files)?;
    ensure!(!items.is_empty(), "no activations (act_*.npy) among the files");
    let raw: u64 = items.iter().map(|item| item.bytes.len() as u64).sum();
    println!(
        "### A step's activations over an emulated link\n\n{} micro-batches of {ROWS} rows, {:.1} MB of bf16 from {} \
         wires; encoder, link and decoder at the same time (one thread each), {ROUNDS} rounds in turns, wall clock, \
         median (least–most). What `predictive` learned from earlier rows is not counted. `auto` knows the link by what \
         it carried so far. `against auto`: this one's time ÷ that of `auto` in the same round.\n",
        items.len(),
        raw as f64 / 1e6,
        wires.len()
    );
    println!("| link | codec | ratio | ms | against auto |\n|---|---|---|---|---|");
    for (name, bits) in LINKS {
        let auto = Mutex::new(Auto::new(Level::detect()));
        // Each contender knows its own past of the link.
        let gauges: Vec<Gauge> = CONTENDERS.iter().map(|_| Gauge::default()).collect();
        let mut memories: Vec<Vec<codec::Wire>> =
            CONTENDERS.iter().map(|_| wires.iter().map(|_| codec::Wire::default()).collect()).collect();
        let mut rounds: Vec<Vec<Sent>> = vec![Vec::new(); CONTENDERS.len()];
        for round in 0..=ROUNDS {
            for (c, (_, how)) in CONTENDERS.into_iter().enumerate() {
                let sent = send(how, bits / 8.0, &auto, &mut memories[c], &gauges[c], &wires, &items, round == 0)
                    .with_context(|| CONTENDERS[c].0)?;
                if round > 0 {
                    rounds[c].push(sent);
                }
            }
        }
        let autos: Vec<f64> = rounds[CONTENDERS.len() - 1].iter().map(|sent| sent.seconds).collect();
        for ((codec, _), sent) in CONTENDERS.into_iter().zip(&rounds) {
            let ms: Vec<f64> = sent.iter().map(|sent| 1e3 * sent.seconds).collect();
            let against: Vec<f64> = sent.iter().zip(&autos).map(|(sent, auto)| sent.seconds / auto).collect();
            let mean_bytes = sent.iter().map(|sent| sent.bytes).sum::<u64>() as f64 / sent.len() as f64;
            println!(
                "| {name} | {codec} | {:.3} | {} | {} |",
                raw as f64 / mean_bytes,
                spread(ms, 1),
                spread(against, 3)
            );
        }
    }
    println!();
    Ok(())
}

fn spread(mut values: Vec<f64>, digits: usize) -> String {
    let middle = median(&mut values);
    let (least, most) = (values[0], values[values.len() - 1]);
    format!("{middle:.digits$} ({least:.digits$}–{most:.digits$})")
}
