//! Codecs with shared state: predictors, bases, low-rank factors.

use crate::tensors::{Random, matrix, shared};
use proptest::prelude::*;
use shoal_codec::{
    Basis, CodecError, CodecId, DType, Header, Learner, Level, Limits, LowRank, Predictor, Shared, Target,
    Tensor, TensorRef, decode, decode_into_at, encode_klt, encode_low_rank, encode_predictive,
    relative_error, similarity, with_threads,
};
use std::sync::Arc;

const UNCHECKED: Limits = Limits { max_decoded_bytes: 1 << 24, verify_checksum: false };

fn decode_all(payload: &[u8], shared: &Shared) -> Vec<u8> {
    let mut first: Option<Vec<u8>> = None;
    for level in Level::available() {
        let mut bytes = Vec::new();
        decode_into_at(level, payload, &Limits::default(), shared, &mut bytes).unwrap();
        assert!(first.as_ref().is_none_or(|f| *f == bytes), "{level} decodes to other bits");
        first = Some(bytes);
    }
    first.unwrap()
}

fn predictor_for(tensor: &Tensor) -> (Predictor, Shared) {
    let learned = Predictor::learn(&[tensor.view()]).unwrap();
    let sent = Predictor::from_bytes(learned.to_bytes()).unwrap();
    assert_eq!(learned, sent);
    let mut shared = Shared::new();
    assert_eq!(shared.add_predictor(Arc::new(sent.clone())), learned.id());
    (sent, shared)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn predicted_tensors_are_exact(cols in 1_usize..70, rows in 1_usize..200, rank in 1_usize..5, seed: u64) {
        let (predictor, shared) = predictor_for(&matrix(DType::Bf16, 96, cols, rank, seed));
        let next = matrix(DType::Bf16, rows, cols, rank, seed ^ 1);
        let mut first = Vec::new();
        for level in Level::available() {
            let mut payload = Vec::new();
            encode_predictive(level, &predictor, next.view(), &mut payload).unwrap();
            prop_assert!(first.is_empty() || first == payload, "{} writes other bytes", level);
            first = payload;
        }
        prop_assert_eq!(&decode_all(&first, &shared)[..], next.bytes());
    }

    #[test]
    fn damaged_predicted_payloads_never_panic(seed: u64) {
        let (predictor, mut shared) = predictor_for(&matrix(DType::Bf16, 96, 40, 2, 3));
        let tensor = matrix(DType::Bf16, 80, 40, 2, 3);
        let basis = Basis::learn(&[tensor.view()]).unwrap();
        shared.add_basis(Arc::new(basis.clone()));
        let target = Target::similarity(0.9).unwrap();
        let mut payloads = [Vec::new(), Vec::new()];
        encode_predictive(Level::Scalar, &predictor, tensor.view(), &mut payloads[0]).unwrap();
        encode_klt(Level::Scalar, &basis, target, tensor.view(), &mut payloads[1]).unwrap();
        let mut r = Random(seed);
        for payload in payloads {
            let body = Header::parse(&payload, &UNCHECKED).unwrap().header_bytes();
            for _ in 0..20 {
                let mut bad = payload.clone();
                let at = body + 8 + r.next() as usize % (bad.len() - body - 8);
                bad[at] ^= 1 << (r.next() & 7);
                let results = Level::available().into_iter().map(|level| {
                    let mut bytes = Vec::new();
                    decode_into_at(level, &bad, &UNCHECKED, &shared, &mut bytes).map(|_| bytes)
                });
                let results: Vec<_> = results.collect();
                prop_assert!(results.windows(2).all(|w| w[0] == w[1]));
            }
        }
        let mut bytes = [predictor.to_bytes().to_vec(), basis.to_bytes().to_vec()];
        for _ in 0..20 {
            for b in &mut bytes {
                let at = r.next() as usize % b.len();
                b[at] = r.next() as u8;
            }
            let _ = Predictor::from_bytes(&bytes[0]);
            let _ = Basis::from_bytes(&bytes[1]);
        }
    }

    #[test]
    fn a_basis_meets_every_target(least in 0.3_f64..0.995, rank in 0_usize..6, cols in 2_usize..40, seed: u64) {
        let earlier = matrix(DType::Bf16, 120, cols, rank, seed);
        let basis = Basis::learn(&[earlier.view()]).unwrap();
        prop_assert_eq!(&basis, &Basis::from_bytes(basis.to_bytes()).unwrap());
        let mut shared = Shared::new();
        shared.add_basis(Arc::new(basis.clone()));
        for dtype in [DType::Bf16, DType::F16, DType::F32] {
            let next = matrix(dtype, 100, cols, rank, seed);
            let mut payload = Vec::new();
            encode_klt(Level::detect(), &basis, Target::similarity(least).unwrap(), next.view(), &mut payload).unwrap();
            let got = Tensor::new(dtype, vec![100, cols], decode_all(&payload, &shared)).unwrap();
            let reached = similarity(next.view(), got.view()).unwrap();
            prop_assert!(reached >= least, "{} < {}", reached, least);
        }
    }
}

#[test]
fn a_missing_predictor_is_named() {
    let tensor = matrix(DType::Bf16, 128, 32, 2, 1);
    let (predictor, _) = predictor_for(&tensor);
    let mut payload = Vec::new();
    encode_predictive(Level::detect(), &predictor, tensor.view(), &mut payload).unwrap();
    let expected =
        CodecError::MissingShared { codec: CodecId::Predictive, what: "predictor", id: predictor.id() };
    assert_eq!(decode(&payload, &Limits::default()).unwrap_err(), expected);
}

#[test]
fn prediction_finds_low_rank_structure() {
    let (predictor, _) = predictor_for(&matrix(DType::Bf16, 600, 64, 3, 5));
    // The same wire: other rows of the same columns need the same right factor, so take later rows of one tensor.
    let whole = matrix(DType::Bf16, 1200, 64, 3, 5);
    let half = whole.bytes().len() / 2;
    let first = TensorRef::new(DType::Bf16, &[600, 64], &whole.bytes()[..half]).unwrap();
    let second = TensorRef::new(DType::Bf16, &[600, 64], &whole.bytes()[half..]).unwrap();
    let own = Predictor::learn(&[first]).unwrap();
    let size = |p: &Predictor| {
        let mut payload = Vec::new();
        encode_predictive(Level::detect(), p, second, &mut payload).unwrap()
    };
    assert!(size(&own) * 2 < half, "{} of {half}", size(&own));
    assert!(size(&predictor) <= half * 2 / 3 + 400, "a predictor of another wire falls back");
}

#[test]
fn what_is_learned_from_a_stream_predicts_what_comes() {
    let whole = matrix(DType::Bf16, 1200, 64, 3, 5);
    let rows = |range: std::ops::Range<usize>| &whole.bytes()[range.start * 128..range.end * 128];
    let mut learner = Learner::new(64).unwrap();
    assert!(learner.predictor().is_err(), "nothing was learned");
    for start in (0..600).step_by(40) {
        learner.add(TensorRef::new(DType::Bf16, &[40, 64], rows(start..start + 40)).unwrap()).unwrap();
    }
    let second = TensorRef::new(DType::Bf16, &[600, 64], rows(600..1200)).unwrap();
    let size = |p: &Predictor| {
        let mut payload = Vec::new();
        let length = encode_predictive(Level::detect(), p, second, &mut payload).unwrap();
        let mut shared = Shared::new();
        shared.add_predictor(Arc::new(Predictor::from_bytes(p.to_bytes()).unwrap()));
        let mut back = Vec::new();
        decode_into_at(Level::detect(), &payload, &Limits::default(), &shared, &mut back).unwrap();
        assert_eq!(back, second.bytes());
        length
    };
    let at_once =
        Predictor::learn(&[TensorRef::new(DType::Bf16, &[600, 64], rows(0..600)).unwrap()]).unwrap();
    let (streamed, at_once) = (size(&learner.predictor().unwrap()), size(&at_once));
    assert!(streamed.abs_diff(at_once) * 50 < at_once, "{streamed} and {at_once} bytes");
    // Another wire's rows, faded, are outweighed by what comes after.
    let mut turned = Learner::new(64).unwrap();
    turned.add(matrix(DType::Bf16, 600, 64, 3, 9).view()).unwrap();
    turned.fade(1e-3);
    turned.add(TensorRef::new(DType::Bf16, &[600, 64], rows(0..600)).unwrap()).unwrap();
    assert_eq!(turned.rows(), 1200);
    assert!(size(&turned.predictor().unwrap()) * 2 < second.bytes().len());
    let other = matrix(DType::F32, 4, 64, 2, 1);
    assert!(turned.add(other.view()).is_err() && Learner::new(0).is_err());
}

#[test]
fn error_feedback_sends_everything_in_the_end() {
    // The same gradient again and again: what arrives in sum approaches what was sent in sum.
    let gradient = matrix(DType::F32, 60, 48, 20, 11);
    let mut state = LowRank::new(4).unwrap();
    let values = |t: &Tensor| -> Vec<f32> {
        t.bytes().as_chunks::<4>().0.iter().map(|w| f32::from_le_bytes(*w)).collect()
    };
    let mut sum = vec![0.0_f32; 60 * 48];
    let mut errors = Vec::new();
    for step in 1..=40_u32 {
        let mut payload = Vec::new();
        encode_low_rank(Level::detect(), &mut state, gradient.view(), &mut payload).unwrap();
        assert!(payload.len() * 4 < gradient.bytes().len());
        let got = decode(&payload, &Limits::default()).unwrap();
        sum.iter_mut().zip(values(&got)).for_each(|(s, v)| *s += v);
        let mean: Vec<u8> = sum.iter().flat_map(|s| (s / step as f32).to_le_bytes()).collect();
        let mean = TensorRef::new(DType::F32, gradient.shape(), &mean).unwrap();
        errors.push(relative_error(gradient.view(), mean).unwrap());
    }
    assert!(errors[39] < 0.25 * errors[0], "{errors:?}");
}

#[test]
fn low_rank_meets_its_target_or_gives_way() {
    for rank in [1, 8] {
        let tensor = matrix(DType::Bf16, 90, 70, 6, 2);
        let mut state = LowRank::with_target(rank, Target::relative_error(0.2).unwrap()).unwrap();
        let mut payload = Vec::new();
        encode_low_rank(Level::detect(), &mut state, tensor.view(), &mut payload).unwrap();
        let got = Tensor::new(DType::Bf16, vec![90, 70], decode_all(&payload, &Shared::new())).unwrap();
        assert!(relative_error(tensor.view(), got.view()).unwrap() <= 0.2);
    }
}

#[test]
fn shared_tensors_are_exact_when_predicted() {
    for (name, tensor) in shared().into_iter().filter(|(n, _)| n.contains("L6") || n.contains("bgrad")) {
        let (rows, cols) = tensor.view().rows_cols();
        let (first, second) = tensor.bytes().split_at(rows / 2 * cols * 2);
        let first = Tensor::new(DType::Bf16, vec![rows / 2, cols], first.to_vec()).unwrap();
        let second =
            Tensor::new(DType::Bf16, vec![rows - rows / 2, cols], second[..second.len()].to_vec()).unwrap();
        let (predictor, shared) = predictor_for(&first);
        let mut payload = Vec::new();
        encode_predictive(Level::detect(), &predictor, second.view(), &mut payload).unwrap();
        assert!(decode_all(&payload, &shared) == second.bytes(), "{name}");
        assert!(second.bytes().len() as f64 / payload.len() as f64 > 1.7, "{name}");
    }
}

#[test]
fn predicted_tensors_of_many_segments_are_the_same_on_any_number_of_threads() {
    // Segments of 2752 rows; the last one ends within sixty-four.
    let next = matrix(DType::Bf16, 2 * 2752 + 77, 96, 3, 12);
    let (predictor, shared) = predictor_for(&next);
    let encode = || {
        let mut payload = Vec::new();
        encode_predictive(Level::detect(), &predictor, next.view(), &mut payload).unwrap();
        payload
    };
    let alone = encode();
    assert_eq!(Header::parse(&alone, &Limits::default()).unwrap().codec, CodecId::Predictive);
    assert!(decode_all(&alone, &shared) == next.bytes());
    for threads in [2, 5] {
        with_threads(threads, || {
            assert!(encode() == alone);
            assert!(decode_all(&alone, &shared) == next.bytes());
        });
    }
}
