//! The token-anchored quantised cut: `z = Q(unit(D rms(h)))` on the wire, `h' = U z + T[token]` at the receiver.
//!
//! `unit` divides a row by its own root mean square, so nothing but width × bits per token is sent. Backward goes
//! straight through the quantiser; the gradient's code is unbiased (see [`quantise`](super::quantise)).

use super::{Boundary, Kept, Received, Sent, Shape, Site, quantise, table};
use crate::config::{ConfigError, Message, MessageError, ModelConfig, ParameterKind, Table, range, rule};
use crate::kernels::linear;
use crate::kernels::matrix::{Matrix, MatrixMut};
use crate::kernels::norm::{self, Gradient};

/// Keeps a row of zeros from dividing by zero.
const UNIT_EPS: f32 = 1e-8;

#[derive(Debug)]
pub(super) struct Anchored {
    pub(super) width: usize,
    pub(super) bits: u8,
    pub(super) table: Table,
}

impl Anchored {
    fn ones(&self) -> Vec<f32> {
        vec![1.0; self.width]
    }
}

impl Boundary for Anchored {
    fn check(&self, model: &ModelConfig) -> Result<(), ConfigError> {
        range("cut.width", self.width, 1..=model.d_model)?;
        let known = matches!(self.bits, 1 | 2 | 3 | 4 | 8 | 16);
        rule("cut.bits", &self.bits, known, "must be 1, 2, 3, 4, 8 or 16")?;
        table::check(self.table, model)
    }

    fn table(&self) -> Table {
        self.table
    }

    fn message_bytes(&self, _: &ModelConfig, rows: usize) -> (usize, usize) {
        let packed = (rows * self.width * usize::from(self.bits)).div_ceil(8);
        let scales = if self.bits == 16 { 0 } else { 2 * self.width };
        (packed, packed + scales)
    }

    fn sender_parameters(&self, model: &ModelConfig, i: usize) -> Vec<Shape> {
        vec![
            (format!("cut.{i}.norm.weight"), vec![model.d_model], ParameterKind::Vector),
            (format!("cut.{i}.down.weight"), vec![self.width, model.d_model], ParameterKind::Matrix),
        ]
    }

    fn receiver_parameters(&self, model: &ModelConfig, i: usize) -> Vec<Shape> {
        let up = (format!("cut.{i}.up.weight"), vec![model.d_model, self.width], ParameterKind::Matrix);
        let mut shapes = vec![up];
        shapes.extend(table::parameters(model, self.table, i));
        shapes
    }

    fn kept_per_row(&self, model: &ModelConfig) -> (usize, usize) {
        (model.d_model + self.width + 2, self.width)
    }

    fn encode(&self, site: Site<'_>, weights: &[f32], sent: Sent) -> (Message, Kept) {
        let (rows, d, c) = (site.rows(), site.model.d_model, self.width);
        let (gain, down) = weights.split_at(d);
        let x = sent.residual;
        let (mut normed, mut inverse) = (site.arena.take(rows * d), site.arena.take(rows));
        norm::forward(&x, gain, site.model.norm_eps, &mut normed, &mut inverse);
        let mut y = site.arena.take(rows * c);
        let down = Matrix::new(down, c, d);
        linear::forward(Matrix::new(&normed, rows, d), down, MatrixMut::new(&mut y, rows, c), false);
        let (mut z, mut unit) = (site.arena.take(rows * c), site.arena.take(rows));
        norm::forward(&y, &self.ones(), UNIT_EPS, &mut z, &mut unit);
        let message = quantise::pack_forward(self.bits, rows, c, &z);
        site.arena.give(z);
        site.arena.give(normed);
        (message, vec![x, inverse, y, unit])
    }

    fn read_gradient(&self, site: Site<'_>, message: &Message) -> Result<Vec<f32>, MessageError> {
        let mut d_z = site.arena.take(site.rows() * self.width);
        match quantise::unpack_backward(self.bits, site.rows(), self.width, message, &mut d_z) {
            Ok(()) => Ok(d_z),
            Err(error) => {
                site.arena.give(d_z);
                Err(error)
            }
        }
    }

    fn encode_backward(
        &self,
        site: Site<'_>,
        weights: &[f32],
        kept: Kept,
        d_z: Vec<f32>,
        gradient: Option<Gradient<'_>>,
    ) -> Sent {
        let (rows, d, c) = (site.rows(), site.model.d_model, self.width);
        let (gain, down) = weights.split_at(d);
        let [x, inverse, y, unit] = <[Vec<f32>; 4]>::try_from(kept).expect("encode keeps four buffers");
        let mut d_y = site.arena.take(rows * c);
        d_y.fill(0.0);
        norm::backward(&y, &self.ones(), &unit, &d_z, &mut d_y, None, site.arena);
        let d_y_rows = Matrix::new(&d_y, rows, c);
        let mut normed = site.arena.take(rows * d);
        let mut d_gain = None;
        if let Some(Gradient { to, accumulate }) = gradient {
            let (to_gain, to_down) = to.split_at_mut(d);
            norm::again(&x, gain, &inverse, &mut normed);
            let normed = Matrix::new(&normed, rows, d);
            linear::backward_weight(d_y_rows, normed, MatrixMut::new(to_down, c, d), accumulate);
            d_gain = Some(Gradient { to: to_gain, accumulate });
        }
        linear::backward_input(
            d_y_rows,
            Matrix::new(down, c, d),
            MatrixMut::new(&mut normed, rows, d),
            false,
        );
        let mut d_x = site.arena.take(rows * d);
        d_x.fill(0.0);
        norm::backward(&x, gain, &inverse, &normed, &mut d_x, d_gain, site.arena);
        for buffer in [x, inverse, y, unit, d_y, d_z, normed] {
            site.arena.give(buffer);
        }
        Sent { residual: d_x, update: None }
    }

    fn decode(
        &self,
        site: Site<'_>,
        weights: &[f32],
        message: &Message,
    ) -> Result<(Received, Kept), MessageError> {
        let (rows, d, c) = (site.rows(), site.model.d_model, self.width);
        let mut z = site.arena.take(rows * c);
        if let Err(error) = quantise::unpack_forward(self.bits, rows, c, message, &mut z) {
            site.arena.give(z);
            return Err(error);
        }
        let (up, tokens) = weights.split_at(d * c);
        let mut input = site.arena.take(rows * d);
        let up = Matrix::new(up, d, c);
        linear::forward(Matrix::new(&z, rows, c), up, MatrixMut::new(&mut input, rows, d), false);
        table::add(site, self.table, tokens, &mut input);
        Ok((Received { input, narrow: None }, vec![z]))
    }

    fn decode_backward(
        &self,
        site: Site<'_>,
        weights: &[f32],
        mut kept: Kept,
        d: Received,
        gradient: Option<Gradient<'_>>,
    ) -> Message {
        let (rows, width, c) = (site.rows(), site.model.d_model, self.width);
        let z = kept.pop().expect("decode keeps z");
        let (up, tokens) = weights.split_at(width * c);
        let d_input = Matrix::new(&d.input, rows, width);
        if let Some(Gradient { to, accumulate }) = gradient {
            let (to_up, to_tokens) = to.split_at_mut(width * c);
            let d_up = MatrixMut::new(to_up, width, c);
            linear::backward_weight(d_input, Matrix::new(&z, rows, c), d_up, accumulate);
            table::backward(site, self.table, tokens, &d.input, Gradient { to: to_tokens, accumulate });
        }
        let mut d_z = z;
        linear::backward_input(d_input, Matrix::new(up, width, c), MatrixMut::new(&mut d_z, rows, c), false);
        let message = quantise::pack_backward(self.bits, rows, c, &d_z, site.key);
        site.arena.give(d_z);
        site.arena.give(d.input);
        message
    }
}
