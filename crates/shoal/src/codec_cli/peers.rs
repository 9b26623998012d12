//! Other compressors, to compare with.

use anyhow::{Context, bail};
use codec::{DType, TensorRef};

/// A compressor of bytes or numbers that knows nothing of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Zstd,
    Lz4,
    Pco,
}

/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

impl Peer {
    pub(super) fn from_name(name: &str) -> anyhow::Result<Self> {
        Ok(match name {
            "zstd" => Self::Zstd,
            "lz4" => Self::Lz4,
            "pco" => Self::Pco,
            _ => bail!("unknown compressor {name} (known: zstd, lz4, pco)"),
        })
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Pco => "pco",
        }
    }

    pub(super) fn encode(self, tensor: TensorRef<'_>) -> anyhow::Result<Vec<u8>> {
        Ok(match self {
            Self::Zstd => zstd::bulk::compress(tensor.bytes(), ZSTD_LEVEL)?,
            Self::Lz4 => lz4_flex::compress(tensor.bytes()),
            Self::Pco => {
                let config = pco::ChunkConfig::default();
                match tensor.dtype() {
                    DType::F32 => pco::standalone::simple_compress(
                        &words::<4, f32>(tensor, f32::from_le_bytes),
                        &config,
                    ),
                    DType::U8 => {
                        let wide: Vec<u16> = tensor.bytes().iter().map(|&b| u16::from(b)).collect();
                        pco::standalone::simple_compress(&wide, &config)
                    }
                    _ => pco::standalone::simple_compress(
                        &words::<2, u16>(tensor, u16::from_le_bytes),
                        &config,
                    ),
                }
                .context("pco")?
            }
        })
    }

    /// Decodes and returns the tensor's bytes.
    pub(super) fn decode(self, packed: &[u8], tensor: TensorRef<'_>) -> anyhow::Result<Vec<u8>> {
        let length = tensor.bytes().len();
        Ok(match self {
            Self::Zstd => zstd::bulk::decompress(packed, length)?,
            Self::Lz4 => lz4_flex::decompress(packed, length)?,
            Self::Pco => match tensor.dtype() {
                DType::F32 => {
                    let values: Vec<f32> = pco::standalone::simple_decompress(packed)?;
                    values.iter().flat_map(|v| v.to_le_bytes()).collect()
                }
                DType::U8 => {
                    let values: Vec<u16> = pco::standalone::simple_decompress(packed)?;
                    values.iter().map(|&v| v as u8).collect()
                }
                _ => {
                    let values: Vec<u16> = pco::standalone::simple_decompress(packed)?;
                    values.iter().flat_map(|v| v.to_le_bytes()).collect()
                }
            },
        })
    }
}

fn words<const N: usize, T>(tensor: TensorRef<'_>, from: impl Fn([u8; N]) -> T) -> Vec<T> {
    tensor.bytes().as_chunks::<N>().0.iter().map(|w| from(*w)).collect()
}
