//! One wire of a split model: learn from what passed, predict what comes, and say what it saved.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use shoal_codec::{
    CodecError, CodecId, DType, Level, Limits, Predictor, Shared, TensorRef, decode_into_at, encode,
    encode_predictive,
};
use std::sync::Arc;

/// Activations of `rows` tokens: columns that share three causes, and a little noise of their own.
fn activations(rows: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut bytes = Vec::new();
    for _ in 0..rows {
        let causes = [next(), next(), next()];
        for j in 0..64_u8 {
            let j = f32::from(j);
            let common =
                causes[0] * (j * 0.7).sin() + causes[1] * (j * 1.3).cos() + causes[2] * (j * 0.2).sin();
            let value = common + 0.02 * next();
            bytes.extend_from_slice(&((value.to_bits() >> 16) as u16).to_le_bytes());
        }
    }
    bytes
}

fn main() -> Result<(), CodecError> {
    let level = Level::detect();
    let earlier = activations(2048, 1);
    let now = activations(512, 2);
    let earlier = TensorRef::new(DType::Bf16, &[2048, 64], &earlier)?;
    let tensor = TensorRef::new(DType::Bf16, &[512, 64], &now)?;

    // Sender: learn, and send the predictor once.
    let predictor = Predictor::learn(&[earlier])?;
    let sent_once = predictor.to_bytes().to_vec();

    // Receiver: hold it.
    let mut shared = Shared::new();
    shared.add_predictor(Arc::new(Predictor::from_bytes(&sent_once)?));

    // Every tensor after that names it.
    let (mut plain, mut predicted, mut back) = (Vec::new(), Vec::new(), Vec::new());
    encode(CodecId::Huffman, tensor, &mut plain)?;
    encode_predictive(level, &predictor, tensor, &mut predicted)?;
    decode_into_at(level, &predicted, &Limits::default(), &shared, &mut back)?;
    assert_eq!(back, now, "lossless");
    println!(
        "{} bytes: {} by huffman, {} predicted (and {} once for the predictor)",
        now.len(),
        plain.len(),
        predicted.len(),
        sent_once.len()
    );
    Ok(())
}
