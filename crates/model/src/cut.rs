//! What happens between two stages: one small trait, one file per cut.

mod anchored;
mod bottleneck;
mod nothing;
mod plain;
mod quantise;
mod table;
mod tabled;

use crate::config::{
    ConfigError, Cut, Dtype, Message, MessageError, ModelConfig, ParameterKind, Table, rule,
};
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
    /// Refuses what does not fit the model.
    fn check(&self, model: &ModelConfig) -> Result<(), ConfigError>;
    /// What the receiver puts back from the tokens.
    fn table(&self) -> Table {
        Table::None
    }
    /// Type of the numbers that cross, and how many per token; none where they cross packed.
    fn numbers(&self, _: &ModelConfig) -> Option<(Dtype, usize)> {
        None
    }
    /// Bytes of one message over `rows` tokens: forward, backward (side data included).
    fn message_bytes(&self, model: &ModelConfig, rows: usize) -> (usize, usize) {
        let bytes = self.numbers(model).map_or(0, |(wire, width)| rows * width * wire.bytes());
        (bytes, bytes)
    }
    /// Parameters of the sending half of cut `i`.
    fn sender_parameters(&self, _: &ModelConfig, _i: usize) -> Vec<Shape> {
        Vec::new()
    }
    /// Parameters of the receiving half of cut `i`.
    fn receiver_parameters(&self, model: &ModelConfig, i: usize) -> Vec<Shape> {
        table::parameters(model, self.table(), i)
    }
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

/// Refuses what is no type of numbers to send.
fn check_wire(wire: Dtype) -> Result<(), ConfigError> {
    let allowed = "must be \"f32\" or \"bf16\"";
    rule("cut.wire", &wire.name(), matches!(wire, Dtype::F32 | Dtype::Bf16), allowed)
}

/// Parses numbers of a float wire.
fn read_numbers(
    site: Site<'_>,
    wire: Dtype,
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
