//! The public entries' scheme: block absmax int8 with tuned block, range and outliers, nibble planes, brotli 10.

use crate::{File, Found};
use anyhow::ensure;
use codec::{DType, Tensor, similarity};
use cpu_time::ThreadTime;

const BLOCKS: [usize; 7] = [16, 32, 64, 128, 256, 512, 1024];
/// Shares of elements that are stored apart as bf16 with an index.
const OUTLIERS: [f64; 3] = [0.0, 0.001, 0.005];

struct Coded {
    planes: Vec<u8>,
    decoded: Vec<u8>,
}

fn bf16(v: f32) -> u16 {
    let bits = v.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// Scales (bf16), outliers (u32 index, bf16 value), high nibbles, low nibbles.
fn code(values: &[f32], block: usize, levels: f32, outliers: f64) -> Coded {
    let keep = (values.len() as f64 * outliers) as usize;
    let mut order: Vec<u32> = (0..values.len() as u32).collect();
    let mut rest = values.to_vec();
    let mut apart = Vec::new();
    if keep > 0 {
        order.select_nth_unstable_by(keep, |&a, &b| values[b as usize].abs().total_cmp(&values[a as usize].abs()));
        let mut kept = order[..keep].to_vec();
        kept.sort_unstable();
        for i in kept {
            apart.push(i);
            rest[i as usize] = 0.0;
        }
    }
    let mut planes = Vec::new();
    let mut codes = Vec::with_capacity(values.len());
    let mut decoded = Vec::with_capacity(2 * values.len());
    for part in rest.chunks(block) {
        let most = part.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let scale_bits = bf16(most / levels);
        let scale = f32::from_bits(u32::from(scale_bits) << 16);
        planes.extend_from_slice(&scale_bits.to_le_bytes());
        for &v in part {
            let c = if scale > 0.0 { (v / scale).round().clamp(-127.0, 127.0) } else { 0.0 };
            codes.push(c as i8 as u8);
            decoded.extend_from_slice(&bf16(c * scale).to_le_bytes());
        }
    }
    let mut before = 0;
    for &i in &apart {
        let value = bf16(values[i as usize]);
        planes.extend_from_slice(&(i - before).to_le_bytes());
        planes.extend_from_slice(&value.to_le_bytes());
        decoded[2 * i as usize..2 * i as usize + 2].copy_from_slice(&value.to_le_bytes());
        before = i;
    }
    for shift in [4, 0] {
        planes.extend(codes.chunks(2).map(|c| (c[0] >> shift & 15) << 4 | c.get(1).map_or(0, |c| c >> shift & 15)));
    }
    Coded { planes, decoded }
}

fn entropy_bytes(planes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for &b in planes {
        counts[usize::from(b)] += 1;
    }
    let n = planes.len() as f64;
    counts.iter().filter(|c| **c > 0).map(|&c| f64::from(c) * (n / f64::from(c)).log2()).sum::<f64>() / 8.0
}

fn brotli10(data: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    let params = brotli::enc::BrotliEncoderParams { quality: 10, lgwin: 22, ..Default::default() };
    brotli::BrotliCompress(&mut &data[..], &mut out, &params)?;
    Ok(out)
}

/// The smallest of the tuned variants that reaches `least`; tuned by order-0 entropy, then packed by brotli.
pub(crate) fn measure(file: &File, least: f64) -> anyhow::Result<Found> {
    let values: Vec<f32> = file
        .bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|w| f32::from_bits(u32::from(u16::from_le_bytes(*w)) << 16))
        .collect();
    let reached = |coded: &Coded| -> anyhow::Result<f64> {
        let got = Tensor::new(DType::Bf16, file.shape.clone(), coded.decoded.clone())?;
        Ok(similarity(file.tensor()?, got.view())?)
    };
    let mut best: Option<(f64, (usize, f32, f64))> = None;
    for block in BLOCKS {
        for outliers in OUTLIERS {
            // The fewest levels that reach the target.
            let (mut low, mut high) = (4, 128);
            while low < high {
                let middle = (low + high) / 2;
                let ok = reached(&code(&values, block, middle as f32, outliers))? >= least;
                if ok { high = middle } else { low = middle + 1 }
            }
            if low < 128 {
                let size = entropy_bytes(&code(&values, block, low as f32, outliers).planes);
                if best.is_none_or(|b| size < b.0) {
                    best = Some((size, (block, low as f32, outliers)));
                }
            }
        }
    }
    let Some((_, (block, levels, outliers))) = best else {
        anyhow::bail!("the public scheme cannot reach {least} on {}", file.name);
    };
    let start = ThreadTime::now();
    let coded = code(&values, block, levels, outliers);
    let packed = brotli10(&coded.planes)?;
    let encode_s = start.elapsed().as_secs_f64();
    let start = ThreadTime::now();
    let mut unpacked = Vec::new();
    brotli::BrotliDecompress(&mut &packed[..], &mut unpacked)?;
    let decode_s = start.elapsed().as_secs_f64();
    ensure!(unpacked == coded.planes, "brotli did not give back the planes");
    Ok(Found {
        file: file.name.clone(),
        codec: "public int8 scheme".to_owned(),
        bytes: file.bytes.len(),
        compressed_bytes: packed.len(),
        encode_s,
        decode_s,
        side_bytes: 0,
        similarity: Some(reached(&coded)?),
    })
}
