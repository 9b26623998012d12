//! Whether the predictor or the context codec serves a tensor better, told by a few rows.

use super::{Predictor, SURE_FRACTION, encode_body};
use crate::context::Repeats;
use crate::error::CodecError;
use crate::header::CodecId;
use crate::probe::Probe;
use crate::simd::Level;
use crate::tensor::TensorRef;

/// Elements of the rows that show what the predictor makes of the tensor, and of those that show it for the context
/// codec, whose tables are larger.
const OWN_PROBE: usize = 1 << 15;
const RIVAL_PROBE: usize = 1 << 17;
/// The context codec is not tried where the predictor's payload is smaller than this share of what it made of a few
/// rows, whose tables weigh more than those of all. The predictor is not where its probe is larger than that share; its
/// tables make a hundredth of the probe and more.
const CLEAR_WIN: f64 = 0.98;
const CLEAR_LOSS: f64 = 1.012;

/// What both codecs make of a few rows, in bytes per byte: most tensors need not be coded by both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rival {
    own: f64,
    context: f64,
}

impl Rival {
    /// `None` for small tensors, where the predictor is clearly of use, and where rows repeat, which a few rows do not
    /// show.
    pub(super) fn of(
        level: Level,
        predictor: &Predictor,
        tensor: TensorRef<'_>,
    ) -> Result<Option<Self>, CodecError> {
        if tensor.len() < 4 * RIVAL_PROBE {
            return Ok(None);
        }
        let probe = Probe::of(tensor, OWN_PROBE);
        let mut payload = Vec::new();
        encode_body(level, predictor, probe.view()?.bytes(), &mut payload);
        let own = payload.len() as f64 / probe.len() as f64;
        if own < SURE_FRACTION || !Repeats::find(tensor.bytes(), tensor.rows_cols().1).is_empty() {
            return Ok(None);
        }
        let probe = Probe::of(tensor, RIVAL_PROBE);
        payload.clear();
        crate::payload::encode_at(level, CodecId::Context, probe.view()?, &mut payload)?;
        let context = payload.len() as f64 / probe.len() as f64;
        Ok(Some(Self { own, context }))
    }

    /// Whether the predictor is of no use.
    pub(super) fn wins(self) -> bool {
        self.own > CLEAR_LOSS * self.context
    }

    /// Whether the context codec is of no use beside a payload of `fraction` bytes per byte.
    pub(super) fn loses_to(self, fraction: f64) -> bool {
        fraction < CLEAR_WIN * self.context
    }
}
