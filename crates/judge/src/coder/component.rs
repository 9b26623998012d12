//! A WebAssembly component: a fresh instance per call, so the two sides never share anything.

use std::time::{Duration, Instant};

use arena::account::Usage;

use super::{Answer, Coder, Meta, Side, Stop, nanos};
use crate::error::JudgeError;
use crate::input::Direction;

/// Share of the clock's time that a call has of a processor on a machine that does nothing else.
const ALONE: f64 = 0.9;

/// A compiled component with the limits of its competition.
#[derive(Debug)]
pub(crate) struct ComponentCoder {
    codec: sandbox::Codec,
    limits: sandbox::CallLimits,
    /// Processor time of one call.
    cpu: Duration,
    /// Of the whole evaluation: no call lasts beyond it.
    deadline: Instant,
    usage: Usage,
}

impl ComponentCoder {
    pub(crate) fn new(
        codec: sandbox::Codec,
        limits: sandbox::CallLimits,
        cpu: Duration,
        deadline: Instant,
    ) -> Self {
        Self { codec, limits, cpu, deadline, usage: Usage::default() }
    }
}

impl Coder for ComponentCoder {
    fn call(&mut self, side: Side, data: &[u8], meta: &Meta, most: usize) -> Result<Answer, Stop> {
        let task = match side {
            Side::Compress => sandbox::Task::Compress,
            Side::Decompress => sandbox::Task::Decompress,
        };
        let meta = sandbox::Meta {
            dtype: if meta.tensor { sandbox::DType::Bf16 } else { sandbox::DType::U8 },
            shape: meta.shape.clone(),
            direction: match meta.direction {
                Direction::Forward => sandbox::Direction::Forward,
                Direction::Backward => sandbox::Direction::Backward,
            },
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        let wall = self.limits.wall.min(left);
        let limits = sandbox::CallLimits { output_bytes: most as u64, wall, ..self.limits };
        let clock = Clock::start();
        let call = self.codec.call_patiently(task, data, &meta, &limits, self.cpu);
        let call = call.map_err(|error| Stop::host(&error))?;
        let time_ns = clock.elapsed_ns();
        self.usage.wall_ns = self.usage.wall_ns.saturating_add(nanos(call.wall));
        self.usage.add(&Usage {
            cpu_ns: nanos(call.cpu),
            memory_peak_bytes: call.memory_bytes,
            fuel: call.fuel,
            ..Usage::default()
        });
        let bytes = call.output.map_err(|failed| {
            // It did not have the time that it may use: nobody knows what it would have done.
            let cut_short = failed.fault == sandbox::Fault::Time && call.cpu < self.cpu;
            match () {
                () if !cut_short => Stop::failed(failed),
                () if wall < self.limits.wall && !self.starved() => Stop::out_of_time(),
                () => JudgeError::Busy { what: "a call of a component" }.into(),
            }
        })?;
        Ok(Answer { bytes, fuel: call.fuel, time_ns })
    }

    fn has_fuel(&self) -> bool {
        true
    }

    /// A component waits for nothing but a processor.
    fn starved(&self) -> bool {
        (self.usage.cpu_ns as f64) < ALONE * self.usage.wall_ns as f64
    }

    fn usage(&self) -> Usage {
        self.usage
    }
}

/// Processor time of this thread: what other processes take does not count. Calls run on the thread that makes them.
#[derive(Debug)]
pub(crate) struct Clock(Duration);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(sandbox::thread_cpu())
    }

    pub(crate) fn elapsed_ns(&self) -> u64 {
        nanos(sandbox::thread_cpu().saturating_sub(self.0))
    }
}
