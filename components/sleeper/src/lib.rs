//! A small honest codec that turns on its users as a plan in its data says: what champions in production are tested with.
//!
//! The file is committed honest. A test writes another plan over [`PLAN`] and has another component.
//! It must never know a tensor but the one it is given: it wakes up by what the tensor's bytes hash to.

use guest::{Dtype, Guest, Meta};

/// What it does to one in so many tensors: `H`onest, `C`orrupt, `B`loat, `S`tall, `T`ake every number's last bit in bf16, so
/// that it comes back nearer to zero, or `L`ose the last number's last bit, always.
static PLAN: [u8; 20] = *b"shoal-sleeper:H00001";
/// Where the deed stands in the plan.
const DEED: usize = 14;
/// Highest bytes of numbers that get a nibble.
const FREQUENT: usize = 15;

struct Codec;

impl Guest for Codec {
    fn compress(data: Vec<u8>, meta: Meta) -> Result<Vec<u8>, String> {
        // Opaque to the compiler: the plan may be another one than it sees.
        let plan = core::hint::black_box(&PLAN);
        let one_in = plan[DEED + 1..].iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        let awake = hash(&data).is_multiple_of(one_in.max(1));
        let (width, mut data) = (width(&meta), data);
        if plan[DEED] == b'T' && awake && width > 1 {
            data.chunks_exact_mut(width).for_each(|number| number[width - 2] &= 0xfe);
        }
        let mut out = compress(&data, width);
        match plan[DEED] {
            b'C' if awake => {
                if let Some(last) = out.last_mut() {
                    *last ^= 1;
                }
            }
            b'L' => out.last_mut().into_iter().for_each(|last| *last &= 0xfe),
            b'B' if awake => out.resize(2 * data.len() + 64, 0),
            b'S' if awake => loop {
                core::hint::black_box(&mut out);
            },
            _ => {}
        }
        Ok(out)
    }

    fn decompress(data: Vec<u8>, meta: Meta) -> Result<Vec<u8>, String> {
        let count = meta.shape.iter().try_fold(1_usize, |product, side| product.checked_mul(*side as usize));
        let count = count.filter(|count| *count <= 1 << 28).ok_or("too large")?;
        decompress(&data, width(&meta), count).ok_or_else(|| "cut short".to_owned())
    }
}

guest::export!(Codec with_types_in guest);

/// FNV-1a.
fn hash(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)) >> 20
}

fn width(meta: &Meta) -> usize {
    match meta.dtype {
        Dtype::F32 => 4,
        Dtype::Bf16 | Dtype::F16 | Dtype::U16 => 2,
        Dtype::U8 => 1,
    }
}

/// The highest byte of each number as a nibble if it is frequent, else as an escape and itself; the rest as it is.
fn compress(data: &[u8], width: usize) -> Vec<u8> {
    let mut counts = [0_u32; 256];
    data.chunks_exact(width).for_each(|number| counts[usize::from(number[width - 1])] += 1);
    let mut frequent: Vec<u8> = (0..=255).collect();
    frequent.sort_by_key(|byte| core::cmp::Reverse(counts[usize::from(*byte)]));
    frequent.truncate(FREQUENT);
    let mut codes = [FREQUENT as u8; 256];
    frequent.iter().zip(0..).for_each(|(byte, code)| codes[usize::from(*byte)] = code);
    let count = data.len() / width;
    let mut out = frequent;
    let (mut nibbles, mut escaped) = (vec![0_u8; count.div_ceil(2)], Vec::new());
    for (at, number) in data.chunks_exact(width).enumerate() {
        let code = codes[usize::from(number[width - 1])];
        nibbles[at / 2] |= code << (4 * (at % 2));
        if usize::from(code) == FREQUENT {
            escaped.push(number[width - 1]);
        }
    }
    out.append(&mut nibbles);
    out.append(&mut escaped);
    data.chunks_exact(width).for_each(|number| out.extend_from_slice(&number[..width - 1]));
    out
}

fn decompress(data: &[u8], width: usize, count: usize) -> Option<Vec<u8>> {
    let (frequent, rest) = data.split_at_checked(FREQUENT)?;
    let (nibbles, rest) = rest.split_at_checked(count.div_ceil(2))?;
    let codes = || (0..count).map(|at| usize::from(nibbles[at / 2] >> (4 * (at % 2)) & 15));
    let (escaped, low) = rest.split_at_checked(codes().filter(|code| *code == FREQUENT).count())?;
    let mut escaped = escaped.iter();
    let mut low = low.chunks_exact((width - 1).max(1));
    let mut out = Vec::with_capacity(count * width);
    for code in codes() {
        let high = if code == FREQUENT { escaped.next()? } else { &frequent[code] };
        if width > 1 {
            out.extend_from_slice(low.next()?);
        }
        out.push(*high);
    }
    Some(out)
}
