use guest::{Guest, Meta};
struct Codec;
impl Guest for Codec {
    fn compress(input: Vec<u8>, _meta: Meta) -> Result<Vec<u8>, String> {
        let mut out = Vec::with_capacity(zstd_safe::compress_bound(input.len()));
        zstd_safe::compress(&mut out, &input, 3).map_err(|c| zstd_safe::get_error_name(c).to_owned())?;
        Ok(out)
    }
    fn decompress(input: Vec<u8>, _meta: Meta) -> Result<Vec<u8>, String> {
        let n = zstd_safe::get_frame_content_size(&input).ok().flatten().ok_or("no size")? as usize;
        let mut out = Vec::with_capacity(n);
        zstd_safe::decompress(&mut out, &input).map_err(|c| zstd_safe::get_error_name(c).to_owned())?;
        Ok(out)
    }
}
guest::export!(Codec with_types_in guest);
