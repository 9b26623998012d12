//! What happens between two stages: one small trait, one file per cut.

mod anchored;
mod bottleneck;
mod nothing;
mod plain;
mod quantise;
mod table;
mod tabled;

use crate::config::{Cut, Message, MessageError, ModelConfig, ParameterKind};
use crate::kernels::norm::Gradient;
use crate::stage::Arena;
use std::fmt::Debug;

/// Name, shape and kind of a parameter.
pub(crate) type Shape = (String, Vec<usize>, ParameterKind);

/// Buffers that a half of a cut keeps between forward and backward.
pub(crate) type Kept = Vec<Vec<f32>>;

/// Where and for what a cut runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) model: &'a ModelConfig,
    pub(crate) arena: &'a Arena,
    /// Input token of every row.
    pub(crate) tokens: &'a [u32],
    /// Key of the cut's random numbers for this micro-batch.
    pub(crate) key: u64,
}

impl Site<'_> {
    pub(crate) fn rows(self) -> usize {
        self.tokens.len()
    }
}

/// What the sender's last block hands over, or the gradient of it.
#[derive(Debug)]
pub(crate) struct Sent {
    /// `[rows, d]`.
    pub(crate) residual: Vec<f32>,
    /// The last feed-forward's output, `[rows, d]`, if the cut wants it apart.
    pub(crate) update: Option<Vec<f32>>,
}

/// What the receiver's first block starts from, or the gradient of it.
#[derive(Debug)]
pub(crate) struct Received {
    /// Input of the first block, `[rows, d]`.
    pub(crate) input: Vec<f32>,
    /// The residual that goes on beside it, `[rows, narrow]`, if it is not the input itself.
    pub(crate) narrow: Option<Vec<f32>>,
}

/// Both halves of a cut. Weights and gradients are those of the half's own unit. `Gradient` is none where only the
/// input's gradient is asked for.
pub(crate) trait Boundary: Debug + Send + Sync {
    /// Whether the sender's last block hands residual and update over apart.
    fn apart(&self) -> bool {
        false
    }
    /// Width of the residual that goes on beside the receiver's input.
    fn narrow(&self) -> Option<usize> {
        None
    }
    /// Numbers kept per row by the sender and by the receiver.
    fn kept_per_row(&self, model: &ModelConfig) -> (usize, usize);
    /// Sender, forward.
    fn encode(&self, site: Site<'_>, weights: &[f32], sent: Sent) -> (Message, Kept);
    /// Sender: parses and checks the gradient that came back, before anything of the graph is used up.
    fn read_gradient(&self, site: Site<'_>, message: &Message) -> Result<Vec<f32>, MessageError>;
    /// Sender, backward.
    fn encode_backward(
        &self,
        site: Site<'_>,
        weights: &[f32],
        kept: Kept,
        d_z: Vec<f32>,
        gradient: Option<Gradient<'_>>,
    ) -> Sent;
    /// Receiver, forward.
    fn decode(
        &self,
        site: Site<'_>,
        weights: &[f32],
        message: &Message,
    ) -> Result<(Received, Kept), MessageError>;
    /// Receiver, backward.
    fn decode_backward(
        &self,
        site: Site<'_>,
        weights: &[f32],
        kept: Kept,
        d: Received,
        gradient: Option<Gradient<'_>>,
    ) -> Message;
}

/// The cut that a spec names.
pub(crate) fn boundary(cut: Cut) -> Box<dyn Boundary> {
    match cut {
        Cut::Plain { wire } => Box::new(plain::Plain { wire }),
        Cut::Tabled { wire, table } => Box::new(tabled::Tabled { plain: plain::Plain { wire }, table }),
        Cut::Nothing { table } => Box::new(nothing::Nothing { table }),
        Cut::Bottleneck { width, wire } => Box::new(bottleneck::Bottleneck { width, wire }),
        Cut::Anchored { width, bits, table } => Box::new(anchored::Anchored { width, bits, table }),
    }
}

/// Parameters of the sending half of cut `i`.
pub(crate) fn sender_parameters(cut: Cut, model: &ModelConfig, i: usize) -> Vec<Shape> {
    match cut {
        Cut::Plain { .. } | Cut::Tabled { .. } | Cut::Nothing { .. } => Vec::new(),
        Cut::Bottleneck { width, .. } => bottleneck::sender_parameters(model, width, i),
        Cut::Anchored { width, .. } => anchored::sender_parameters(model, width, i),
    }
}

/// Parameters of the receiving half of cut `i`.
pub(crate) fn receiver_parameters(cut: Cut, model: &ModelConfig, i: usize) -> Vec<Shape> {
    match cut {
        Cut::Plain { .. } => Vec::new(),
        Cut::Tabled { table, .. } | Cut::Nothing { table } => table::parameters(model, table, i),
        Cut::Bottleneck { width, .. } => bottleneck::receiver_parameters(model, width, i),
        Cut::Anchored { width, table, .. } => anchored::receiver_parameters(model, width, table, i),
    }
}

/// Parses numbers of a float wire.
fn read_numbers(
    site: Site<'_>,
    wire: crate::config::Dtype,
    width: usize,
    message: &Message,
) -> Result<Vec<f32>, MessageError> {
    message.check(wire, &[site.rows(), width])?;
    let mut numbers = site.arena.take(site.rows() * width);
    match message.read_f32(&mut numbers) {
        Ok(()) => Ok(numbers),
        Err(error) => {
            site.arena.give(numbers);
            Err(error)
        }
    }
}
