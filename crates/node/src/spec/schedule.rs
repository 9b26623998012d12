//! The learning rate's factor over a run.

use std::f64::consts::PI;

use super::ScheduleSpec;

/// Factor at step `done` (from 0) of `total` steps.
pub(super) fn factor(schedule: &ScheduleSpec, done: u64, total: u64) -> f32 {
    let total = total.max(1) as f64;
    let at = done as f64 + 1.0;
    let warm = |share: f64| (share * total).ceil().max(1.0);
    let rising = |share: f64| (at / warm(share)).min(1.0);
    let factor = match *schedule {
        ScheduleSpec::Constant { warmup } => rising(warmup),
        ScheduleSpec::Cosine { warmup, floor } => {
            let start = warm(warmup);
            if at <= start {
                at / start
            } else {
                let share = ((at - start) / (total - start).max(1.0)).min(1.0);
                floor + (1.0 - floor) * 0.5 * (1.0 + (PI * share).cos())
            }
        }
        ScheduleSpec::Trapezoid { warmup, decay } => {
            let length = (decay * total).ceil();
            let left = total - at + 1.0;
            let falling = if length > 0.0 { (left / (length + 1.0)).min(1.0) } else { 1.0 };
            rising(warmup).min(falling)
        }
    };
    // A cosine may differ in its last bit between platforms: round it away, so that everybody steps alike.
    ((factor * f64::from(1 << 16)).round() / f64::from(1 << 16)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_rise_hold_and_fall() {
        let of = |schedule: ScheduleSpec| (0..100).map(|i| factor(&schedule, i, 100)).collect::<Vec<_>>();
        let cosine = of(ScheduleSpec::Cosine { warmup: 0.1, floor: 0.02 });
        assert!((cosine[0] - 0.1).abs() < 1e-4 && cosine[9] == 1.0 && (cosine[99] - 0.02).abs() < 1e-4);
        assert!(cosine[9..].windows(2).all(|w| w[1] < w[0]));
        let constant = of(ScheduleSpec::Constant { warmup: 0.0 });
        assert!(constant.iter().all(|f| *f == 1.0));
        let trapezoid = of(ScheduleSpec::Trapezoid { warmup: 0.05, decay: 0.2 });
        assert!(trapezoid[4..80].iter().all(|f| *f == 1.0), "{trapezoid:?}");
        assert!(trapezoid[99] > 0.0 && trapezoid[99] < 0.06);
        for schedule in [cosine, constant, trapezoid] {
            assert!(schedule.iter().all(|f| (0.0..=1.0).contains(f)));
        }
    }
}
