//! Frames: tensors between miners, each under a header that its sender signed and a receipt that its receiver signed.

use serde::{Deserialize, Serialize};

use crate::{
    Epoch, Hash, LeaseId, MicroBatch, Millis, NodeId, RunId, Seq, Signature, SigningKey, StageIndex, limits,
    to_bytes,
};

/// Which way a frame travels through the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// Activations, towards the tail.
    Forward,
    /// Gradients of activations, towards the head.
    Backward,
}

/// The newest log head that a node knows: carried in every header, so that two stories meet (protocol §5 "Heads").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Sequence number of the newest block.
    pub seq: Seq,
    /// Its hash.
    pub hash: Hash,
}

/// Header of one activation or gradient frame (protocol §2.2 "Data").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameHeader {
    /// Run.
    pub run: RunId,
    /// Epoch of the lease.
    pub epoch: Epoch,
    /// Micro-batch.
    pub micro_batch: MicroBatch,
    /// Lease under which it travels.
    pub lease: LeaseId,
    /// Direction.
    pub direction: Direction,
    /// Sender's stage.
    pub stage: StageIndex,
    /// Sender.
    pub from: NodeId,
    /// Receiver.
    pub to: NodeId,
    /// Stages, by bit, whose work counts under the lease; the others only pass on.
    pub grad_mask: u64,
    /// Sender's weight version (inner step within the epoch) that made the tensor.
    pub version: u32,
    /// Time left for the lease when this frame was sent, milliseconds: a span, since clocks differ.
    pub ttl: Millis,
    /// Length of the encoded payload, bytes.
    pub enc_len: u64,
    /// Hash of the encoded payload.
    pub enc_hash: Hash,
    /// Hash of the decoded tensor (dtype, shape, bytes).
    pub tensor_hash: Hash,
    /// Hash of the micro-batch's tokens: the tail refuses if it differs from what it derives.
    pub tokens_hash: Hash,
    /// Codec name.
    pub codec: String,
    /// Loss of the micro-batch, nats per token; on backward frames only.
    pub loss: Option<f32>,
    /// Sender's newest log head.
    pub head: Head,
}

/// A header with its sender's signature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignedFrame {
    /// What is signed.
    pub header: FrameHeader,
    /// By `header.from`.
    pub signature: Signature,
}

/// A receiver's signature over a frame's header: an item without both does not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Hash of the signed header.
    pub frame: Hash,
    /// By the frame's receiver.
    pub signature: Signature,
}

/// Why a frame is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// For another run.
    #[error("frame of run {}", .0.short())]
    WrongRun(RunId),
    /// For another node.
    #[error("frame for node {}", .0.short())]
    WrongReceiver(NodeId),
    /// Came over a connection of somebody else.
    #[error("frame signed by {} came from {}", signer.short(), peer.short())]
    WrongSender {
        /// Named in the header.
        signer: NodeId,
        /// At the other end of the link.
        peer: NodeId,
    },
    /// Header signature does not verify.
    #[error("frame signature of {} does not verify", .0.short())]
    Signature(NodeId),
    /// Too large.
    #[error("payload of {0} bytes is over the limit of {limit}", limit = limits::FRAME_PAYLOAD_BYTES)]
    TooLarge(u64),
    /// Payload is not what the header says.
    #[error("payload does not match its header: {0}")]
    Payload(&'static str),
}

impl SignedFrame {
    /// Signs a header.
    pub fn sign(key: &SigningKey, header: FrameHeader) -> Self {
        let signature = key.sign(&signed_bytes(b"shoal frame\0", &Hash::of(&to_bytes(&header))));
        Self { header, signature }
    }

    /// Hash of header and signature: what a receipt covers.
    pub fn hash(&self) -> Hash {
        Hash::of(&to_bytes(self))
    }

    /// Checks a frame that arrived at `receiver` over a link to `peer` with its encoded payload.
    pub fn verify(
        &self,
        run: &RunId,
        receiver: &NodeId,
        peer: &NodeId,
        payload: &[u8],
    ) -> Result<(), FrameError> {
        let header = &self.header;
        if header.run != *run {
            return Err(FrameError::WrongRun(header.run));
        }
        if header.to != *receiver {
            return Err(FrameError::WrongReceiver(header.to));
        }
        if header.from != *peer {
            return Err(FrameError::WrongSender { signer: header.from, peer: *peer });
        }
        if header.enc_len > limits::FRAME_PAYLOAD_BYTES {
            return Err(FrameError::TooLarge(header.enc_len));
        }
        if header.codec.len() > limits::CODEC_NAME_BYTES {
            return Err(FrameError::Payload("codec name too long"));
        }
        if header.enc_len != payload.len() as u64 {
            return Err(FrameError::Payload("length"));
        }
        if header.enc_hash != Hash::of(payload) {
            return Err(FrameError::Payload("hash"));
        }
        if self.signed() { Ok(()) } else { Err(FrameError::Signature(header.from)) }
    }

    /// Whether `header.from` signed this header; nothing is said about its payload.
    pub fn signed(&self) -> bool {
        let message = signed_bytes(b"shoal frame\0", &Hash::of(&to_bytes(&self.header)));
        self.signature.verify(&self.header.from, &message)
    }
}

impl Receipt {
    /// Signs for a frame that was received and checked.
    pub fn sign(key: &SigningKey, frame: &SignedFrame) -> Self {
        let hash = frame.hash();
        Self { frame: hash, signature: key.sign(&signed_bytes(b"shoal receipt\0", &hash)) }
    }

    /// Whether `receiver` signed for `frame`.
    pub fn verify(&self, receiver: &NodeId, frame: &SignedFrame) -> bool {
        self.frame == frame.hash()
            && self.signature.verify(receiver, &signed_bytes(b"shoal receipt\0", &self.frame))
    }
}

fn signed_bytes(domain: &[u8], hash: &Hash) -> Vec<u8> {
    [domain, &hash.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(key: &SigningKey, to: NodeId, payload: &[u8]) -> SignedFrame {
        SignedFrame::sign(
            key,
            FrameHeader {
                run: RunId([7; 32]),
                epoch: Epoch(1),
                micro_batch: MicroBatch(2),
                lease: LeaseId(3),
                direction: Direction::Forward,
                stage: StageIndex(0),
                from: key.node_id(),
                to,
                grad_mask: 7,
                version: 4,
                ttl: Millis(5000),
                enc_len: payload.len() as u64,
                enc_hash: Hash::of(payload),
                tensor_hash: Hash::of(b"tensor"),
                tokens_hash: Hash::of(b"tokens"),
                codec: "bf16".into(),
                loss: None,
                head: Head { seq: Seq(9), hash: Hash::of(b"head") },
            },
        )
    }

    #[test]
    fn a_frame_is_for_one_receiver_from_one_sender_with_one_payload() {
        let (a, b, c) = (
            SigningKey::from_bytes(&[1; 32]),
            SigningKey::from_bytes(&[2; 32]),
            SigningKey::from_bytes(&[3; 32]).node_id(),
        );
        let run = RunId([7; 32]);
        let (from, to) = (a.node_id(), b.node_id());
        let good = frame(&a, to, b"payload");
        good.verify(&run, &to, &from, b"payload").unwrap();
        assert!(matches!(good.verify(&RunId([8; 32]), &to, &from, b"payload"), Err(FrameError::WrongRun(_))));
        assert!(matches!(good.verify(&run, &c, &from, b"payload"), Err(FrameError::WrongReceiver(_))));
        assert!(matches!(good.verify(&run, &to, &c, b"payload"), Err(FrameError::WrongSender { .. })));
        assert!(matches!(good.verify(&run, &to, &from, b"payloaD"), Err(FrameError::Payload("hash"))));
        assert!(matches!(good.verify(&run, &to, &from, b"payload+"), Err(FrameError::Payload("length"))));
        let mut forged = good.clone();
        forged.header.grad_mask = 0;
        assert!(matches!(forged.verify(&run, &to, &from, b"payload"), Err(FrameError::Signature(_))));

        let receipt = Receipt::sign(&b, &good);
        assert!(receipt.verify(&to, &good));
        assert!(!receipt.verify(&from, &good));
        assert!(!receipt.verify(&to, &forged));
    }

    #[test]
    fn golden_bytes_of_a_frame() {
        let a = SigningKey::from_bytes(&[1; 32]);
        assert_eq!(frame(&a, a.node_id(), b"payload").hash().short(), "798ee77c2c");
    }
}
