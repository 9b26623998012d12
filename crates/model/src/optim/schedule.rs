//! Learning-rate schedules as data: the factor of a step is a pure function of its number.

use crate::config::{ConfigError, rule};
use crate::kernels::math;
use serde::{Deserialize, Serialize};

/// How the learning rate moves over the steps of a run. Steps count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Always 1.
    Constant,
    /// Linear warm-up, then half a cosine down to `floor`.
    Cosine {
        /// Steps of warm-up.
        warmup: u64,
        /// Steps of the run.
        total: u64,
        /// Factor at the end and after it.
        floor: f32,
    },
    /// IOTA's: linear warm-up, a plateau, then a cosine down to `floor` times a saw-tooth of `cycle` steps that falls
    /// from 1 to `floor`, and a linear tail to 0 over the last `tail` of the run.
    SawTooth {
        /// Steps of warm-up (1 there).
        warmup: u64,
        /// Steps at the full rate (500 there).
        plateau: u64,
        /// Steps of one tooth (1,000 there).
        cycle: u64,
        /// Lowest factor of cosine and of each tooth (0.1 there).
        floor: f32,
        /// Share of the run that falls linearly to 0 (0.02 there).
        tail: f32,
        /// Steps of the run (100,000 there).
        total: u64,
    },
}

impl Schedule {
    /// 5 % warm-up, then a cosine to 2 %.
    pub fn cosine(total: u64) -> Schedule {
        Schedule::Cosine { warmup: total.div_ceil(20), total, floor: 0.02 }
    }

    /// The constants that IOTA's 2025 release used.
    pub fn iota() -> Schedule {
        Schedule::SawTooth { warmup: 1, plateau: 500, cycle: 1000, floor: 0.1, tail: 0.02, total: 100_000 }
    }

    /// Refuses factors outside 0 to 1 and phases longer than the run.
    pub fn check(&self) -> Result<(), ConfigError> {
        let share = |key, x: f32| rule(key, &x, (0.0..=1.0).contains(&x), "must be from 0 to 1");
        match *self {
            Schedule::Constant => Ok(()),
            Schedule::Cosine { warmup, total, floor } => {
                share("schedule.floor", floor)?;
                rule("schedule.total", &total, total > 0, "must be above 0")?;
                rule("schedule.warmup", &warmup, warmup <= total, "must be at most schedule.total")
            }
            Schedule::SawTooth { warmup, plateau, cycle, floor, tail, total } => {
                share("schedule.floor", floor)?;
                share("schedule.tail", tail)?;
                rule("schedule.cycle", &cycle, cycle > 0, "must be above 0")?;
                rule("schedule.total", &total, total > 0, "must be above 0")?;
                let start = warmup.checked_add(plateau);
                let fits = start.is_some_and(|start| start <= total);
                rule("schedule.plateau", &plateau, fits, "must end, with the warm-up, before schedule.total")
            }
        }
    }

    /// Factor of step `step`, from 0 to 1.
    pub fn factor(&self, step: u64) -> f32 {
        match *self {
            Schedule::Constant => 1.0,
            Schedule::Cosine { warmup, total, floor } => {
                if step < warmup {
                    return (step + 1) as f32 / warmup as f32;
                }
                cosine(step - warmup, total.saturating_sub(warmup), floor) as f32
            }
            Schedule::SawTooth { warmup, plateau, cycle, floor, tail, total } => {
                if step < warmup {
                    return (step + 1) as f32 / warmup as f32;
                }
                let start = warmup.saturating_add(plateau);
                let tail_steps = (f64::from(tail) * total as f64) as u64;
                let fall = total.saturating_sub(tail_steps).max(start);
                let before = |step: u64| {
                    if step < start {
                        return 1.0;
                    }
                    let at = step - start;
                    let tooth = (at % cycle) as f64 / cycle as f64;
                    let floor = f64::from(floor);
                    (cosine(at, fall - start, floor as f32) * (1.0 - (1.0 - floor) * tooth))
                        .max(floor * floor)
                };
                if step < fall {
                    return before(step) as f32;
                }
                let left = total.saturating_sub(step) as f64 / tail_steps.max(1) as f64;
                (before(fall.saturating_sub(1)) * left) as f32
            }
        }
    }
}

/// From 1 at step 0 to `floor` at `length` and after it.
fn cosine(step: u64, length: u64, floor: f32) -> f64 {
    let floor = f64::from(floor);
    let share = if length == 0 { 1.0 } else { (step as f64 / length as f64).min(1.0) };
    floor + (1.0 - floor) * 0.5 * (1.0 + math::sin_cos(std::f64::consts::PI * share).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_warms_up_peaks_and_ends_at_its_floor() {
        let schedule = Schedule::cosine(200);
        schedule.check().expect("possible");
        assert_eq!(schedule.factor(0), 0.1);
        assert_eq!(schedule.factor(9), 1.0);
        assert_eq!(schedule.factor(10), 1.0);
        assert!((schedule.factor(105) - 0.51).abs() < 1e-6);
        assert!((schedule.factor(200) - 0.02).abs() < 1e-6);
        assert!((schedule.factor(u64::MAX) - 0.02).abs() < 1e-6);
    }

    #[test]
    fn the_saw_tooth_has_its_plateau_its_teeth_and_its_tail() {
        let schedule = Schedule::iota();
        schedule.check().expect("possible");
        assert_eq!(schedule.factor(0), 1.0);
        assert_eq!(schedule.factor(500), 1.0);
        assert!(schedule.factor(1499) < 0.11); // end of the first tooth
        assert!(schedule.factor(1501) > 0.99); // start of the second
        assert_eq!(schedule.factor(100_000), 0.0);
        assert!((0..=100_000).all(|s| (0.0..=1.0).contains(&schedule.factor(s))));
        assert!(schedule.factor(98_000) > schedule.factor(99_000));
    }

    #[test]
    fn impossible_schedules_are_refused() {
        assert!(Schedule::Cosine { warmup: 5, total: 4, floor: 0.0 }.check().is_err());
        assert!(Schedule::Cosine { warmup: 0, total: 4, floor: 1.5 }.check().is_err());
        let teeth =
            Schedule::SawTooth { warmup: 1, plateau: u64::MAX, cycle: 1, floor: 0.1, tail: 0.0, total: 10 };
        assert!(teeth.check().is_err());
    }
}
