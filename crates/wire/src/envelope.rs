//! Signed envelopes: every message that changes state says who sent it, to which run, when, and only once.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    DecodeError, Hash, Millis, NodeId, PROTOCOL_VERSION, RunId, Signature, SigningKey, limits, to_bytes,
};

/// A body signed by its sender over version, run, kind, body hash, time and nonce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Protocol version of the sender.
    pub version: u16,
    /// Run that this message belongs to.
    pub run: RunId,
    /// Who signs.
    pub sender: NodeId,
    /// Sender's clock at signing, since the Unix epoch.
    pub time: Millis,
    /// Unique per sender and time; with `time` it makes a replay visible.
    pub nonce: u64,
    /// What the body is: a message type of the protocol that uses the envelope.
    pub kind: u16,
    /// Encoded message.
    pub body: Vec<u8>,
    /// Over all of the above.
    pub signature: Signature,
}

/// Why an envelope is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Does not decode.
    #[error("not an envelope: {0}")]
    Decode(#[from] DecodeError),
    /// Body over the limit.
    #[error("body of {len} bytes is over the limit of {limit}")]
    TooLarge {
        /// Length found, bytes.
        len: usize,
        /// Limit, bytes.
        limit: usize,
    },
    /// Another protocol version.
    #[error("protocol version {theirs}, this node speaks {PROTOCOL_VERSION}: update the older one")]
    Version {
        /// Version found.
        theirs: u16,
    },
    /// Meant for another run.
    #[error("for run {}, this is run {}", theirs.short(), ours.short())]
    WrongRun {
        /// Run named by the envelope.
        theirs: RunId,
        /// Run of the receiver.
        ours: RunId,
    },
    /// Signature does not verify.
    #[error("signature of {} does not verify", sender.short())]
    Signature {
        /// Claimed sender.
        sender: NodeId,
    },
    /// Clock too far away.
    #[error("signed at {theirs:?}, receiver's clock says {ours:?}: set the clock (limit {} s)", limits::ENVELOPE_SKEW_MS / 1000)]
    Stale {
        /// Time in the envelope.
        theirs: Millis,
        /// Receiver's time.
        ours: Millis,
    },
    /// Seen before.
    #[error("replayed: nonce {nonce} of {} was seen before", sender.short())]
    Replayed {
        /// Sender.
        sender: NodeId,
        /// Repeated nonce.
        nonce: u64,
    },
}

impl Envelope {
    /// Signs `body` as a message of `kind`.
    pub fn sign(key: &SigningKey, run: RunId, kind: u16, body: Vec<u8>, time: Millis, nonce: u64) -> Self {
        let sender = key.node_id();
        let message = signed_bytes(PROTOCOL_VERSION, &run, &sender, time, nonce, kind, &body);
        let signature = key.sign(&message);
        Self { version: PROTOCOL_VERSION, run, sender, time, nonce, kind, body, signature }
    }

    /// Checks size, version, run and signature; freshness is [`Nonces::admit`]'s.
    pub fn verify(&self, run: &RunId) -> Result<(), EnvelopeError> {
        if self.body.len() > limits::ENVELOPE_BODY_BYTES {
            return Err(EnvelopeError::TooLarge { len: self.body.len(), limit: limits::ENVELOPE_BODY_BYTES });
        }
        if self.version != PROTOCOL_VERSION {
            return Err(EnvelopeError::Version { theirs: self.version });
        }
        if self.run != *run {
            return Err(EnvelopeError::WrongRun { theirs: self.run, ours: *run });
        }
        let message =
            signed_bytes(self.version, &self.run, &self.sender, self.time, self.nonce, self.kind, &self.body);
        if !self.signature.verify(&self.sender, &message) {
            return Err(EnvelopeError::Signature { sender: self.sender });
        }
        Ok(())
    }

    /// Hash of the whole envelope: names it in receipts and evidence.
    pub fn hash(&self) -> Hash {
        Hash::of(&to_bytes(self))
    }
}

fn signed_bytes(
    version: u16,
    run: &RunId,
    sender: &NodeId,
    time: Millis,
    nonce: u64,
    kind: u16,
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = b"shoal envelope\0".to_vec();
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&run.0);
    bytes.extend_from_slice(&sender.0);
    bytes.extend_from_slice(&time.0.to_le_bytes());
    bytes.extend_from_slice(&nonce.to_le_bytes());
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&Hash::of(body).0);
    bytes
}

/// Remembers which (sender, time, nonce) were seen, so that a replay or a stale message is refused.
#[derive(Debug, Default, Clone)]
pub struct Nonces {
    seen: BTreeMap<NodeId, BTreeSet<(Millis, u64)>>,
}

impl Nonces {
    /// Admits an envelope once, and only near its own time.
    pub fn admit(&mut self, envelope: &Envelope, now: Millis) -> Result<(), EnvelopeError> {
        let age = now.since(envelope.time).0.max(envelope.time.since(now).0);
        if age > limits::ENVELOPE_SKEW_MS {
            return Err(EnvelopeError::Stale { theirs: envelope.time, ours: now });
        }
        let seen = self.seen.entry(envelope.sender).or_default();
        let floor = Millis(now.0.saturating_sub(limits::ENVELOPE_SKEW_MS));
        *seen = seen.split_off(&(floor, 0));
        let full = seen.len() >= limits::NONCES_PER_SENDER;
        if full || !seen.insert((envelope.time, envelope.nonce)) {
            return Err(EnvelopeError::Replayed { sender: envelope.sender, nonce: envelope.nonce });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }
    const RUN: RunId = RunId([7; 32]);

    #[test]
    fn an_honest_envelope_is_admitted_once() {
        let envelope = Envelope::sign(&key(1), RUN, 3, b"body".to_vec(), Millis(1_000_000), 5);
        envelope.verify(&RUN).unwrap();
        let mut nonces = Nonces::default();
        nonces.admit(&envelope, Millis(1_000_500)).unwrap();
        assert!(matches!(nonces.admit(&envelope, Millis(1_000_600)), Err(EnvelopeError::Replayed { .. })));
        let late = Millis(1_000_000 + limits::ENVELOPE_SKEW_MS + 1);
        assert!(matches!(nonces.admit(&envelope, late), Err(EnvelopeError::Stale { .. })));
    }

    #[test]
    fn every_signed_field_is_bound() {
        let good = Envelope::sign(&key(1), RUN, 3, b"body".to_vec(), Millis(10), 5);
        let changes: [fn(&mut Envelope); 6] = [
            |e| e.time = Millis(11),
            |e| e.nonce = 6,
            |e| e.kind = 4,
            |e| e.body.push(0),
            |e| e.sender = SigningKey::from_bytes(&[2; 32]).node_id(),
            |e| e.signature.0[0] ^= 1,
        ];
        for change in changes {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(matches!(bad.verify(&RUN), Err(EnvelopeError::Signature { .. })));
        }
        assert!(matches!(good.verify(&RunId([8; 32])), Err(EnvelopeError::WrongRun { .. })));
        let mut old = good.clone();
        old.version = 0;
        assert!(matches!(old.verify(&RUN), Err(EnvelopeError::Version { theirs: 0 })));
    }

    #[test]
    fn golden_bytes_of_an_envelope() {
        let envelope = Envelope::sign(&key(1), RUN, 3, b"body".to_vec(), Millis(1_000_000), 5);
        assert_eq!(Hash::of(&to_bytes(&envelope)).short(), "e218dbd41a");
    }
}
