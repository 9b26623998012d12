//! Codec entries as WebAssembly components: compiled once, a fresh instance for every call, deterministic settings.
//!
//! A component exports the interface `coder` of `wit/codec.wit` and imports nothing. What a call costs is fuel, which
//! depends on the component, its input and [`settings_hash`] alone; wall-clock time is measured beside it.

mod call;
mod compile;
mod settings;
mod shape;
mod ticker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Linker};
use wire::Hash;

pub use compile::contained;
pub(crate) use compile::run_child as compile_child;
pub use settings::{WASMTIME, settings_hash, settings_text};

use crate::fault::{Error, Fault, HostError};
use crate::{Child, limits};
use call::State;
use ticker::Ticker;

/// The interface that a component exports.
pub const INTERFACE: &str = "shoal:codec/coder@0.1.0";

/// Which of the two functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Uncompressed to compressed.
    Compress,
    /// Compressed to uncompressed.
    Decompress,
}

/// Type of one element.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, wasmtime::component::ComponentType, wasmtime::component::Lower,
)]
#[component(enum)]
#[repr(u8)]
pub enum DType {
    /// bfloat16.
    #[component(name = "bf16")]
    Bf16,
    /// IEEE half.
    #[component(name = "f16")]
    F16,
    /// IEEE single.
    #[component(name = "f32")]
    F32,
    /// Unsigned 16-bit integers.
    #[component(name = "u16")]
    U16,
    /// Bytes.
    #[component(name = "u8")]
    U8,
}

/// Which way a tensor travels.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, wasmtime::component::ComponentType, wasmtime::component::Lower,
)]
#[component(enum)]
#[repr(u8)]
pub enum Direction {
    /// Activations, or data of no swarm.
    #[component(name = "forward")]
    Forward,
    /// Gradients.
    #[component(name = "backward")]
    Backward,
}

/// What the decoder is told beside the bytes.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, wasmtime::component::ComponentType, wasmtime::component::Lower,
)]
#[component(record)]
pub struct Meta {
    /// Type of one element.
    pub dtype: DType,
    /// Rows first.
    pub shape: Vec<u32>,
    /// Which way it travels.
    pub direction: Direction,
}

/// What one call may use. All but `wall` are deterministic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Fuel.
    pub fuel: u64,
    /// Wall-clock time; a safety net above what the fuel can take.
    pub wall: Duration,
    /// All linear memories together, bytes.
    pub memory_bytes: u64,
    /// The list given back, bytes.
    pub output_bytes: u64,
}

/// What one call gave, and took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The bytes, or the entry's fault.
    pub output: Result<Vec<u8>, crate::Failed>,
    /// Fuel used; all of it if it ran out.
    pub fuel: u64,
    /// Wall-clock time, instantiation included.
    pub wall: Duration,
    /// Processor time of the calling thread, on which all of it runs.
    pub cpu: Duration,
    /// Most memory of the instance, bytes.
    pub memory_bytes: u64,
}

/// Compiles components and keeps running calls to their deadlines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runtime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: wasmtime::Engine,
    ticker: Ticker,
    child: Child,
    cache: Option<PathBuf>,
}

/// A component, ready to run. Cheap to clone; calls share nothing.
#[derive(Clone)]
pub struct Codec {
    runtime: Runtime,
    hash: Hash,
    bytes: u64,
    instance: InstancePre<State>,
    compress: ComponentExportIndex,
    decompress: ComponentExportIndex,
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Codec").field("hash", &self.hash).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Runtime {
    /// A runtime that compiles in `child` processes and, with a `cache` folder, keeps what they made.
    ///
    /// The folder holds machine code that is run without further checks: it must be writable by this user alone. It is
    /// created with that mode; on Windows it must lie below `%LOCALAPPDATA%`.
    pub fn new(child: Child, cache: Option<PathBuf>) -> Result<Self, HostError> {
        let engine = settings::engine()?;
        if let Some(folder) = &cache {
            compile::private_folder(folder)?;
        }
        let ticker = Ticker::start(engine.clone())?;
        Ok(Self { inner: Arc::new(Inner { engine, ticker, child, cache }) })
    }

    /// Compiles a component, or takes it from the cache.
    ///
    /// # Errors
    /// [`Fault::Invalid`]: no component, or not the exports asked for. [`Fault::Forbidden`]: it imports something, or uses
    /// a proposal that is off. [`Fault::Time`], [`Fault::Memory`], [`Fault::OutputTooLarge`]: compiling took too much.
    pub fn compile(&self, component: &[u8]) -> Result<Codec, Error> {
        if component.len() > limits::COMPONENT_BYTES_MAX {
            let log = format!("{} bytes, at most {}", component.len(), limits::COMPONENT_BYTES_MAX);
            return Err(Error::entry(Fault::Invalid, log));
        }
        let hash = Hash::of(component);
        let inner = &self.inner;
        let compiled =
            compile::compiled(&inner.engine, &inner.child, inner.cache.as_deref(), component, hash)?;
        let (compress, decompress) = shape::check(&inner.engine, &compiled)?;
        let instance = self.prepare(&compiled)?;
        Ok(Codec {
            runtime: self.clone(),
            hash,
            bytes: component.len() as u64,
            instance,
            compress,
            decompress,
        })
    }

    fn prepare(&self, component: &Component) -> Result<InstancePre<State>, Error> {
        let linker = Linker::new(&self.inner.engine);
        linker
            .instantiate_pre(component)
            .map_err(|error| Error::entry(Fault::Forbidden, format!("{error:#}")))
    }
}

impl Codec {
    /// Hash of the component's bytes.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Size of the component, bytes.
    pub fn component_bytes(&self) -> u64 {
        self.bytes
    }

    /// Runs one function on `input` in a new instance. `wall` runs from here to the result.
    ///
    /// # Errors
    /// This machine could not make an instance. What the entry does wrong is in [`Call::output`].
    pub fn call(
        &self,
        task: Task,
        input: &[u8],
        meta: &Meta,
        limits: &CallLimits,
    ) -> Result<Call, HostError> {
        call::run(self, task, input, meta, limits, None)
    }

    /// As [`Codec::call`], but ended by `cpu`, processor time of the calling thread: a call does not run out of time while
    /// the machine is busy with something else. `wall` still ends it; [`Call::cpu`] then tells that it was not the call.
    ///
    /// # Errors
    /// As [`Codec::call`].
    pub fn call_patiently(
        &self,
        task: Task,
        input: &[u8],
        meta: &Meta,
        limits: &CallLimits,
        cpu: Duration,
    ) -> Result<Call, HostError> {
        call::run(self, task, input, meta, limits, Some(cpu))
    }
}
