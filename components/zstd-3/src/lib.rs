//! zstd at level 3, the baseline that Matrix Compression began with (the reference library, compiled from C).
//!
//! It must never know a tensor: bytes are bytes.

use guest::{Guest, Meta};

/// Level of zstd.
const LEVEL: i32 = 3;
/// Most bytes that a frame may claim to hold: addresses have 32 bits.
const DECODED_BYTES_MAX: u64 = 256 << 20;

struct Codec;

fn named(code: usize) -> String {
    zstd_safe::get_error_name(code).to_owned()
}

impl Guest for Codec {
    fn compress(data: Vec<u8>, _meta: Meta) -> Result<Vec<u8>, String> {
        let mut out = Vec::with_capacity(zstd_safe::compress_bound(data.len()));
        zstd_safe::compress(&mut out, &data, LEVEL).map_err(named)?;
        Ok(out)
    }

    fn decompress(data: Vec<u8>, _meta: Meta) -> Result<Vec<u8>, String> {
        let size = zstd_safe::get_frame_content_size(&data).ok().flatten();
        let size = size.filter(|size| *size <= DECODED_BYTES_MAX).ok_or("the frame does not say its size")?;
        let mut out = Vec::with_capacity(size as usize);
        zstd_safe::decompress(&mut out, &data).map_err(named)?;
        Ok(out)
    }
}

guest::export!(Codec with_types_in guest);
