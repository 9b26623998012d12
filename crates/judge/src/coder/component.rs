//! A WebAssembly component: a fresh instance per call, so the two sides never share anything.

use std::time::Instant;

use super::{Answer, Coder, Meta, Side, Stop};
use crate::input::Direction;

/// A compiled component with the limits of its competition.
#[derive(Debug)]
pub(crate) struct ComponentCoder {
    codec: sandbox::Codec,
    limits: sandbox::CallLimits,
}

impl ComponentCoder {
    pub(crate) fn new(codec: sandbox::Codec, limits: sandbox::CallLimits) -> Self {
        Self { codec, limits }
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
        let limits = sandbox::CallLimits { output_bytes: most as u64, ..self.limits };
        let clock = Clock::start();
        let call = self.codec.call(task, data, &meta, &limits).map_err(|error| Stop::host(&error))?;
        let time_ns = clock.elapsed_ns();
        let bytes = call.output.map_err(Stop::failed)?;
        Ok(Answer { bytes, fuel: call.fuel, time_ns })
    }

    fn has_fuel(&self) -> bool {
        true
    }
}

/// Processor time of this thread: what other processes take does not count. Calls run on the thread that makes them.
#[derive(Debug)]
pub(crate) struct Clock(u64);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Self::now())
    }

    fn now() -> u64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }

    pub(crate) fn elapsed_ns(&self) -> u64 {
        Self::now().saturating_sub(self.0)
    }
}

/// Gives up once a deadline has passed.
pub(crate) fn in_time(deadline: Instant) -> Result<(), Stop> {
    if Instant::now() < deadline {
        return Ok(());
    }
    let reason = "all calls together took longer than a judge's lease allows (judges.lease_s)";
    Err(Stop::Entry(arena::measure::Failure::Time, reason.to_owned()))
}
