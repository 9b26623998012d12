use guest::{Guest, Meta};
use codec::*;
struct Codec;
impl Guest for Codec {
    fn compress(input: Vec<u8>, meta: Meta) -> Result<Vec<u8>, String> {
        let shape: Vec<usize> = meta.shape.iter().map(|n| *n as usize).collect();
        let t = TensorRef::new(DType::Bf16, &shape, &input).map_err(|e| e.to_string())?;
        let mut out = Vec::new();
        encode(CodecId::Context, t, &mut out).map_err(|e| e.to_string())?;
        Ok(out)
    }
    fn decompress(input: Vec<u8>, _meta: Meta) -> Result<Vec<u8>, String> {
        Ok(decode(&input, &Limits::default()).map_err(|e| e.to_string())?.into_bytes())
    }
}
guest::export!(Codec with_types_in guest);
