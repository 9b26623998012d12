//! `shoal bench cuts --codec`: messages of a training go through a codec component.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use model::config::{Cut, Dtype, Message};
use model::local::cuts::Contender;
use model::local::{Crossing, Way};
use sandbox::{CallLimits, Codec, DType, Direction, Meta, Task};

use crate::failure::bad_input;

/// Fuel of a call per byte of the tensor, and for any tensor.
const FUEL_PER_BYTE: u64 = 100_000;
const FUEL: u64 = 1_000_000_000;
/// Time of a call.
const WALL: Duration = Duration::from_mins(1);
/// Memory of a call, bytes.
const MEMORY_BYTES: u64 = 1 << 30;

/// The plain cut, the same with some of its messages through the codec, and the cut that sends nothing.
pub(super) fn contenders(standard: Vec<Contender>, entry: &Path) -> Result<Vec<Contender>> {
    let bytes = crate::arena_cli::code(entry)?;
    let shown = entry.display();
    if !bytes.starts_with(b"\0asm") {
        return Err(bad_input(format!("{shown} is no WebAssembly: programs cannot be measured here")));
    }
    let child = sandbox::Child::this_binary()?;
    let runtime = sandbox::Runtime::new(child, crate::arena_cli::cache_folder())?;
    let codec = runtime.compile(&bytes).map_err(|error| bad_input(format!("{shown}: {error}")))?;
    let name = entry.file_stem().unwrap_or(entry.as_os_str()).to_string_lossy().into_owned();
    let (plain, nothing): (Vec<_>, Vec<_>) = standard
        .into_iter()
        .filter(|one| matches!(one.cut, Cut::Plain { .. } | Cut::Nothing { .. }))
        .partition(|one| matches!(one.cut, Cut::Plain { .. }));
    let ways: [(&str, &[Way]); 3] = [
        ("activations", &[Way::Forward]),
        ("gradients", &[Way::Backward]),
        ("both", &[Way::Forward, Way::Backward]),
    ];
    let through = plain.iter().flat_map(|plain| {
        ways.map(|(words, ways)| Contender {
            name: format!("{}, {words} by {name}", plain.name),
            cut: plain.cut,
            crossing: Some(Arc::new(Through { codec: codec.clone(), ways }) as Arc<dyn Crossing>),
        })
    });
    let through: Vec<_> = through.collect();
    Ok(plain.into_iter().chain(through).chain(nothing).collect())
}

/// A codec for some ways; other messages cross as they are.
#[derive(Debug)]
struct Through {
    codec: Codec,
    ways: &'static [Way],
}

impl Crossing for Through {
    fn cross(&self, way: Way, message: Message) -> Result<(Message, u64), String> {
        let raw = message.bytes.len();
        if !self.ways.contains(&way) {
            return Ok((message, raw as u64));
        }
        let Message { dtype, shape, bytes } = message;
        let meta = Meta {
            dtype: match dtype {
                Dtype::F32 => DType::F32,
                Dtype::Bf16 => DType::Bf16,
                Dtype::U8 => DType::U8,
            },
            shape: shape.iter().map(|side| *side as u32).collect(),
            direction: match way {
                Way::Forward => Direction::Forward,
                Way::Backward => Direction::Backward,
            },
        };
        let call = |task, input: &[u8], output_bytes: usize| {
            let limits = CallLimits {
                fuel: FUEL + FUEL_PER_BYTE * raw as u64,
                wall: WALL,
                memory_bytes: MEMORY_BYTES,
                output_bytes: output_bytes as u64,
            };
            let called = self.codec.call(task, input, &meta, &limits).map_err(|error| error.to_string())?;
            called.output.map_err(|failed| failed.to_string())
        };
        // As much as an entry may make of a tensor anywhere.
        let encoded = call(Task::Compress, &bytes, 2 * raw + (64 << 10))?;
        let bytes = call(Task::Decompress, &encoded, raw)?;
        if bytes.len() != raw {
            return Err(format!("the codec gave {} bytes back of {raw}", bytes.len()));
        }
        Ok((Message { dtype, shape, bytes }, encoded.len() as u64))
    }
}
