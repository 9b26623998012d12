//! The control: nothing is sent, the later stage starts from its own token table.

use super::{Boundary, Kept, Received, Sent, Site, table};
use crate::config::{ConfigError, Dtype, Message, MessageError, ModelConfig, Table};
use crate::kernels::norm::Gradient;

#[derive(Debug)]
pub(super) struct Nothing {
    pub(super) table: Table,
}

fn empty() -> Message {
    Message { dtype: Dtype::U8, shape: vec![0], bytes: Vec::new() }
}

impl Boundary for Nothing {
    fn check(&self, model: &ModelConfig) -> Result<(), ConfigError> {
        table::check_given(self.table, model)
    }

    fn table(&self) -> Table {
        self.table
    }

    fn kept_per_row(&self, _: &ModelConfig) -> (usize, usize) {
        (0, 0)
    }

    fn encode(&self, site: Site<'_>, _: &[f32], sent: Sent) -> (Message, Kept) {
        site.arena.give(sent.residual);
        (empty(), Kept::new())
    }

    fn read_gradient(&self, _: Site<'_>, message: &Message) -> Result<Vec<f32>, MessageError> {
        message.check(Dtype::U8, &[0])?;
        Ok(Vec::new())
    }

    fn encode_backward(
        &self,
        site: Site<'_>,
        _: &[f32],
        _: Kept,
        _: Vec<f32>,
        _: Option<Gradient<'_>>,
    ) -> Sent {
        let mut residual = site.arena.take(site.rows() * site.model.d_model);
        residual.fill(0.0);
        Sent { residual, update: None }
    }

    fn decode(
        &self,
        site: Site<'_>,
        weights: &[f32],
        message: &Message,
    ) -> Result<(Received, Kept), MessageError> {
        message.check(Dtype::U8, &[0])?;
        let mut input = site.arena.take(site.rows() * site.model.d_model);
        input.fill(0.0);
        table::add(site, self.table, weights, &mut input);
        Ok((Received { input, narrow: None }, Kept::new()))
    }

    fn decode_backward(
        &self,
        site: Site<'_>,
        weights: &[f32],
        _: Kept,
        d: Received,
        gradient: Option<Gradient<'_>>,
    ) -> Message {
        if let Some(gradient) = gradient {
            table::backward(site, self.table, weights, &d.input, gradient);
        }
        site.arena.give(d.input);
        empty()
    }
}
