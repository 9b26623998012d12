//! The payload format: golden bytes, round trips, refusals.

use proptest::prelude::*;
use shoal_codec::{CodecError, CodecId, DType, Header, Limits, TensorRef, decode, encode};

fn payload(dtype: DType, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let n = encode(CodecId::Raw, TensorRef::new(dtype, shape, bytes).unwrap(), &mut out).unwrap();
    assert_eq!(n, out.len());
    out
}

#[test]
fn raw_payload_has_these_bytes() {
    let got = payload(DType::Bf16, &[1, 2], &[0x80, 0x3f, 0x00, 0x40]);
    let expected = [
        b'S', b'C', 2, 0, 0, 2, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0x80, 0x3f, 0x00, 0x40,
    ];
    assert_eq!(got[..28], expected);
    assert_eq!(got.len(), 36);
    assert_eq!(u64::from_le_bytes(got[28..].try_into().unwrap()), twox_hash::XxHash3_64::oneshot(&expected));
}

#[test]
fn an_unknown_field_is_named() {
    let good = payload(DType::F32, &[3], &[7; 12]);
    let limits = Limits { verify_checksum: false, ..Limits::default() };
    let with = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        decode(&bad, &limits).unwrap_err()
    };
    assert_eq!(with(0, b'X'), CodecError::BadMagic);
    assert_eq!(with(2, 9), CodecError::UnsupportedVersion { found: 9 });
    assert_eq!(with(3, 255), CodecError::UnknownCodec { found: 255 });
    assert_eq!(with(4, 99), CodecError::UnknownDType { found: 99 });
    assert_eq!(with(5, 9), CodecError::TooManyDimensions { found: 9 });
    assert_eq!(with(6, 1), CodecError::ReservedBits { found: 1 });
    assert!(matches!(with(8, 13), CodecError::Truncated { .. }));
    assert!(matches!(with(8, 11), CodecError::TrailingBytes { extra: 1 }));
    assert!(matches!(with(15, 0xff), CodecError::Truncated { .. }));
    assert!(matches!(with(16, 4), CodecError::Malformed { .. }));
    let mut damaged = good.clone();
    damaged[22] ^= 1;
    assert_eq!(decode(&damaged, &Limits::default()).unwrap_err(), CodecError::ChecksumMismatch);
}

#[test]
fn a_large_claim_is_refused_before_any_allocation() {
    let mut bad = payload(DType::F32, &[1, 1, 1], &[0; 4]);
    bad[16..28].fill(0xff);
    assert!(matches!(decode(&bad, &Limits::default()), Err(CodecError::TooLarge { .. })));
    let good = payload(DType::U8, &[100], &[1; 100]);
    let small = Limits::with_max_decoded_bytes(99);
    assert_eq!(decode(&good, &small).unwrap_err(), CodecError::TooLarge { bytes: 100, limit: 99 });
}

#[test]
fn scalars_and_empty_tensors_travel() {
    let scalar = payload(DType::F32, &[], &[1, 2, 3, 4]);
    assert_eq!(decode(&scalar, &Limits::default()).unwrap().shape(), [0_usize; 0]);
    let empty = payload(DType::U16, &[5, 0], &[]);
    let got = decode(&empty, &Limits::default()).unwrap();
    assert_eq!((got.shape(), got.bytes()), (&[5, 0][..], &[][..]));
}

proptest! {
    #[test]
    fn raw_round_trips(dtype in 0_u8..5, shape in prop::collection::vec(0_usize..7, 0..4), fill: u8) {
        let dtype = DType::from_id(dtype).unwrap();
        let n = shape.iter().product::<usize>() * dtype.size();
        let bytes: Vec<u8> = (0..n).map(|i| fill.wrapping_add(i as u8)).collect();
        let out = payload(dtype, &shape, &bytes);
        let got = decode(&out, &Limits::default()).unwrap();
        prop_assert_eq!((got.dtype(), got.shape(), got.bytes()), (dtype, &shape[..], &bytes[..]));
        let header = Header::parse(&out, &Limits::default()).unwrap();
        prop_assert_eq!(header.payload_bytes(), out.len());
        for cut in 0..out.len() {
            prop_assert!(decode(&out[..cut], &Limits::default()).is_err());
        }
    }

    #[test]
    fn any_bytes_are_refused_or_decoded(input in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&input, &Limits::default());
    }
}
