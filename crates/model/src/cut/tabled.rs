//! The whole residual stream and a token table on top: what a table is worth without any narrowing.

use super::plain::Plain;
use super::{Boundary, Kept, Received, Sent, Site, table};
use crate::config::{ConfigError, Dtype, Message, MessageError, ModelConfig, Table};
use crate::kernels::norm::Gradient;

#[derive(Debug)]
pub(super) struct Tabled {
    pub(super) plain: Plain,
    pub(super) table: Table,
}

impl Boundary for Tabled {
    fn check(&self, model: &ModelConfig) -> Result<(), ConfigError> {
        table::check_given(self.table, model)?;
        self.plain.check(model)
    }

    fn table(&self) -> Table {
        self.table
    }

    fn numbers(&self, model: &ModelConfig) -> Option<(Dtype, usize)> {
        self.plain.numbers(model)
    }

    fn kept_per_row(&self, model: &ModelConfig) -> (usize, usize) {
        self.plain.kept_per_row(model)
    }

    fn encode(&self, site: Site<'_>, weights: &[f32], sent: Sent) -> (Message, Kept) {
        self.plain.encode(site, weights, sent)
    }

    fn read_gradient(&self, site: Site<'_>, message: &Message) -> Result<Vec<f32>, MessageError> {
        self.plain.read_gradient(site, message)
    }

    fn encode_backward(
        &self,
        site: Site<'_>,
        weights: &[f32],
        kept: Kept,
        d_z: Vec<f32>,
        gradient: Option<Gradient<'_>>,
    ) -> Sent {
        self.plain.encode_backward(site, weights, kept, d_z, gradient)
    }

    fn decode(
        &self,
        site: Site<'_>,
        weights: &[f32],
        message: &Message,
    ) -> Result<(Received, Kept), MessageError> {
        let (mut received, kept) = self.plain.decode(site, weights, message)?;
        table::add(site, self.table, weights, &mut received.input);
        Ok((received, kept))
    }

    fn decode_backward(
        &self,
        site: Site<'_>,
        weights: &[f32],
        kept: Kept,
        d: Received,
        gradient: Option<Gradient<'_>>,
    ) -> Message {
        if let Some(gradient) = gradient {
            table::backward(site, self.table, weights, &d.input, gradient);
        }
        self.plain.decode_backward(site, weights, kept, d, None)
    }
}
