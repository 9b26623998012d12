//! One call in one new instance.

use std::time::{Duration, Instant};

use wasmtime::component::TypedFunc;
use wasmtime::{ResourceLimiter, Store, Trap, UpdateDeadline};

use super::shape::{Params, Results};
use super::ticker::Ticker;
use super::{Call, CallLimits, Codec, Meta, Task};
use crate::fault::{Failed, Fault, HostError};
use crate::{limits, thread_cpu};

/// Text of an error that an entry may hand back beside its largest list, bytes.
const ERROR_BYTES: usize = limits::LOG_BYTES_MAX;

/// What a store counts, and what it refused.
#[derive(Debug)]
pub(super) struct State {
    memory_left: usize,
    table_left: usize,
    refused: Option<String>,
}

/// Marks an error as ours: the entry asked for more than it may have.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

impl State {
    fn take(left: &mut usize, current: usize, desired: usize, what: &str) -> Result<(), String> {
        let more = desired.saturating_sub(current);
        match left.checked_sub(more) {
            Some(rest) => {
                *left = rest;
                Ok(())
            }
            None => Err(format!("asked for {more} more {what}, {left} are left")),
        }
    }

    fn refuse(&mut self, reason: String) -> wasmtime::Result<bool> {
        self.refused = Some(reason.clone());
        // An error traps, where `false` would let the entry go on: a verdict must not depend on what it does then.
        Err(Refused(reason).into())
    }
}

impl ResourceLimiter for State {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        match Self::take(&mut self.memory_left, current, desired, "bytes of memory") {
            Ok(()) => Ok(true),
            Err(reason) => self.refuse(reason),
        }
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        match Self::take(&mut self.table_left, current, desired, "table elements") {
            Ok(()) => Ok(true),
            Err(reason) => self.refuse(reason),
        }
    }

    fn instances(&self) -> usize {
        limits::INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        limits::TABLES_MAX
    }

    fn memories(&self) -> usize {
        limits::MEMORIES_MAX
    }
}

pub(super) fn run(
    codec: &Codec,
    task: Task,
    input: &[u8],
    meta: &Meta,
    limits: &CallLimits,
    cpu: Option<Duration>,
) -> Result<Call, HostError> {
    let (started, cpu_before) = (Instant::now(), thread_cpu());
    let runtime = &codec.runtime.inner;
    let memory = usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX);
    let state = State { memory_left: memory, table_left: limits::TABLE_ELEMENTS_MAX, refused: None };
    let mut store = Store::new(&runtime.engine, state);
    store.limiter(|state| state);
    // Lists lie in the entry's memory, so this only bounds text that grows when it is transcoded.
    store.set_hostcall_fuel(memory.saturating_add(ERROR_BYTES));
    store
        .set_fuel(limits.fuel)
        .map_err(|error| HostError::system("fuel cannot be set", format!("{error:#}")))?;
    store.set_epoch_deadline(Ticker::ticks(cpu.map_or(limits.wall, |cpu| cpu.min(limits.wall))));
    match cpu {
        None => store.epoch_deadline_trap(),
        Some(cpu) => {
            let wall = limits.wall;
            store.epoch_deadline_callback(move |_| {
                let left = cpu.saturating_sub(thread_cpu().saturating_sub(cpu_before));
                let left = left.min(wall.saturating_sub(started.elapsed()));
                Ok(match left {
                    Duration::ZERO => UpdateDeadline::Interrupt,
                    left => UpdateDeadline::Continue(Ticker::ticks(left)),
                })
            });
        }
    }
    let running = runtime.ticker.running();
    let result = call(codec, task, &mut store, input, meta);
    drop(running);
    let fuel = limits.fuel - store.get_fuel().unwrap_or(0).min(limits.fuel);
    let output = match result {
        Ok(Ok(bytes)) if bytes.len() as u64 > limits.output_bytes => {
            let log = format!("{} bytes, at most {}", bytes.len(), limits.output_bytes);
            Err(Failed::new(Fault::OutputTooLarge, log))
        }
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(text)) => Err(Failed::new(Fault::Trap, format!("the entry reports: {text}"))),
        Err(error) => Err(failed(&error, store.data())?),
    };
    Ok(Call {
        output,
        fuel,
        wall: started.elapsed(),
        cpu: thread_cpu().saturating_sub(cpu_before),
        memory_bytes: memory.saturating_sub(store.data().memory_left) as u64,
    })
}

fn call(
    codec: &Codec,
    task: Task,
    store: &mut Store<State>,
    input: &[u8],
    meta: &Meta,
) -> wasmtime::Result<Result<Vec<u8>, String>> {
    let instance = codec.instance.instantiate(&mut *store)?;
    let index = match task {
        Task::Compress => &codec.compress,
        Task::Decompress => &codec.decompress,
    };
    let function: TypedFunc<Params<'_>, Results> = instance.get_typed_func(&mut *store, index)?;
    Ok(function.call(store, (input, meta))?.0)
}

/// Turns the engine's error into the entry's fault, or into this machine's.
fn failed(error: &wasmtime::Error, state: &State) -> Result<Failed, HostError> {
    let log = format!("{error:#}");
    if let Some(reason) = &state.refused {
        return Ok(Failed::new(Fault::Memory, reason));
    }
    let fault = match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Fault::Fuel,
        Some(Trap::Interrupt) => Fault::Time,
        Some(Trap::AllocationTooLarge) => Fault::Memory,
        Some(_) => Fault::Trap,
        None if error.is::<wasmtime::OutOfMemory>() || is_system(error) => {
            return Err(HostError::system("no memory for an instance", log));
        }
        None if log.contains("resource limit exceeded") => Fault::Memory,
        None => Fault::Output,
    };
    Ok(Failed::new(fault, log))
}

/// Whether the machine refused a mapping.
fn is_system(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.raw_os_error().is_some())
            || is_errno(cause)
    })
}

/// Whether it is an error as system calls of Unix give it.
#[cfg(unix)]
fn is_errno(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<rustix::io::Errno>()
}

#[cfg(not(unix))]
fn is_errno(_: &(dyn std::error::Error + 'static)) -> bool {
    false
}
