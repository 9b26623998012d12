//! The kernels in plain Rust: the definition that the SIMD paths are checked against.

use super::{GROUP, Kernels, Layer};

/// Plain Rust kernels.
#[derive(Debug)]
pub(crate) struct Scalar;

/// Code of every symbol under one layer.
struct Coder {
    codes: [u8; 256],
    bits: u8,
}

impl Coder {
    fn new(layer: Layer) -> Self {
        let escape = (1_u8 << layer.bits) - 1;
        let mut codes = [escape; 256];
        // Backwards, so that the first code wins where a book repeats a symbol.
        for code in (0..escape).rev() {
            let [low, ..] = layer.symbols;
            let symbol =
                if layer.bits == 3 { low.wrapping_add(code) } else { layer.symbols[usize::from(code)] };
            codes[usize::from(symbol)] = code;
        }
        Self { codes, bits: layer.bits }
    }

    /// Writes the planes of one group, appends its escaped symbols to `rest` and returns their number.
    fn split_group(&self, symbols: &[u8; GROUP], planes: &mut [u8], rest: &mut [u8]) -> usize {
        let escape = (1_u8 << self.bits) - 1;
        let mut words = [0_u64; 3];
        let mut taken = 0;
        for (i, &s) in symbols.iter().enumerate() {
            let code = self.codes[usize::from(s)];
            let wide = u64::from(code);
            words[0] |= (wide & 1) << i;
            words[1] |= (wide >> 1 & 1) << i;
            words[2] |= (wide >> 2) << i;
            rest[taken] = s;
            taken += usize::from(code == escape);
        }
        put_planes(words, self.bits, planes);
        taken
    }
}

fn put_planes(planes: [u64; 3], bits: u8, out: &mut [u8]) {
    for (p, o) in planes.iter().zip(out.chunks_exact_mut(8)).take(usize::from(bits)) {
        o.copy_from_slice(&p.to_le_bytes());
    }
}

fn get_planes(bits: u8, group: &[u8]) -> [u64; 3] {
    let mut planes = [0; 3];
    for (p, b) in planes.iter_mut().zip(group.as_chunks::<8>().0).take(usize::from(bits)) {
        *p = u64::from_le_bytes(*b);
    }
    planes
}

/// Symbols of one group; returns how many bytes of `deeper` it took.
fn join_group(planes: [u64; 3], layer: Layer, deeper: &[u8], out: &mut [u8; GROUP]) -> usize {
    let [a, b, c] = layer.symbols;
    let table = if layer.bits == 3 {
        std::array::from_fn(|i| a.wrapping_add(i as u8))
    } else {
        [a, b, c, 0, 0, 0, 0, 0]
    };
    let escape = (1_usize << layer.bits) - 1;
    let mut taken = 0;
    for (i, o) in out.iter_mut().enumerate() {
        let code = (planes[0] >> i & 1 | (planes[1] >> i & 1) << 1 | (planes[2] >> i & 1) << 2) as usize;
        let is_escape = code == escape;
        *o = if is_escape { deeper[taken] } else { table[code & 7] };
        taken += usize::from(is_escape);
    }
    taken
}

impl Kernels for Scalar {
    fn split_first(
        words: &[u8],
        rotate: bool,
        offsets: &[u8],
        layer: Layer,
        tails: &mut [u8],
        planes: &mut [u8],
        rest: &mut [u8],
    ) -> usize {
        let mut taken = 0;
        let turn = u32::from(rotate);
        let coder = Coder::new(layer);
        let plane_bytes = usize::from(layer.bits) * 8;
        let groups = words.as_chunks::<{ 2 * GROUP }>().0.iter().zip(offsets.as_chunks::<GROUP>().0);
        let outs = tails.as_chunks_mut::<GROUP>().0.iter_mut().zip(planes.chunks_exact_mut(plane_bytes));
        for ((words, offsets), (tails, planes)) in groups.zip(outs) {
            let mut symbols = [0; GROUP];
            for (i, w) in words.as_chunks::<2>().0.iter().enumerate() {
                let word = u16::from_le_bytes(*w).rotate_left(turn);
                tails[i] = word as u8;
                symbols[i] = ((word >> 8) as u8).wrapping_sub(offsets[i]);
            }
            taken += coder.split_group(&symbols, planes, &mut rest[taken..]);
        }
        taken
    }

    fn split_layer(symbols: &[u8], layer: Layer, planes: &mut [u8], rest: &mut [u8]) -> usize {
        let mut taken = 0;
        let coder = Coder::new(layer);
        let plane_bytes = usize::from(layer.bits) * 8;
        for (group, planes) in symbols.as_chunks::<GROUP>().0.iter().zip(planes.chunks_exact_mut(plane_bytes))
        {
            taken += coder.split_group(group, planes, &mut rest[taken..]);
        }
        taken
    }

    fn join_layer(planes: &[u8], layer: Layer, deeper: &[u8], out: &mut [u8]) -> usize {
        let mut taken = 0;
        let plane_bytes = usize::from(layer.bits) * 8;
        for (out, planes) in out.as_chunks_mut::<GROUP>().0.iter_mut().zip(planes.chunks_exact(plane_bytes)) {
            taken += join_group(get_planes(layer.bits, planes), layer, &deeper[taken..], out);
        }
        taken
    }

    fn join_first(
        tails: &[u8],
        planes: &[u8],
        layer: Layer,
        deeper: &[u8],
        offsets: &[u8],
        rotate: bool,
        words: &mut [u8],
    ) -> usize {
        let mut taken = 0;
        let turn = u32::from(rotate);
        let plane_bytes = usize::from(layer.bits) * 8;
        let ins = tails.as_chunks::<GROUP>().0.iter().zip(planes.chunks_exact(plane_bytes));
        let outs = words.as_chunks_mut::<{ 2 * GROUP }>().0.iter_mut().zip(offsets.as_chunks::<GROUP>().0);
        for ((tails, planes), (words, offsets)) in ins.zip(outs) {
            let mut symbols = [0; GROUP];
            taken += join_group(get_planes(layer.bits, planes), layer, &deeper[taken..], &mut symbols);
            for (i, w) in words.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let high = symbols[i].wrapping_add(offsets[i]);
                *w = u16::from_le_bytes([tails[i], high]).rotate_right(turn).to_le_bytes();
            }
        }
        taken
    }
}
