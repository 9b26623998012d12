//! The codec's targets.

use codec::{Basis, CodecId, DType, Level, Limits, Predictor, Shared, Target, Tensor, TensorRef};
use codec::{decode_into_at, encode_at, encode_klt, encode_lossy, encode_predictive, similarity};
use std::sync::{Arc, OnceLock};

/// Decoded tensors of this length are enough to reach everything.
const MAX_DECODED_BYTES: usize = 1 << 16;

struct Wire {
    shared: Shared,
    payloads: [Vec<u8>; 2],
}

fn wire() -> &'static Wire {
    static WIRE: OnceLock<Wire> = OnceLock::new();
    WIRE.get_or_init(|| {
        let word = |i: u32| 0x3f00 | (i.wrapping_mul(2_654_435_761) >> 16 & 0x80ff) as u16;
        let bytes: Vec<u8> = (0..70 * 9).flat_map(|i| word(i).to_le_bytes()).collect();
        let tensor = TensorRef::new(DType::Bf16, &[70, 9], &bytes).expect("sizes agree");
        let predictor = Arc::new(Predictor::learn(&[tensor]).expect("finite"));
        let basis = Arc::new(Basis::learn(&[tensor]).expect("finite"));
        let mut payloads = [Vec::new(), Vec::new()];
        let target = Target::similarity(0.9).expect("within 0 and 1");
        encode_predictive(Level::detect(), &predictor, tensor, &mut payloads[0]).expect("fits");
        encode_klt(Level::detect(), &basis, target, tensor, &mut payloads[1]).expect("fits");
        let mut shared = Shared::new();
        shared.add_predictor(predictor);
        shared.add_basis(basis);
        Wire { shared, payloads }
    })
}

/// Any bytes as a payload: refused or decoded, and alike on every instruction set.
pub(crate) fn codec_decode(input: &[u8]) {
    decode_alike(input);
    // Once more with the length of the body put right, so that changes of length reach the decoders.
    let mut input = input.to_vec();
    let dimensions = input.get(5).map_or(0, |&d| usize::from(d));
    let around = 16 + 4 * dimensions + 8;
    if let Some(body) = input.len().checked_sub(around) {
        input[8..16].copy_from_slice(&(body as u64).to_le_bytes());
        decode_alike(&input);
    }
}

fn decode_alike(input: &[u8]) {
    let limits = Limits { max_decoded_bytes: 1 << 20, verify_checksum: false };
    let mut first = None;
    for level in Level::available() {
        let mut out = Vec::new();
        let got = decode_into_at(level, input, &limits, &Shared::new(), &mut out).map(|_| out);
        if let Ok(bytes) = &got {
            assert!(bytes.len() <= limits.max_decoded_bytes);
        }
        match &first {
            None => first = Some(got),
            Some(f) => assert_eq!(*f, got, "{level} differs"),
        }
    }
}

/// A tensor from the input through every codec: lossless ones give it back, lossy ones meet their target.
pub(crate) fn codec_round_trip(input: &[u8]) {
    let [dtype, cols, least, bytes @ ..] = input else { return };
    let dtype = DType::from_id(dtype % 5).expect("five types");
    let cols = usize::from(*cols) + 1;
    let rows = bytes.len() / (cols * dtype.size());
    let bytes = &bytes[..rows * cols * dtype.size()];
    let shape = [rows, cols];
    let tensor = TensorRef::new(dtype, &shape, bytes).expect("sizes agree");
    let back = |payload: &[u8]| {
        let mut out = Vec::new();
        let header = decode_into_at(Level::detect(), payload, &Limits::default(), &Shared::new(), &mut out);
        assert_eq!(header.expect("own payloads decode").shape(), shape);
        out
    };
    for codec in [CodecId::Raw, CodecId::Fast, CodecId::Huffman, CodecId::Context] {
        let mut payload = Vec::new();
        encode_at(Level::detect(), codec, tensor, &mut payload).expect("lossless codecs take every tensor");
        assert_eq!(back(&payload), bytes);
    }
    let least = f64::from(*least) / 256.0 * 0.99 + 0.005;
    let target = Target::similarity(least).expect("within 0 and 1");
    for codec in [CodecId::Uniform, CodecId::Int8] {
        let mut payload = Vec::new();
        encode_lossy(Level::detect(), codec, target, tensor, &mut payload)
            .expect("falls back where it cannot serve");
        let out = back(&payload);
        if out != bytes {
            let got = Tensor::new(dtype, shape.to_vec(), out).expect("sizes agree");
            assert!(similarity(tensor, got.view()).expect("floats") >= least);
        }
    }
}

/// Predictors and bases from any bytes, and payloads that name them.
pub(crate) fn codec_shared(input: &[u8]) {
    let _ = Predictor::from_bytes(input);
    let _ = Basis::from_bytes(input);
    let Wire { shared, payloads } = wire();
    let limits = Limits { max_decoded_bytes: MAX_DECODED_BYTES, verify_checksum: false };
    for payload in payloads {
        // The input says which bytes after the header and id to change.
        let mut bad = payload.clone();
        for change in input.chunks_exact(3).take(16) {
            let at = 32 + usize::from(u16::from_le_bytes([change[0], change[1]])) % (bad.len() - 32);
            bad[at] ^= change[2];
        }
        let mut out = Vec::new();
        let _ = decode_into_at(Level::detect(), &bad, &limits, shared, &mut out);
    }
}
