//! A thread that advances the engine's epoch while calls run, and sleeps otherwise.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::Engine;

use crate::fault::HostError;
use crate::limits::EPOCH_TICK;

#[derive(Debug)]
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    stop: bool,
}

impl Ticker {
    pub(super) fn start(engine: Engine) -> Result<Self, HostError> {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new()
            .name("sandbox-epochs".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || tick(&shared, &engine)
            })
            .map_err(|error| HostError::system("the epoch thread does not start", error))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Keeps the epoch advancing until the guard is dropped.
    pub(super) fn running(&self) -> Running<'_> {
        self.change(|state| state.running += 1);
        Running { ticker: self }
    }

    /// Epochs after which `wall` has surely passed.
    pub(super) fn ticks(wall: Duration) -> u64 {
        u64::try_from(wall.as_nanos().div_ceil(EPOCH_TICK.as_nanos()))
            .unwrap_or(u64::MAX >> 1)
            .saturating_add(1)
    }

    fn change(&self, apply: impl FnOnce(&mut State)) {
        apply(&mut self.shared.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.changed.notify_all();
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.change(|state| state.stop = true);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

pub(super) struct Running<'a> {
    ticker: &'a Ticker,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.ticker.change(|state| state.running -= 1);
    }
}

fn tick(shared: &Shared, engine: &Engine) {
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    while !state.stop {
        if state.running == 0 {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        } else {
            drop(state);
            std::thread::sleep(EPOCH_TICK);
            engine.increment_epoch();
            state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        }
    }
}
