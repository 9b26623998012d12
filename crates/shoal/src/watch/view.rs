//! What the live view knows: the newest status and the history of losses.

use node::progress::{Progress, Status};

/// Points of the loss curve that are kept; beyond that every other one is dropped.
const POINTS_MAX: usize = 512;

/// The picture of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// Run id, once it is known.
    pub(crate) run: Option<String>,
    /// Newest status.
    pub(crate) status: Option<Status>,
    /// Training loss over tokens: (tokens, loss).
    pub(crate) losses: Vec<(u64, f64)>,
    /// Weight on a new loss of the shown, smoothed one.
    pub(crate) every: u64,
}

impl View {
    /// Takes an event into the picture.
    pub(crate) fn apply(&mut self, event: &Progress) {
        match event {
            Progress::Listening(listening) => self.run = Some(listening.run.clone()),
            Progress::Status(status) => {
                if let Some(loss) = status.loss.filter(|loss| loss.is_finite()) {
                    self.point(status.tokens, loss);
                }
                self.status = Some(status.as_ref().clone());
            }
            _ => {}
        }
    }

    fn point(&mut self, tokens: u64, loss: f64) {
        if self.losses.last().is_some_and(|last| tokens < last.0 + self.every.max(1)) {
            return;
        }
        self.losses.push((tokens, loss));
        if self.losses.len() >= POINTS_MAX {
            let mut index = 0;
            self.losses.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.every = self.losses.windows(2).map(|w| w[1].0 - w[0].0).min().unwrap_or(1);
        }
    }

    /// The loss curve in `width` characters, oldest first; high bars are high losses.
    pub(crate) fn sparkline(&self, width: usize) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let points: Vec<f64> = self.losses.iter().map(|point| point.1).collect();
        if points.is_empty() || width == 0 {
            return String::new();
        }
        let columns = width.min(points.len());
        let means: Vec<f64> = (0..columns)
            .map(|column| {
                let from = column * points.len() / columns;
                let to = ((column + 1) * points.len() / columns).max(from + 1);
                points[from..to].iter().sum::<f64>() / (to - from) as f64
            })
            .collect();
        let least = means.iter().copied().fold(f64::INFINITY, f64::min);
        let most = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let span = (most - least).max(1e-9);
        means.iter().map(|loss| BARS[(((loss - least) / span) * 7.0).round() as usize]).collect()
    }
}
