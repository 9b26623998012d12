//! Tensors for tests: Gaussian matrices with scales, and hostile ones.

use proptest::prelude::*;
use shoal_codec::{DType, Tensor};
use std::path::PathBuf;

/// A small fast generator (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }

    /// Near enough to a standard Gaussian.
    pub(crate) fn gaussian(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}

pub(crate) fn bytes_of(dtype: DType, values: &[f32]) -> Vec<u8> {
    let mut out = Vec::new();
    for &v in values {
        match dtype {
            DType::Bf16 => out.extend_from_slice(
                &((v.to_bits() + 0x7fff + (v.to_bits() >> 16 & 1)) >> 16).to_le_bytes()[..2],
            ),
            DType::F16 => {
                // Truncated; exponents outside the type's become zero or the largest.
                let exponent = ((v.to_bits() >> 23 & 0xff) as i32 - 112).clamp(0, 30) as u32;
                let half = v.to_bits() >> 16 & 0x8000 | exponent << 10 | v.to_bits() >> 13 & 0x3ff;
                out.extend_from_slice(&(half as u16).to_le_bytes());
            }
            DType::F32 => out.extend_from_slice(&v.to_le_bytes()),
            DType::U16 => out.extend_from_slice(&((v * 100.0) as i16 as u16).to_le_bytes()),
            DType::U8 => out.push(v as u8),
        }
    }
    out
}

/// A Gaussian matrix whose rows and columns have scales of their own, with a rank-`rank` part in all of it.
pub(crate) fn matrix(dtype: DType, rows: usize, cols: usize, rank: usize, seed: u64) -> Tensor {
    let mut r = Random(seed);
    let left: Vec<f32> = (0..rows * rank).map(|_| r.gaussian()).collect();
    let right: Vec<f32> = (0..cols * rank).map(|_| r.gaussian()).collect();
    let row_scale: Vec<f32> = (0..rows).map(|_| (r.gaussian() * 0.7).exp2()).collect();
    let col_scale: Vec<f32> = (0..cols).map(|_| (r.gaussian() * 0.7).exp2()).collect();
    let mut values = Vec::with_capacity(rows * cols);
    for i in 0..rows {
        for j in 0..cols {
            let common: f32 = (0..rank).map(|k| left[i * rank + k] * right[j * rank + k]).sum();
            let noise = if rank > 0 { 0.05 } else { 1.0 };
            values.push((common + noise * r.gaussian()) * row_scale[i] * col_scale[j]);
        }
    }
    Tensor::new(dtype, vec![rows, cols], bytes_of(dtype, &values)).unwrap()
}

/// Tensors of every type and awkward shapes: Gaussian, constant, few values, any bytes, repeated rows.
pub(crate) fn any_tensor() -> impl Strategy<Value = Tensor> {
    let dtype = (0_u8..5).prop_map(|d| DType::from_id(d).unwrap());
    (dtype, 0_usize..70, 1_usize..300, 0_u8..6, any::<u64>()).prop_map(|(dtype, rows, cols, kind, seed)| {
        let mut r = Random(seed);
        let n = rows * cols * dtype.size();
        let bytes = match kind {
            0 | 1 => return matrix(dtype, rows, cols, usize::from(kind) * 2, seed),
            2 => vec![seed as u8; n],
            3 => (0..n).map(|_| r.next() as u8).collect(),
            4 => (0..n).map(|_| (r.next() % 3 * 0x3f) as u8).collect(),
            _ => {
                let one = matrix(dtype, rows, cols, 0, seed);
                let width = cols * dtype.size();
                (0..rows).flat_map(|i| one.bytes()[i / 3 * width..][..width].to_vec()).collect()
            }
        };
        Tensor::new(dtype, vec![rows, cols], bytes).unwrap()
    })
}

/// This crate's folder, as cargo tells it at run time: a compiled test may outlive the clone it was built in.
pub(crate) fn crate_folder() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests").into()
}

/// The shared measurements' tensors, where they lie beside the workspace.
pub(crate) fn shared() -> Vec<(String, Tensor)> {
    let folder = crate_folder().join("../../../shared/data/activations");
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "npy") {
            continue;
        }
        let file = std::fs::read(&path).unwrap();
        let header = usize::from(u16::from_le_bytes([file[8], file[9]])) + 10;
        let text = String::from_utf8_lossy(&file[10..header]).into_owned();
        let shape = text.split("'shape': (").nth(1).unwrap().split(')').next().unwrap();
        let shape = shape.split(',').filter_map(|d| d.trim().parse().ok()).collect();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        found.push((name, Tensor::new(DType::Bf16, shape, file[header..].to_vec()).unwrap()));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}
