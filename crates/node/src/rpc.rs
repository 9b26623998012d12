//! What nodes ask each other: one enum of requests, one of replies, over [`net::Link`].
//!
//! The control part of a message is one of these, encoded by [`wire::to_bytes`]; tensors, blobs and blocks are its
//! payload. Anything that changes the run's state is a signed statement and goes through the log; the rest moves bytes
//! that the receiver checks against a hash it already has.

use std::time::Duration;

use bytes::Bytes;
use net::{Message, Refusal};
use serde::{Deserialize, Serialize};
use wire::{
    DecodeError, Direction, Envelope, Epoch, Hash, Head, MicroBatch, Millis, NodeId, Receipt, RunId, Seq,
    Signature, SignedFrame, SigningKey, StageIndex,
};

use crate::limits;

/// A question to another node, with the run it belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// Protocol version of the sender.
    pub version: u16,
    /// Run.
    pub run: RunId,
    /// The question.
    pub request: Request,
}

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Node → orchestrator: a signed [`swarm::record::Statement`]. Answer: [`Reply::Accepted`] once it is durable, or
    /// [`Reply::Refused`]. The same bytes may be sent again and get the same answer.
    State(Envelope),
    /// Node → orchestrator: the blocks behind `after` (from the first one if none); held open up to `wait` until there
    /// is one. Answer: [`Reply::Blocks`].
    Blocks {
        /// Last block that the asker has.
        after: Option<Seq>,
        /// How long the answer may wait, at most [`limits::LONG_POLL`].
        wait: Millis,
    },
    /// Anyone → whoever has it: a piece of something. Answer: [`Reply::Piece`].
    Fetch {
        /// Which thing.
        what: What,
        /// Which bytes of it.
        span: Span,
    },
    /// Miner → miner: an activation or gradient; its encoded payload is the message's. Answer: [`Reply::Received`] or
    /// [`Reply::Busy`].
    Frame(Box<SignedFrame>),
    /// Validator → miner: open one item of the present or last epoch. Answer: [`Reply::Opened`].
    Open {
        /// Epoch.
        epoch: Epoch,
        /// Micro-batch.
        micro_batch: MicroBatch,
        /// Direction.
        direction: Direction,
    },
    /// Miner → miner: a [`codec::Predictor`], before the first frame that names it; its bytes are the message's payload.
    /// Answer: [`Reply::Held`].
    Predictor,
}

/// Things that are fetched in pieces. Each is checked by its hash once it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum What {
    /// A blob: data shard, tokenizer, initial weights.
    Blob(wire::Hash),
    /// Hashes of all leaves of an encoded upload, 32 bytes each, against [`swarm::record::UploadCommit::upload`].
    UploadLeaves {
        /// Epoch.
        epoch: Epoch,
        /// Stage.
        stage: StageIndex,
        /// Uploader (any node that holds it may be asked).
        of: NodeId,
    },
    /// The encoded leaves of an upload that lie in one shard.
    Upload {
        /// Epoch.
        epoch: Epoch,
        /// Stage.
        stage: StageIndex,
        /// Shard.
        shard: u16,
        /// Uploader (any node that holds it may be asked).
        of: NodeId,
    },
    /// An encoded merged shard, against the manifest's hash.
    Result {
        /// Epoch.
        epoch: Epoch,
        /// Stage.
        stage: StageIndex,
        /// Shard.
        shard: u16,
    },
    /// Weights that `epoch` opens with, little-endian f32, over the range of a shard of the merge before it.
    Weights {
        /// Epoch that opens with them.
        epoch: Epoch,
        /// Stage.
        stage: StageIndex,
        /// Shard of merge `epoch − 1`; 0 is everything in epoch 0.
        shard: u16,
    },
    /// Outer momentum that belongs to the same weights.
    Momentum {
        /// Epoch that opens with it.
        epoch: Epoch,
        /// Stage.
        stage: StageIndex,
        /// Shard of merge `epoch − 1`; 0 is everything in epoch 0.
        shard: u16,
    },
    /// A predictor that frames of a node name.
    Predictor {
        /// Whose frames (whoever sent or received them may be asked).
        of: NodeId,
        /// Its id: a hash of its bytes.
        id: u64,
    },
}

/// Part of a thing, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First byte.
    pub from: u64,
    /// Number of bytes wanted; the answer is shorter at the end, and never above [`limits::PIECE_BYTES`].
    pub len: u64,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// The statement is in the log.
    Accepted {
        /// Its block.
        seq: Seq,
    },
    /// The protocol refuses the statement; sending the same again will not help.
    Refused {
        /// Why.
        refusal: swarm::refusal::Refusal,
    },
    /// Blocks, in order, without gaps; their bytes are the payload, one behind the other.
    Blocks {
        /// Length of each, bytes. Empty if none came in time.
        lengths: Vec<u32>,
        /// The newest block that is durable.
        head: Option<Head>,
    },
    /// The bytes asked for are the payload.
    Piece {
        /// Length of the whole thing, bytes.
        total: u64,
    },
    /// The frame was received and checked, and will be worked on.
    Received(Receipt),
    /// The frame was understood but there is no room for it now: take the next candidate.
    Busy(Busy),
    /// The frames that belong to an item; their encoded payloads are the message's payload.
    Opened(Box<Opened>),
    /// As [`Reply::Piece`], but the payload is an encoded tensor of which those bytes are the numbers.
    Packed {
        /// Length of the whole thing, bytes.
        total: u64,
        /// Length of the piece when decoded, bytes.
        len: u64,
    },
    /// The predictor is held until newer ones of the same sender take its place.
    Held,
}

/// A receiver's signature under "no room now" (protocol §2.2 "Routing").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Busy {
    /// Hash of the signed header.
    pub frame: Hash,
    /// By the frame's receiver.
    pub signature: Signature,
}

impl Busy {
    /// Signs for a frame that is not taken.
    pub fn sign(key: &SigningKey, frame: &SignedFrame) -> Self {
        let frame = frame.hash();
        Self { frame, signature: key.sign(&busy_bytes(&frame)) }
    }

    /// Whether `receiver` refused `frame`.
    pub fn verify(&self, receiver: &NodeId, frame: &SignedFrame) -> bool {
        self.frame == frame.hash() && self.signature.verify(receiver, &busy_bytes(&self.frame))
    }
}

fn busy_bytes(frame: &Hash) -> Vec<u8> {
    [&b"shoal busy\0"[..], &frame.0].concat()
}

/// What a miner shows of one item: what came in and what went out, each signed by both sides.
///
/// For a backward the forward's frames are shown too: the replay starts there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// Activation that came in; none on the head.
    pub forward_in: Option<OpenedFrame>,
    /// Activation that went out; none on the tail.
    pub forward_out: Option<OpenedFrame>,
    /// Gradient that came in; none on the tail, or if only the forward was asked for.
    pub backward_in: Option<OpenedFrame>,
    /// Gradient that went out; none on the head, or if only the forward was asked for.
    pub backward_out: Option<OpenedFrame>,
}

/// One frame of an opened item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenedFrame {
    /// The frame, signed by its sender.
    pub frame: SignedFrame,
    /// Its receiver's signature.
    pub receipt: Receipt,
    /// Length of its encoded bytes in the payload; 0 where they are not kept (what went out is compared by hash).
    pub len: u64,
}

impl Opened {
    /// The frames that are there, in the order of their payloads.
    pub fn frames(&self) -> impl Iterator<Item = &OpenedFrame> {
        [&self.forward_in, &self.forward_out, &self.backward_in, &self.backward_out].into_iter().flatten()
    }
}

/// Codes of a [`Refusal`], below the link's own.
pub mod code {
    /// Another protocol version, or not a request at all.
    pub const BAD_REQUEST: u16 = 1;
    /// Not available from this node (now).
    pub const NOT_HERE: u16 = 3;
    /// Not something this role answers.
    pub const NOT_MY_ROLE: u16 = 4;
    /// Too much to do; ask again later.
    pub const BUSY: u16 = 5;
    /// Stopping; ask again later or somebody else.
    pub const STOPPING: u16 = 6;
    /// A frame or span that breaks a rule.
    pub const REFUSED: u16 = 7;
    /// This node could not do it (its disk, its memory).
    pub const FAILED: u16 = 8;
    /// The frame's codec or predictor is not known here, or did not give the tensor back: send it again by a built-in
    /// codec that needs neither.
    pub const RESEND: u16 = 9;
}

/// Why a peer's bytes are not a valid reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Does not decode.
    #[error("not a reply: {0}")]
    Decode(#[from] DecodeError),
    /// Control and payload do not agree.
    #[error("reply and payload disagree: {0}")]
    Payload(&'static str),
    /// Another reply than this request has.
    #[error("unexpected reply {0}")]
    Unexpected(&'static str),
}

impl Request {
    /// Encodes the request without payload.
    pub fn message(self, run: RunId) -> Message {
        self.with_payload(run, Bytes::new())
    }

    /// Encodes the request with a payload.
    pub fn with_payload(self, run: RunId, payload: Bytes) -> Message {
        let ask = Ask { version: wire::PROTOCOL_VERSION, run, request: self };
        Message::with_payload(wire::to_bytes(&ask), payload)
    }

    /// Decodes and checks a request of a peer; what it refuses is ready to be sent back.
    pub fn parse(message: &Message, run: &RunId) -> Result<Request, Refusal> {
        let ask: Ask = wire::from_bytes(&message.control)
            .map_err(|error| Refusal::new(code::BAD_REQUEST, format!("not a request: {error}")))?;
        if ask.version != wire::PROTOCOL_VERSION {
            let (ours, theirs) = (wire::PROTOCOL_VERSION, ask.version);
            let reason = format!("protocol version {theirs}, this node speaks {ours}: update the older one");
            return Err(Refusal::new(code::BAD_REQUEST, reason));
        }
        if ask.run != *run {
            let reason = format!("for run {}, this is run {}", ask.run.short(), run.short());
            return Err(Refusal::new(Refusal::FOREIGN, reason));
        }
        let carries = matches!(ask.request, Request::Frame(_) | Request::Predictor);
        if !carries && !message.payload.is_empty() {
            return Err(Refusal::new(code::BAD_REQUEST, "a payload where none belongs"));
        }
        Ok(ask.request)
    }

    /// How long the caller should give the call.
    pub fn deadline(&self) -> Duration {
        match self {
            Self::State(_) => limits::STATEMENT_TRY,
            Self::Blocks { wait, .. } => Duration::from_millis(wait.0) + limits::LONG_POLL_GRACE,
            Self::Fetch { .. } | Self::Frame(_) | Self::Open { .. } | Self::Predictor => {
                limits::PIECE_DEADLINE
            }
        }
    }
}

impl Span {
    /// The piece of `whole` that is meant; refuses a start behind the end.
    pub fn of(self, whole: &Bytes) -> Result<Bytes, Refusal> {
        let range = self.range(whole.len() as u64)?;
        Ok(whole.slice(range.start as usize..range.end as usize))
    }

    /// The range of a thing of `total` bytes that is meant; refuses a start behind the end.
    pub fn range(self, total: u64) -> Result<std::ops::Range<u64>, Refusal> {
        if self.from > total {
            let reason = format!("asked from byte {} of {total}", self.from);
            return Err(Refusal::new(code::REFUSED, reason));
        }
        let len = self.len.min(limits::PIECE_BYTES).min(total - self.from);
        Ok(self.from..self.from + len)
    }
}

impl Reply {
    /// Encodes the reply without payload.
    pub fn message(&self) -> Message {
        Message::new(wire::to_bytes(self))
    }

    /// Encodes the reply with a payload.
    pub fn with_payload(&self, payload: Bytes) -> Message {
        Message::with_payload(wire::to_bytes(self), payload)
    }

    /// Decodes a peer's reply and checks that its payload is what the control part says.
    pub fn parse(message: &Message) -> Result<Reply, ReplyError> {
        let reply: Reply = wire::from_bytes(&message.control)?;
        let payload = message.payload.len() as u64;
        match &reply {
            Reply::Blocks { lengths, .. } => {
                if lengths.len() > limits::BLOCKS_PER_ANSWER as usize {
                    return Err(ReplyError::Payload("more blocks than allowed"));
                }
                if lengths.iter().map(|&len| u64::from(len)).sum::<u64>() != payload {
                    return Err(ReplyError::Payload("lengths of blocks"));
                }
            }
            Reply::Piece { total } => {
                if payload > *total || payload > limits::PIECE_BYTES || *total > limits::FETCH_BYTES {
                    return Err(ReplyError::Payload("length of a piece"));
                }
            }
            Reply::Packed { total, len } => {
                if payload > *len
                    || *len > *total
                    || *len > limits::PIECE_BYTES
                    || *total > limits::FETCH_BYTES
                {
                    return Err(ReplyError::Payload("length of a packed piece"));
                }
            }
            Reply::Opened(opened) => {
                let sum = opened.frames().try_fold(0_u64, |sum, frame| sum.checked_add(frame.len));
                if sum != Some(payload) {
                    return Err(ReplyError::Payload("lengths of frames"));
                }
            }
            Reply::Accepted { .. }
            | Reply::Refused { .. }
            | Reply::Received(_)
            | Reply::Busy(_)
            | Reply::Held => {
                if payload != 0 {
                    return Err(ReplyError::Payload("a payload where none belongs"));
                }
            }
        }
        Ok(reply)
    }

    /// Name for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "Accepted",
            Self::Refused { .. } => "Refused",
            Self::Blocks { .. } => "Blocks",
            Self::Piece { .. } => "Piece",
            Self::Packed { .. } => "Packed",
            Self::Received(_) => "Received",
            Self::Busy(_) => "Busy",
            Self::Opened(_) => "Opened",
            Self::Held => "Held",
        }
    }
}

/// Cuts the payload of [`Reply::Blocks`] or [`Reply::Opened`] at `lengths`, whose sum was checked by [`Reply::parse`].
pub fn split(payload: &Bytes, lengths: impl IntoIterator<Item = u64>) -> Vec<Bytes> {
    let mut rest = payload.clone();
    lengths.into_iter().map(|len| rest.split_to((len as usize).min(rest.len()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: RunId = RunId([7; 32]);

    fn ask() -> Request {
        Request::Blocks { after: Some(Seq(4)), wait: Millis(100) }
    }

    #[test]
    fn requests_of_another_run_version_or_shape_are_refused() {
        assert_eq!(Request::parse(&ask().message(RUN), &RUN).unwrap(), ask());
        let wrong = Request::parse(&ask().message(RunId([8; 32])), &RUN).unwrap_err();
        assert_eq!(wrong.code, Refusal::FOREIGN);
        let old = Ask { version: 0, run: RUN, request: ask() };
        let old = Request::parse(&Message::new(wire::to_bytes(&old)), &RUN).unwrap_err();
        assert_eq!(old.code, code::BAD_REQUEST);
        assert!(old.reason.contains("version 0"), "{old}");
        let stuffed = ask().with_payload(RUN, Bytes::from_static(b"x"));
        assert_eq!(Request::parse(&stuffed, &RUN).unwrap_err().code, code::BAD_REQUEST);
        for cut in 0..ask().message(RUN).control.len() {
            let mut short = ask().message(RUN);
            short.control.truncate(cut);
            assert!(Request::parse(&short, &RUN).is_err());
        }
    }

    #[test]
    fn a_reply_must_match_its_payload() {
        let blocks = Reply::Blocks { lengths: vec![3, 2], head: None };
        let good = blocks.with_payload(Bytes::from_static(b"abcde"));
        assert_eq!(Reply::parse(&good).unwrap(), blocks);
        assert_eq!(split(&good.payload, [3, 2]), [&b"abc"[..], b"de"]);
        assert!(Reply::parse(&blocks.with_payload(Bytes::from_static(b"abcd"))).is_err());
        let piece = Reply::Piece { total: 3 };
        assert!(Reply::parse(&piece.with_payload(Bytes::from_static(b"abcd"))).is_err());
        let accepted = Reply::Accepted { seq: Seq(1) };
        assert!(Reply::parse(&accepted.with_payload(Bytes::from_static(b"a"))).is_err());
    }

    #[test]
    fn a_span_stays_within_its_thing() {
        let whole = Bytes::from_static(b"0123456789");
        assert_eq!(Span { from: 8, len: u64::MAX }.of(&whole).unwrap(), &b"89"[..]);
        assert_eq!(Span { from: 10, len: 1 }.of(&whole).unwrap(), &b""[..]);
        assert_eq!(Span { from: 11, len: 0 }.of(&whole).unwrap_err().code, code::REFUSED);
    }

    #[test]
    fn golden_bytes_of_a_request() {
        assert_eq!(ask().message(RUN).control, [&[1][..], &[7; 32], &[1, 1, 4, 100]].concat());
    }
}
