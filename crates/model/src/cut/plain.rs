//! The residual stream itself, `d_model` wide.

use super::{Boundary, Kept, Received, Sent, Site, check_wire, read_numbers};
use crate::config::{ConfigError, Dtype, Message, MessageError, ModelConfig};
use crate::kernels::norm::Gradient;

#[derive(Debug)]
pub(super) struct Plain {
    pub(super) wire: Dtype,
}

impl Plain {
    fn message(&self, site: Site<'_>, numbers: Vec<f32>) -> Message {
        let message = Message::from_f32(self.wire, vec![site.rows(), site.model.d_model], &numbers);
        site.arena.give(numbers);
        message
    }
}

impl Boundary for Plain {
    fn check(&self, _: &ModelConfig) -> Result<(), ConfigError> {
        check_wire(self.wire)
    }

    fn numbers(&self, model: &ModelConfig) -> Option<(Dtype, usize)> {
        Some((self.wire, model.d_model))
    }

    fn kept_per_row(&self, _: &ModelConfig) -> (usize, usize) {
        (0, 0)
    }

    fn encode(&self, site: Site<'_>, _: &[f32], sent: Sent) -> (Message, Kept) {
        (self.message(site, sent.residual), Kept::new())
    }

    fn read_gradient(&self, site: Site<'_>, message: &Message) -> Result<Vec<f32>, MessageError> {
        read_numbers(site, self.wire, site.model.d_model, message)
    }

    fn encode_backward(
        &self,
        _: Site<'_>,
        _: &[f32],
        _: Kept,
        d_z: Vec<f32>,
        _: Option<Gradient<'_>>,
    ) -> Sent {
        Sent { residual: d_z, update: None }
    }

    fn decode(&self, site: Site<'_>, _: &[f32], message: &Message) -> Result<(Received, Kept), MessageError> {
        let input = read_numbers(site, self.wire, site.model.d_model, message)?;
        Ok((Received { input, narrow: None }, Kept::new()))
    }

    fn decode_backward(
        &self,
        site: Site<'_>,
        _: &[f32],
        _: Kept,
        d: Received,
        _: Option<Gradient<'_>>,
    ) -> Message {
        self.message(site, d.input)
    }
}
