//! safetensors files: one tensor at a time, converted to and from f32.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use safetensors::tensor::{Dtype as FileDtype, Metadata, TensorInfo};

use super::{CheckpointError, disk::write_with, read_error};
use crate::{config::Dtype, limits::MAX_TENSOR_HEADER_BYTES};

/// Numbers that are converted at once.
const NUMBERS_AT_ONCE: usize = 1 << 16;
/// Bytes of the length that a file starts with.
const LENGTH_BYTES: u64 = 8;

/// A tensor to be written.
#[derive(Debug, Clone, Copy)]
pub struct TensorRef<'a> {
    /// Its name; no two are alike.
    pub name: &'a str,
    /// Its shape, slowest first.
    pub shape: &'a [usize],
    /// Row by row.
    pub numbers: &'a [f32],
}

/// Writes a safetensors file, complete or not at all; bf16 is rounded to nearest, ties to even.
pub fn write_tensors(path: &Path, tensors: &[TensorRef<'_>], dtype: Dtype) -> Result<(), CheckpointError> {
    let bad = |reason: String| CheckpointError::Tensors { path: path.display().to_string(), reason };
    let (file_dtype, width) = match dtype {
        Dtype::F32 => (FileDtype::F32, 4),
        Dtype::Bf16 => (FileDtype::BF16, 2),
        Dtype::U8 => return Err(bad("weights are f32 or bf16".to_owned())),
    };
    let mut end = 0;
    let infos = tensors.iter().map(|tensor| {
        let start = end;
        end += tensor.numbers.len() * width;
        let info = TensorInfo { dtype: file_dtype, shape: tensor.shape.to_vec(), data_offsets: (start, end) };
        (tensor.name.to_owned(), info)
    });
    // "pt" is what `transformers` asks for; a single entry keeps the bytes deterministic.
    let about = [("format".to_owned(), "pt".to_owned())].into();
    let header = Metadata::new(Some(about), infos.collect()).map_err(|e| bad(e.to_string()))?;
    let mut header = serde_json::to_vec(&header).expect("a header is plain JSON");
    header.resize(header.len().next_multiple_of(LENGTH_BYTES as usize), b' ');
    write_with(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let mut bytes = Vec::with_capacity(NUMBERS_AT_ONCE * width);
        for numbers in tensors.iter().flat_map(|tensor| tensor.numbers.chunks(NUMBERS_AT_ONCE)) {
            bytes.clear();
            if dtype == Dtype::F32 {
                bytes.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
            } else {
                bytes.extend(numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()));
            }
            file.write_all(&bytes)?;
        }
        Ok(())
    })
}

/// An open safetensors file. Its header is checked; tensors are read when they are asked for.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    header: Metadata,
    names: Vec<String>,
    /// Bytes before the first tensor.
    data_start: u64,
}

impl TensorFile {
    /// Opens a file and checks that its header describes exactly the bytes that follow.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let bad = |reason: String| CheckpointError::Tensors { path: path.display().to_string(), reason };
        let read = |source| read_error(path, source);
        let mut file = File::open(path).map_err(read)?;
        let file_bytes = file.metadata().map_err(read)?.len();
        let mut length = [0; LENGTH_BYTES as usize];
        file.read_exact(&mut length).map_err(|_| bad("it has fewer than 8 bytes".to_owned()))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_TENSOR_HEADER_BYTES || length > file_bytes - LENGTH_BYTES {
            return Err(bad("its header is longer than the file, or than the limit".to_owned()));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(read)?;
        let header: Metadata = serde_json::from_slice(&header).map_err(|e| bad(e.to_string()))?;
        let data_start = LENGTH_BYTES + length;
        if header.data_len() as u64 != file_bytes - data_start {
            return Err(bad(format!(
                "its tensors have {} bytes, but {} follow its header",
                header.data_len(),
                file_bytes - data_start
            )));
        }
        let names = header.offset_keys();
        Ok(Self { path: path.to_owned(), header, names, data_start })
    }

    /// Names of its tensors in the order they lie in the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The shape of a tensor, if it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.header.info(name).map(|info| info.shape.as_slice())
    }

    fn bad(&self, name: &str, problem: String) -> CheckpointError {
        CheckpointError::Tensor { path: self.path.display().to_string(), name: name.to_owned(), problem }
    }

    /// Checks that a tensor is there and has this shape; the file then has its bytes.
    pub fn check_shape(&self, name: &str, shape: &[usize]) -> Result<(), CheckpointError> {
        match self.shape(name) {
            Some(found) if found == shape => Ok(()),
            Some(found) => Err(self.bad(name, format!("has shape {found:?} where {shape:?} belongs"))),
            None => Err(self.bad(name, "is missing; save the model again".to_owned())),
        }
    }

    /// Reads an f32, f16 or bf16 tensor of this shape, which `out` has room for; refuses numbers that are not finite.
    pub fn read_into(&self, name: &str, shape: &[usize], out: &mut [f32]) -> Result<(), CheckpointError> {
        let bad = |problem| self.bad(name, problem);
        self.check_shape(name, shape)?;
        let info = self.header.info(name).expect("it was just found");
        assert_eq!(shape.iter().product::<usize>(), out.len(), "room for the tensor");
        let width = match info.dtype {
            FileDtype::F32 => 4,
            FileDtype::F16 | FileDtype::BF16 => 2,
            other => return Err(bad(format!("is {other:?}; only F32, F16 and BF16 are read"))),
        };
        let mut bytes = vec![0; NUMBERS_AT_ONCE.min(out.len()) * width];
        let mut read = || -> io::Result<()> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.data_start + info.data_offsets.0 as u64))?;
            for numbers in out.chunks_mut(NUMBERS_AT_ONCE) {
                let bytes = &mut bytes[..numbers.len() * width];
                file.read_exact(bytes)?;
                convert(info.dtype, bytes, numbers);
            }
            Ok(())
        };
        read().map_err(|source| read_error(&self.path, source))?;
        match out.iter().position(|x| !x.is_finite()) {
            Some(index) => Err(bad(format!("has a number that is not finite, at {index}"))),
            None => Ok(()),
        }
    }

    /// Reads a tensor of any shape.
    pub fn read(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let shape = self.shape(name).unwrap_or_default().to_vec();
        let mut numbers = vec![0.0; shape.iter().product()];
        self.read_into(name, &shape, &mut numbers)?;
        Ok(numbers)
    }
}

fn convert(dtype: FileDtype, bytes: &[u8], numbers: &mut [f32]) {
    if dtype == FileDtype::F32 {
        for (x, b) in numbers.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *x = f32::from_le_bytes(*b);
        }
        return;
    }
    for (x, b) in numbers.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *x = match dtype {
            FileDtype::F16 => f16::from_le_bytes(*b).to_f32(),
            _ => bf16::from_le_bytes(*b).to_f32(),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(path: &Path, a: &[f32], b: &[f32], dtype: Dtype) {
        let (shape_a, shape_b) = ([1, a.len()], [b.len()]);
        let tensors = [
            TensorRef { name: "b.weight", shape: &shape_a, numbers: a },
            TensorRef { name: "a.weight", shape: &shape_b, numbers: b },
        ];
        write_tensors(path, &tensors, dtype).unwrap();
    }

    #[test]
    fn impossible_tensors_are_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let wrong_shape = TensorRef { name: "w", shape: &[3], numbers: &[1.0, 2.0] };
        assert!(write_tensors(&path, &[wrong_shape], Dtype::F32).is_err());
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn numbers_that_are_not_finite_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        write(&path, &[1.0, f32::NAN], &[], Dtype::Bf16);
        let error = TensorFile::open(&path).unwrap().read("b.weight").unwrap_err().to_string();
        assert!(error.ends_with("tensor b.weight has a number that is not finite, at 1"), "{error}");
    }

    #[test]
    fn any_broken_byte_or_length_gives_an_error_or_other_numbers_but_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        write(&path, &[1.0, 2.0], &[3.0], Dtype::F32);
        let good = std::fs::read(&path).unwrap();
        let try_read = || -> Result<(), CheckpointError> {
            let file = TensorFile::open(&path)?;
            file.names().try_for_each(|name| file.read(name).map(drop))
        };
        try_read().unwrap();
        for position in 0..good.len() {
            for flip in [0x01, 0x10, 0xff] {
                let mut bytes = good.clone();
                bytes[position] ^= flip;
                std::fs::write(&path, &bytes).unwrap();
                let _ = try_read();
            }
            std::fs::write(&path, &good[..position]).unwrap();
            assert!(try_read().is_err(), "cut at {position}");
        }
        std::fs::write(&path, [&good[..], &[0]].concat()).unwrap();
        assert!(try_read().is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn round_trip(a in prop::collection::vec(-1e30_f32..1e30, 0..50), b in prop::collection::vec(-1e30_f32..1e30, 0..50)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.safetensors");
            write(&path, &a, &b, Dtype::F32);
            let file = TensorFile::open(&path).unwrap();
            prop_assert_eq!(file.names().collect::<Vec<_>>().len(), 2);
            prop_assert_eq!(file.read("b.weight").unwrap(), a.clone());
            prop_assert_eq!(file.read("a.weight").unwrap(), b);
            write(&path, &a, &[], Dtype::Bf16);
            let halves: Vec<f32> = a.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
            prop_assert_eq!(TensorFile::open(&path).unwrap().read("b.weight").unwrap(), halves);
        }

        #[test]
        fn hostile_files_never_panic(length: u64, header in "\\PC{0,80}", data in prop::collection::vec(any::<u8>(), 0..40), honest: bool) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.safetensors");
            let length = if honest { header.len() as u64 } else { length };
            std::fs::write(&path, [&length.to_le_bytes()[..], header.as_bytes(), &data].concat()).unwrap();
            if let Ok(file) = TensorFile::open(&path) {
                for name in file.names() {
                    let _ = file.read(name);
                }
            }
        }

        #[test]
        fn hostile_headers_never_panic(
            dtype in prop::sample::select(vec!["F32", "BF16", "F16", "I64", "F4", "BOOL"]),
            shape in prop::collection::vec(prop_oneof![0_u64..5, any::<u64>()], 0..4),
            start in prop_oneof![Just(0_u64), any::<u64>()], end in prop_oneof![0_u64..50, any::<u64>()],
            data in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.safetensors");
            let header = serde_json::json!({ "w": { "dtype": dtype, "shape": shape, "data_offsets": [start, end] } }).to_string();
            std::fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()).unwrap();
            if let Ok(file) = TensorFile::open(&path) {
                let _ = file.read("w");
            }
        }
    }
}
