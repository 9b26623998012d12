//! Replays: the stages of the model in one process, and the comparison with what a miner signed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use codec::Shared;
use model::config::Message;
use model::stage::{CpuStage, Output, Stage, StageError};
use net::Link;
use sandbox::Fault;
use swarm::record::Outcome;
use wire::{Direction, FrameHeader, Hash, NodeId, RunId};

use super::ValidatorError;
use super::draw::Item;
use crate::champion::{Champion, Champions, Fell};
use crate::fetch::fetch;
use crate::limits;
use crate::miner::frames::{BadFrame, decode, tensor_hash};
use crate::miner::predict;
use crate::rpc::{self, Opened, OpenedFrame, Reply, Request, What};
use crate::spec::RunSpec;
use crate::tokens::Tokens;

/// An item shows two frames that came in, and each names one predictor at most.
const PREDICTORS_OF_ITEM: usize = 2;

/// Why an item cannot be replayed.
#[derive(Debug)]
pub(super) enum NotOpened {
    /// It was made with other weights than the epoch opened with, or crossed by a codec that is not ready here.
    Version,
    /// The miner shows nothing, or nothing that holds.
    Reason(String),
}

/// Why what was opened is no evidence, or not yet.
enum Unchecked {
    NotOpened(NotOpened),
    /// A frame of a node names a predictor by its id.
    Predictor(NodeId, u64),
}

impl From<NotOpened> for Unchecked {
    fn from(not_opened: NotOpened) -> Self {
        Self::NotOpened(not_opened)
    }
}

/// An opened item whose signatures hold.
#[derive(Debug)]
pub(super) struct Evidence {
    forward_in: Option<Message>,
    backward_in: Option<Message>,
    opened: Opened,
}

/// What frames are decoded by: components, and predictors by sender.
type Means<'a> = (&'a Champions, &'a BTreeMap<NodeId, Shared>);

/// Asks a miner to open an item, and checks what it shows; its tensors have at most `most` bytes, and `columns` if they
/// are predicted.
pub(super) async fn open(
    link: &Arc<dyn Link>,
    run: RunId,
    item: &Item,
    most: usize,
    columns: usize,
    champions: &Arc<Champions>,
) -> Result<Evidence, NotOpened> {
    let reason = |words: String| NotOpened::Reason(words);
    let Item { node, epoch, micro_batch, direction, .. } = *item;
    let request = Request::Open { epoch, micro_batch, direction };
    let answer = link.call(&item.node, request.message(run), limits::OPEN_DEADLINE).await;
    let answer = answer.map_err(|error| reason(error.to_string()))?;
    let opened = match Reply::parse(&answer).map_err(|error| reason(error.to_string()))? {
        Reply::Opened(opened) => *opened,
        other => return Err(reason(format!("answered {}", other.name()))),
    };
    let mut shared: BTreeMap<NodeId, Shared> = BTreeMap::new();
    for _ in 0..=PREDICTORS_OF_ITEM {
        let (item, opened, champions) = (item.clone(), opened.clone(), Arc::clone(champions));
        let (payload, held) = (answer.payload.clone(), shared.clone());
        // Decoding takes a while, by a component above all.
        let check = move || check(run, &item, opened, &payload, most, (&champions, &held));
        let checked = tokio::task::spawn_blocking(check).await.map_err(|error| reason(error.to_string()))?;
        let (of, id) = match checked {
            Ok(evidence) => return Ok(evidence),
            Err(Unchecked::NotOpened(not_opened)) => return Err(not_opened),
            Err(Unchecked::Predictor(of, id)) => (of, id),
        };
        // Whoever shows a frame can decode it. What it gives counts for this item only.
        let fetch = fetch(link.as_ref(), run, node, What::Predictor { of, id }, limits::PREDICTOR_BYTES);
        let bytes = tokio::time::timeout(limits::OPEN_DEADLINE, fetch).await;
        let bytes = bytes.map_err(|_| reason("no predictor in time".to_owned()))?;
        let bytes = bytes.map_err(|error| reason(error.to_string()))?;
        let parse = tokio::task::spawn_blocking(move || predict::parse(&bytes, columns)).await;
        let predictor = parse.map_err(|error| reason(error.to_string()))?;
        let predictor = predictor.map_err(|error| reason(error.to_string()))?;
        if predictor.id() != id {
            return Err(reason("another predictor than the one that its frame names".to_owned()));
        }
        shared.entry(of).or_default().add_predictor(Arc::new(predictor));
    }
    Err(reason("more predictors than it has frames".to_owned()))
}

/// Checks all frames of an opened item.
fn check(
    run: RunId,
    item: &Item,
    opened: Opened,
    payload: &Bytes,
    most: usize,
    means: Means<'_>,
) -> Result<Evidence, Unchecked> {
    let lengths: Vec<u64> = opened.frames().map(|frame| frame.len).collect();
    let mut payloads = rpc::split(payload, lengths).into_iter();
    let mut check = |frame: &Option<OpenedFrame>, role: Role| {
        let Some(frame) = frame else { return Ok(None) };
        let payload = payloads.next().unwrap_or_default();
        verify(run, item, frame, &payload, role, most, means)
    };
    // In the order of their payloads.
    let forward_in = check(&opened.forward_in, Role::In(Direction::Forward))?;
    check(&opened.forward_out, Role::Out(Direction::Forward))?;
    let backward_in = check(&opened.backward_in, Role::In(Direction::Backward))?;
    check(&opened.backward_out, Role::Out(Direction::Backward))?;
    Ok(Evidence { forward_in, backward_in, opened })
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    In(Direction),
    Out(Direction),
}

/// Checks that a frame is of this item and signed by both sides; decodes what came in.
fn verify(
    run: RunId,
    item: &Item,
    shown: &OpenedFrame,
    payload: &Bytes,
    role: Role,
    most: usize,
    (champions, shared): Means<'_>,
) -> Result<Option<Message>, Unchecked> {
    let unfit = |words: &str| Unchecked::NotOpened(NotOpened::Reason(words.to_owned()));
    let header = &shown.frame.header;
    let (direction, node) = match role {
        Role::In(direction) => (direction, header.to),
        Role::Out(direction) => (direction, header.from),
    };
    if (header.epoch, header.micro_batch, header.direction) != (item.epoch, item.micro_batch, direction) {
        return Err(unfit("a frame of another item"));
    }
    if node != item.node || header.run != run {
        return Err(unfit("a frame of another node or run"));
    }
    if !shown.frame.signed() || !shown.receipt.verify(&header.to, &shown.frame) {
        return Err(unfit("a frame without both signatures"));
    }
    if let Role::Out(_) = role {
        return if header.version == 0 { Ok(None) } else { Err(NotOpened::Version.into()) };
    }
    let holds = shown.frame.verify(&run, &item.node, &header.from, payload);
    holds.map_err(|error| NotOpened::Reason(error.to_string()))?;
    let none = Shared::new();
    match decode(header, payload, most, champions, shared.get(&header.from).unwrap_or(&none)) {
        Ok(decoded) => Ok(Some(decoded.message)),
        Err(BadFrame::NoPredictor(id)) => Err(Unchecked::Predictor(header.from, id)),
        // The validator's own lack is not the miner's.
        Err(BadFrame::NotReady(_) | BadFrame::Champion { fault: false, .. }) => {
            Err(NotOpened::Version.into())
        }
        Err(error) => Err(NotOpened::Reason(error.to_string()).into()),
    }
}

/// All stages of the model, on this machine.
#[derive(Debug)]
pub(super) struct Bench {
    stages: Mutex<Vec<CpuStage>>,
}

impl Bench {
    pub(super) fn new(spec: &RunSpec, threads: usize) -> Result<Self, ValidatorError> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool =
            Arc::new(pool.map_err(|error| ValidatorError::Threads { threads, reason: error.to_string() })?);
        let stage = |stage: model::config::StageSpec| {
            let zeros = vec![0.0; stage.parameters()];
            CpuStage::new(stage, zeros, spec.optimiser(), Arc::clone(&pool))
        };
        let stages = spec.stage_specs().into_iter().map(stage).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { stages: Mutex::new(stages) })
    }

    /// Takes weights, head first.
    pub(super) fn load(&self, weights: &[Arc<Vec<f32>>]) -> Result<(), StageError> {
        let mut stages = self.stages();
        stages.iter_mut().zip(weights).try_for_each(|(stage, weights)| stage.set_weights(weights))
    }

    /// Loss of a batch through all stages and cuts, nats per token.
    pub(super) fn loss(&self, tokens: &[u32]) -> Result<f32, StageError> {
        let stages = self.stages();
        let mut input: Option<Message> = None;
        for stage in stages.iter() {
            match stage.evaluate(tokens, input.as_ref())? {
                Output::Message(message) => input = Some(message),
                Output::Loss(loss) => return Ok(loss),
            }
        }
        Err(StageError::Wiring("the last stage gave no loss"))
    }

    /// Runs an item again and compares to the bit; what it sends may have crossed by `lossy`. None if there is nothing to
    /// compare.
    pub(super) fn replay(
        &self,
        item: &Item,
        evidence: &Evidence,
        tokens: &Tokens,
        lossy: Option<&Champion>,
    ) -> Option<Outcome> {
        let mut stages = self.stages();
        let stage = stages.get_mut(usize::from(item.stage.0))?;
        let key = item.micro_batch.0;
        let outcome = compare(stage, item, evidence, tokens, lossy);
        stage.discard(key);
        outcome
    }

    pub(super) fn stages(&self) -> MutexGuard<'_, Vec<CpuStage>> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a tensor is the one that its sender signed for; none if this machine cannot tell. A lossy component makes
/// another tensor of it, the same on every machine.
fn sent(message: &Message, header: &FrameHeader, lossy: Option<&Champion>) -> Option<bool> {
    let Some(lossy) = lossy.filter(|lossy| lossy.name() == header.codec) else {
        return Some(tensor_hash(message) == header.tensor_hash);
    };
    match lossy.encode(header.direction, message, true) {
        Ok(carried) => {
            let decoded = tensor_hash(carried.lossy.as_ref().unwrap_or(message));
            Some((Hash::of(&carried.payload), decoded) == (header.enc_hash, header.tensor_hash))
        }
        Err(Fell::Host(_)) => None,
        Err(Fell::Failed(failed)) if failed.fault == Fault::Time => None,
        // Its sender had to take the built-in codec.
        Err(_) => Some(false),
    }
}

fn compare(
    stage: &mut CpuStage,
    item: &Item,
    evidence: &Evidence,
    tokens: &Tokens,
    lossy: Option<&Champion>,
) -> Option<Outcome> {
    let key = item.micro_batch.0;
    let opened = &evidence.opened;
    let passes = |same: bool| Some(if same { Outcome::Pass } else { Outcome::Fail });
    let told = opened.frames().all(|frame| frame.frame.header.tokens_hash == tokens.hash);
    if !told {
        return passes(false);
    }
    // Inputs that do not fit the stage are no work of this item: the miner had to refuse them.
    let Ok(output) = stage.forward(key, &tokens.tokens, evidence.forward_in.as_ref()) else {
        return Some(Outcome::NotOpened);
    };
    if item.direction == Direction::Forward {
        return match (output, &opened.forward_out) {
            (Output::Message(message), Some(out)) => passes(sent(&message, &out.frame.header, lossy)?),
            (Output::Loss(loss), _) => passes(item.loss.map(f32::to_bits) == Some(loss.to_bits())),
            (Output::Message(_), None) => Some(Outcome::NotOpened),
        };
    }
    let Ok(gradient) = stage.backward(key, evidence.backward_in.as_ref(), false) else {
        return Some(Outcome::NotOpened);
    };
    match (gradient, &opened.backward_out) {
        (Some(gradient), Some(out)) => passes(sent(&gradient, &out.frame.header, lossy)?),
        // A head's backward sends nothing: its gradient is bound by the step commitments of a later issue.
        (None, _) => None,
        (Some(_), None) => Some(Outcome::NotOpened),
    }
}

#[cfg(test)]
mod tests;
