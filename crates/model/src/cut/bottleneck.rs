//! IOTA's bottleneck block with uninterrupted residual (<https://arxiv.org/abs/2507.17766>):
//! `z = W silu(u) + h[..c]` at the sender, `y = relu(D z)` into the next block and z itself as its residual.

use super::{Boundary, Kept, Received, Sent, Shape, Site, check_wire, read_numbers};
use crate::config::{ConfigError, Dtype, Message, MessageError, ModelConfig, ParameterKind, range};
use crate::kernels::matrix::{Matrix, MatrixMut};
use crate::kernels::norm::Gradient;
use crate::kernels::{linear, simd};

#[derive(Debug)]
pub(super) struct Bottleneck {
    pub(super) width: usize,
    pub(super) wire: Dtype,
}

impl Boundary for Bottleneck {
    fn check(&self, model: &ModelConfig) -> Result<(), ConfigError> {
        range("cut.width", self.width, 1..=model.d_model)?;
        check_wire(self.wire)
    }

    fn numbers(&self, _: &ModelConfig) -> Option<(Dtype, usize)> {
        Some((self.wire, self.width))
    }

    fn sender_parameters(&self, model: &ModelConfig, i: usize) -> Vec<Shape> {
        vec![(format!("cut.{i}.encoder.weight"), vec![self.width, model.d_model], ParameterKind::Matrix)]
    }

    fn receiver_parameters(&self, model: &ModelConfig, i: usize) -> Vec<Shape> {
        vec![(format!("cut.{i}.decoder.weight"), vec![model.d_model, self.width], ParameterKind::Matrix)]
    }

    fn apart(&self) -> bool {
        true
    }

    fn narrow(&self) -> Option<usize> {
        Some(self.width)
    }

    fn kept_per_row(&self, model: &ModelConfig) -> (usize, usize) {
        (model.d_model, self.width + model.d_model)
    }

    fn encode(&self, site: Site<'_>, weights: &[f32], sent: Sent) -> (Message, Kept) {
        let (rows, d, c) = (site.rows(), site.model.d_model, self.width);
        let mut z = site.arena.take(rows * c);
        for (z, h) in z.chunks_exact_mut(c).zip(sent.residual.chunks_exact(d)) {
            z.copy_from_slice(&h[..c]);
        }
        // The block was asked for residual and update apart, see `apart`.
        let update = sent.update.expect("a block asked for its update apart gives it");
        let mut active = sent.residual;
        simd::silu(&update, &mut active);
        let encoder = Matrix::new(weights, c, d);
        linear::forward(Matrix::new(&active, rows, d), encoder, MatrixMut::new(&mut z, rows, c), true);
        site.arena.give(active);
        let message = Message::from_f32(self.wire, vec![rows, c], &z);
        site.arena.give(z);
        (message, vec![update])
    }

    fn read_gradient(&self, site: Site<'_>, message: &Message) -> Result<Vec<f32>, MessageError> {
        read_numbers(site, self.wire, self.width, message)
    }

    fn encode_backward(
        &self,
        site: Site<'_>,
        weights: &[f32],
        mut kept: Kept,
        d_z: Vec<f32>,
        gradient: Option<Gradient<'_>>,
    ) -> Sent {
        let (rows, d, c) = (site.rows(), site.model.d_model, self.width);
        let update = kept.pop().expect("encode keeps the update");
        let mut scratch = site.arena.take(rows * d);
        let d_z_rows = Matrix::new(&d_z, rows, c);
        if let Some(Gradient { to, accumulate }) = gradient {
            simd::silu(&update, &mut scratch);
            let active = Matrix::new(&scratch, rows, d);
            linear::backward_weight(d_z_rows, active, MatrixMut::new(to, c, d), accumulate);
        }
        linear::backward_input(
            d_z_rows,
            Matrix::new(weights, c, d),
            MatrixMut::new(&mut scratch, rows, d),
            false,
        );
        simd::silu_backward(&update, &mut scratch);
        let mut residual = update;
        for (h, z) in residual.chunks_exact_mut(d).zip(d_z.chunks_exact(c)) {
            h[..c].copy_from_slice(z);
            h[c..].fill(0.0);
        }
        site.arena.give(d_z);
        Sent { residual, update: Some(scratch) }
    }

    fn decode(
        &self,
        site: Site<'_>,
        weights: &[f32],
        message: &Message,
    ) -> Result<(Received, Kept), MessageError> {
        let (rows, d, c) = (site.rows(), site.model.d_model, self.width);
        let z = read_numbers(site, self.wire, c, message)?;
        let mut input = site.arena.take(rows * d);
        let decoder = Matrix::new(weights, d, c);
        linear::forward(Matrix::new(&z, rows, c), decoder, MatrixMut::new(&mut input, rows, d), false);
        for y in &mut input {
            *y = y.max(0.0);
        }
        let (mut kept_z, mut kept_y) = (site.arena.take(rows * c), site.arena.take(rows * d));
        kept_z.copy_from_slice(&z);
        kept_y.copy_from_slice(&input);
        Ok((Received { input, narrow: Some(z) }, vec![kept_z, kept_y]))
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
        let y = kept.pop().expect("decode keeps y");
        let z = kept.pop().expect("decode keeps z");
        let Received { input: mut d_y, narrow } = d;
        let mut d_z = narrow.expect("the first block had a narrow residual");
        for (d, &y) in d_y.iter_mut().zip(&y) {
            if y <= 0.0 {
                *d = 0.0;
            }
        }
        let d_y_rows = Matrix::new(&d_y, rows, width);
        if let Some(Gradient { to, accumulate }) = gradient {
            let d_decoder = MatrixMut::new(to, width, c);
            linear::backward_weight(d_y_rows, Matrix::new(&z, rows, c), d_decoder, accumulate);
        }
        let decoder = Matrix::new(weights, width, c);
        linear::backward_input(d_y_rows, decoder, MatrixMut::new(&mut d_z, rows, c), true);
        let message = Message::from_f32(self.wire, vec![rows, c], &d_z);
        for buffer in [y, z, d_y, d_z] {
            site.arena.give(buffer);
        }
        message
    }
}
