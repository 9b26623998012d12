//! One chunk: tails, bit planes of each layer, remaining symbols.

use super::{CHUNK, MAX_LAYERS};
use crate::scratch::Scratch as Kept;
use crate::simd::scalar::Scalar;
use crate::simd::{GROUP, Kernels, Layer, Level};

/// Buffers reused from chunk to chunk.
#[derive(Debug)]
pub(crate) struct Scratch {
    offsets: Kept<u8>,
    a: Kept<u8>,
    b: Kept<u8>,
}

impl Scratch {
    /// Buffers for chunks of a tensor of `n` elements, with slack for whole vectors.
    pub(crate) fn new(n: usize) -> Self {
        let room = n.min(CHUNK) + 2 * GROUP;
        Self { offsets: Kept::any(room), a: Kept::any(room), b: Kept::any(room) }
    }

    /// Room for the offsets of one chunk.
    pub(crate) fn offsets_mut(&mut self) -> &mut [u8] {
        &mut self.offsets
    }
}

/// Appends the chunk of `words`, at most [`CHUNK`] elements, whose offsets `scratch` holds.
pub(crate) fn encode(
    level: Level,
    layers: &[Layer],
    rotate: bool,
    words: &[u8],
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    match level {
        Level::Scalar => encode_with::<Scalar>(layers, rotate, words, scratch, out),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => encode_with::<crate::simd::avx2::Avx2>(layers, rotate, words, scratch, out),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => encode_with::<crate::simd::avx512::Avx512>(layers, rotate, words, scratch, out),
        #[cfg(target_arch = "aarch64")]
        Level::Neon => encode_with::<crate::simd::neon::Neon>(layers, rotate, words, scratch, out),
    }
}

/// Decodes one chunk into `words`; the error is a reason.
pub(crate) fn decode(
    level: Level,
    layers: &[Layer],
    rotate: bool,
    chunk: &[u8],
    scratch: &mut Scratch,
    words: &mut [u8],
) -> Result<(), &'static str> {
    match level {
        Level::Scalar => decode_with::<Scalar>(layers, rotate, chunk, scratch, words),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => decode_with::<crate::simd::avx2::Avx2>(layers, rotate, chunk, scratch, words),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => decode_with::<crate::simd::avx512::Avx512>(layers, rotate, chunk, scratch, words),
        #[cfg(target_arch = "aarch64")]
        Level::Neon => decode_with::<crate::simd::neon::Neon>(layers, rotate, chunk, scratch, words),
    }
}

/// Bytes of the planes of `n` symbols.
const fn plane_bytes(n: usize, bits: u8) -> usize {
    let whole = n / GROUP * (GROUP / 8);
    (whole + (n % GROUP).div_ceil(8)) * bits as usize
}

fn encode_with<K: Kernels>(
    layers: &[Layer],
    rotate: bool,
    words: &[u8],
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    let Scratch { offsets, a, b } = scratch;
    let start = out.len();
    let n = words.len() / 2;
    let (first, deeper) = layers.split_first().expect("a code has at least one layer");
    let whole = n / GROUP * GROUP;
    let bits = usize::from(first.bits);

    out.resize(start + n + plane_bytes(n, first.bits), 0);
    let (tails, planes) = out[start..].split_at_mut(n);
    let (planes, last_planes) = planes.split_at_mut(whole / 8 * bits);
    let (tails, last_tails) = tails.split_at_mut(whole);
    let mut count = K::split_first(&words[..2 * whole], rotate, &offsets[..whole], *first, tails, planes, a);
    if whole < n {
        let mut group = Padded::<{ 2 * GROUP }>::of(&words[2 * whole..]);
        let mut pads = Padded::<GROUP>::of(&offsets[whole..n]);
        // Padding must not escape: its offset is zero and its symbol is that of code 0.
        pads.0[n - whole..].fill(0);
        let pad = (u16::from(first.symbols[0]) << 8).rotate_right(u32::from(rotate)).to_le_bytes();
        group.0[2 * (n - whole)..].as_chunks_mut::<2>().0.fill(pad);
        let (mut tail_group, mut plane_group) = ([0; GROUP], [0; 24]);
        let plane_group = &mut plane_group[..8 * bits];
        count +=
            K::split_first(&group.0, rotate, &pads.0, *first, &mut tail_group, plane_group, &mut a[count..]);
        last_tails.copy_from_slice(&tail_group[..n - whole]);
        cut_planes(plane_group, last_planes, bits);
    }

    let (mut from, mut to) = (a, b);
    for layer in deeper {
        if count == 0 {
            break;
        }
        from[count..].iter_mut().take(GROUP).for_each(|s| *s = layer.symbols[0]);
        let at = out.len();
        let bits = usize::from(layer.bits);
        out.resize(at + plane_bytes(count, layer.bits), 0);
        let whole = count / GROUP * GROUP;
        let (planes, last_planes) = out[at..].split_at_mut(whole / 8 * bits);
        let mut next = K::split_layer(&from[..whole], *layer, planes, to);
        if whole < count {
            let mut plane_group = [0; 24];
            let plane_group = &mut plane_group[..8 * bits];
            next += K::split_layer(&from[whole..whole + GROUP], *layer, plane_group, &mut to[next..]);
            cut_planes(plane_group, last_planes, bits);
        }
        count = next;
        std::mem::swap(&mut from, &mut to);
        if out.len() - start >= 2 * n {
            break;
        }
    }
    out.extend_from_slice(&from[..count]);
    if out.len() - start >= 2 * n {
        out.truncate(start);
        out.extend_from_slice(words);
    }
}

/// A group that was padded with zeros.
struct Padded<const N: usize>([u8; N]);

impl<const N: usize> Padded<N> {
    fn of(part: &[u8]) -> Self {
        let mut whole = [0; N];
        whole[..part.len()].copy_from_slice(part);
        Self(whole)
    }
}

/// Cuts each whole plane of a last group to the bytes that it needs.
fn cut_planes(whole: &[u8], cut: &mut [u8], bits: usize) {
    let each = cut.len() / bits;
    for (w, c) in whole.chunks_exact(8).zip(cut.chunks_exact_mut(each)) {
        c.copy_from_slice(&w[..each]);
    }
}

/// The planes of one layer in a chunk.
#[derive(Clone, Copy, Default)]
struct Planes<'a> {
    layer: Layer,
    count: usize,
    whole: &'a [u8],
    last: [u8; 24],
}

impl<'a> Planes<'a> {
    /// Takes the planes of `count` symbols off the front of `rest`.
    fn take(layer: Layer, count: usize, rest: &mut &'a [u8]) -> Result<Self, &'static str> {
        let Some((all, after)) = rest.split_at_checked(plane_bytes(count, layer.bits)) else {
            return Err("chunk is cut short");
        };
        *rest = after;
        let bits = usize::from(layer.bits);
        let (whole, cut) = all.split_at(count / GROUP * (GROUP / 8) * bits);
        let mut last = [0; 24];
        let over = count % GROUP;
        if over > 0 {
            for (w, c) in last.chunks_exact_mut(8).zip(cut.chunks_exact(over.div_ceil(8))) {
                w[..c.len()].copy_from_slice(c);
            }
            for plane in last.as_chunks::<8>().0 {
                if u64::from_le_bytes(*plane) >> over != 0 {
                    return Err("padding bits are set");
                }
            }
        }
        Ok(Self { layer, count, whole, last })
    }

    /// Number of escaped symbols.
    fn escapes(&self) -> usize {
        let bits = usize::from(self.layer.bits);
        let words = self.whole.as_chunks::<8>().0;
        let last = &self.last.as_chunks::<8>().0[..bits];
        let count = |words: &[[u8; 8]]| -> usize {
            let both = |g: &[[u8; 8]]| g.iter().fold(u64::MAX, |m, w| m & u64::from_le_bytes(*w));
            words.chunks_exact(bits).map(|g| both(g).count_ones() as usize).sum()
        };
        count(words) + if self.count.is_multiple_of(GROUP) { 0 } else { count(last) }
    }
}

fn decode_with<K: Kernels>(
    layers: &[Layer],
    rotate: bool,
    chunk: &[u8],
    scratch: &mut Scratch,
    words: &mut [u8],
) -> Result<(), &'static str> {
    let Scratch { offsets, a, b } = scratch;
    let n = words.len() / 2;
    if chunk.len() == 2 * n {
        words.copy_from_slice(chunk);
        return Ok(());
    }
    let Some((tails, mut rest)) = chunk.split_at_checked(n) else {
        return Err("chunk is cut short");
    };
    let mut found = [Planes::default(); MAX_LAYERS];
    let (mut count, mut depth) = (n, 0);
    for &layer in layers {
        if count == 0 {
            break;
        }
        found[depth] = Planes::take(layer, count, &mut rest)?;
        count = found[depth].escapes();
        depth += 1;
    }
    if rest.len() != count {
        return Err("chunk length contradicts its planes");
    }
    let (mut from, mut to) = (a, b);
    from[..count].copy_from_slice(rest);
    let Some((first, deeper)) = found[..depth].split_first() else {
        return Err("chunk has no layer");
    };
    for p in deeper.iter().rev() {
        let whole = p.count / GROUP * GROUP;
        let taken = K::join_layer(p.whole, p.layer, from, &mut to[..whole]);
        if whole < p.count {
            let last = &p.last[..8 * usize::from(p.layer.bits)];
            K::join_layer(last, p.layer, &from[taken..], &mut to[whole..whole + GROUP]);
        }
        std::mem::swap(&mut from, &mut to);
    }
    let whole = n / GROUP * GROUP;
    let (words, last_words) = words.split_at_mut(2 * whole);
    let taken =
        K::join_first(&tails[..whole], first.whole, first.layer, from, &offsets[..whole], rotate, words);
    if whole < n {
        let tails = Padded::<GROUP>::of(&tails[whole..]);
        let pads = Padded::<GROUP>::of(&offsets[whole..n]);
        let last = &first.last[..8 * usize::from(first.layer.bits)];
        let mut group = [0; 2 * GROUP];
        K::join_first(&tails.0, last, first.layer, &from[taken..], &pads.0, rotate, &mut group);
        last_words.copy_from_slice(&group[..last_words.len()]);
    }
    Ok(())
}
