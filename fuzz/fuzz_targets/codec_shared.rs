//! Predictors and bases from any bytes, and payloads that name them.
#![no_main]

use codec::{Basis, DType, Level, Limits, Predictor, Shared, Target, TensorRef, decode_into_at};
use codec::{encode_klt, encode_predictive};
use libfuzzer_sys::fuzz_target;
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

fuzz_target!(|input: &[u8]| {
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
});
