//! Lossy codecs: every target is met, every machine decodes to the same bits.

use crate::tensors::{Random, any_tensor, matrix, shared};
use proptest::prelude::*;
use shoal_codec::{
    CodecId, DType, Header, Level, Limits, Shared, Target, Tensor, decode_into_at, encode_lossy,
    relative_error, similarity,
};

const LOSSY: [CodecId; 2] = [CodecId::Uniform, CodecId::Int8];
const UNCHECKED: Limits = Limits { max_decoded_bytes: 1 << 24, verify_checksum: false };

/// Encodes and decodes on every level, which must agree.
fn there_and_back(codec: CodecId, target: Target, tensor: &Tensor) -> (usize, Tensor) {
    let mut payloads: Vec<Vec<u8>> = Vec::new();
    let mut decoded: Vec<Vec<u8>> = Vec::new();
    for level in Level::available() {
        let mut payload = Vec::new();
        encode_lossy(level, codec, target, tensor.view(), &mut payload).unwrap();
        payloads.push(payload);
    }
    assert!(payloads.windows(2).all(|w| w[0] == w[1]), "levels write other bytes");
    for level in Level::available() {
        let mut bytes = Vec::new();
        decode_into_at(level, &payloads[0], &Limits::default(), &Shared::new(), &mut bytes).unwrap();
        decoded.push(bytes);
    }
    assert!(decoded.windows(2).all(|w| w[0] == w[1]), "levels decode to other bits");
    let got = Tensor::new(tensor.dtype(), tensor.shape().to_vec(), decoded.swap_remove(0)).unwrap();
    (payloads[0].len(), got)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_target_is_met(tensor in any_tensor(), least in 0.05_f64..0.9999) {
        for codec in LOSSY {
            let (_, got) = there_and_back(codec, Target::similarity(least).unwrap(), &tensor);
            if got.bytes() != tensor.bytes() {
                let reached = similarity(tensor.view(), got.view()).unwrap();
                prop_assert!(reached >= least, "{}: {} < {}", codec, reached, least);
            }
            let (_, got) = there_and_back(codec, Target::relative_error(1.0 - least).unwrap(), &tensor);
            if got.bytes() != tensor.bytes() {
                let reached = relative_error(tensor.view(), got.view()).unwrap();
                prop_assert!(reached <= 1.0 - least, "{}: {} > {}", codec, reached, 1.0 - least);
            }
        }
    }

    #[test]
    fn damage_never_panics(tensor in any_tensor(), seed: u64) {
        let mut r = Random(seed);
        for codec in LOSSY {
            let mut payload = Vec::new();
            encode_lossy(Level::Scalar, codec, Target::similarity(0.97).unwrap(), tensor.view(), &mut payload).unwrap();
            let body = Header::parse(&payload, &UNCHECKED).unwrap().header_bytes();
            for _ in 0..8 {
                let mut bad = payload.clone();
                let at = body + r.next() as usize % (bad.len() - body);
                bad[at] = r.next() as u8;
                let results = Level::available().into_iter().map(|level| {
                    let mut bytes = Vec::new();
                    decode_into_at(level, &bad, &UNCHECKED, &Shared::new(), &mut bytes).map(|_| bytes)
                });
                let results: Vec<_> = results.collect();
                prop_assert!(results.windows(2).all(|w| w[0] == w[1]));
            }
        }
    }
}

#[test]
fn a_free_step_is_smaller_than_fixed_bytes() {
    let tensor = matrix(DType::Bf16, 256, 256, 0, 9);
    let target = Target::similarity(0.99).unwrap();
    let (uniform, _) = there_and_back(CodecId::Uniform, target, &tensor);
    let (int8, _) = there_and_back(CodecId::Int8, target, &tensor);
    assert!(uniform * 10 < int8 * 9, "{uniform} {int8}");
}

#[test]
fn values_that_are_not_finite_come_back_as_they_are() {
    let mut bytes = matrix(DType::Bf16, 32, 32, 0, 1).into_bytes();
    bytes[100..102].copy_from_slice(&0x7fc1_u16.to_le_bytes());
    let tensor = Tensor::new(DType::Bf16, vec![32, 32], bytes).unwrap();
    let (_, got) = there_and_back(CodecId::Uniform, Target::similarity(0.9).unwrap(), &tensor);
    assert_eq!(got, tensor);
}

#[test]
fn shared_tensors_meet_their_target() {
    for (name, tensor) in shared() {
        let (size, got) = there_and_back(CodecId::Uniform, Target::similarity(0.99).unwrap(), &tensor);
        assert!(similarity(tensor.view(), got.view()).unwrap() >= 0.99, "{name}");
        assert!(size * 2 < tensor.bytes().len(), "{name}: {size}");
    }
}
