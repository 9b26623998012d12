//! Framing: the fixed head of every stream, checked against the limits before anything is allocated.
//!
//! A call is one bidirectional stream: request head, control, payload; then back an answer head, control, payload, or a
//! refusal with its reason. A large payload is cut in stripes of equal size: the first follows on the same stream, each
//! other one has a unidirectional stream of its own behind a stripe head that names the call. Each side of a connection
//! first says hello, on a unidirectional stream: two hellos of one node that differ come from two lives of it. All
//! numbers are little-endian:
//!
//! | bytes | request | answer | refusal | stripe | hello |
//! |---|---|---|---|---|---|
//! | 0 | version | version | version | version | version |
//! | 1 | 1 | 2 | 3 | 4 | 5 |
//! | 2 | stripes | stripes | 0 | index, from 1 | 0 |
//! | 3 | 0 | 0 | 0 | 1 if of an answer | 0 |
//! | 4..8 | control bytes | control bytes | reason bytes | 0 | 0 |
//! | 8..16 | call | call | 0 | call | life |
//! | 16..24 | payload bytes | payload bytes | 0 | bytes of this stripe | 0 |
//! | 24..32 | deadline, ms | 0 | code | 0 | 0 |

use std::ops::Range;
use std::time::Duration;

use crate::{Refusal, limits};

/// Version of the framing.
pub const VERSION: u8 = 1;
/// Length of every head, bytes.
pub const HEAD_BYTES: usize = 32;

/// Head of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Opens a call.
    Request {
        /// Shape of what follows.
        body: Body,
        /// Time that the caller still waits, whole milliseconds.
        deadline: Duration,
    },
    /// Ends a call well.
    Answer {
        /// Shape of what follows.
        body: Body,
    },
    /// Ends a call badly.
    Refusal {
        /// Code for programs.
        code: u16,
        /// Length of the reason that follows, bytes.
        reason: usize,
    },
    /// Opens a further stream of a payload.
    Stripe {
        /// Call, as its initiator numbered it.
        call: u64,
        /// Whether it belongs to the answer.
        answer: bool,
        /// Which stripe, from 1.
        index: u8,
        /// Its length, bytes.
        len: u64,
    },
    /// Says which life of its node a connection is with.
    Hello {
        /// The same for all connections of one link, another one after a restart.
        life: u64,
    },
}

/// Lengths of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    /// Number of the call on its connection.
    pub call: u64,
    /// Control bytes.
    pub control: usize,
    /// Payload bytes.
    pub payload: u64,
    /// Streams that the payload is spread over.
    pub stripes: u8,
}

/// Why bytes are not a head of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another version.
    #[error("frame version {0}, this node speaks {VERSION}: update the older one")]
    Version(u8),
    /// Not a known kind.
    #[error("frame of unknown kind {0}")]
    Kind(u8),
    /// Bytes set that must be zero.
    #[error("frame head with bits set that have no meaning")]
    Reserved,
    /// A length over its limit.
    #[error("{part} of {len} bytes is over the limit of {limit}")]
    TooLarge {
        /// Which.
        part: &'static str,
        /// Announced length, bytes.
        len: u64,
        /// Limit, bytes.
        limit: u64,
    },
    /// Stripes where there may be none, or too many of them.
    #[error("{stripes} stripes for a payload of {payload} bytes")]
    Stripes {
        /// Announced number.
        stripes: u8,
        /// Announced length, bytes.
        payload: u64,
    },
    /// The stream ended early.
    #[error("frame truncated: {part} ended after {got} of {expected} bytes")]
    Truncated {
        /// Which part.
        part: &'static str,
        /// Bytes that came.
        got: u64,
        /// Bytes announced.
        expected: u64,
    },
    /// Bytes behind the end.
    #[error("bytes follow the end of the frame")]
    Trailing,
    /// A head where another belongs.
    #[error("{0}")]
    Unexpected(&'static str),
}

impl FrameError {
    /// Code under which it is refused.
    pub fn code(&self) -> u16 {
        match self {
            Self::Version(_) => Refusal::VERSION,
            Self::TooLarge { .. } => Refusal::TOO_LARGE,
            _ => Refusal::MALFORMED,
        }
    }
}

impl Head {
    /// The bytes of this head.
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[0] = VERSION;
        let mut body = |kind: u8, body: &Body| {
            bytes[1] = kind;
            bytes[2] = body.stripes;
            bytes[4..8].copy_from_slice(&(body.control as u32).to_le_bytes());
            bytes[8..16].copy_from_slice(&body.call.to_le_bytes());
            bytes[16..24].copy_from_slice(&body.payload.to_le_bytes());
        };
        match self {
            Self::Request { body: shape, deadline } => {
                body(1, shape);
                bytes[24..32].copy_from_slice(&(deadline.as_millis() as u64).to_le_bytes());
            }
            Self::Answer { body: shape } => body(2, shape),
            Self::Refusal { code, reason } => {
                bytes[1] = 3;
                bytes[4..8].copy_from_slice(&(*reason as u32).to_le_bytes());
                bytes[24..26].copy_from_slice(&code.to_le_bytes());
            }
            Self::Stripe { call, answer, index, len } => {
                bytes[1] = 4;
                bytes[2] = *index;
                bytes[3] = u8::from(*answer);
                bytes[8..16].copy_from_slice(&call.to_le_bytes());
                bytes[16..24].copy_from_slice(&len.to_le_bytes());
            }
            Self::Hello { life } => {
                bytes[1] = 5;
                bytes[8..16].copy_from_slice(&life.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads a head; every value that this accepts has exactly these bytes.
    pub fn decode(bytes: &[u8; HEAD_BYTES]) -> Result<Self, FrameError> {
        if bytes[0] != VERSION {
            return Err(FrameError::Version(bytes[0]));
        }
        let word = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let [call, payload, last] = [8, 16, 24].map(|at| {
            let mut long = [0; 8];
            long.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(long)
        });
        let zero = |flags: &[u64]| {
            if flags.iter().all(|&value| value == 0) { Ok(()) } else { Err(FrameError::Reserved) }
        };
        match bytes[1] {
            1 => {
                zero(&[u64::from(bytes[3])])?;
                let body = Body { call, control: word as usize, payload, stripes: bytes[2] };
                Ok(Self::Request { body: body.checked()?, deadline: Duration::from_millis(last) })
            }
            2 => {
                zero(&[u64::from(bytes[3]), last])?;
                let body = Body { call, control: word as usize, payload, stripes: bytes[2] };
                Ok(Self::Answer { body: body.checked()? })
            }
            3 => {
                zero(&[u64::from(bytes[2]), u64::from(bytes[3]), call, payload, last >> 16])?;
                within("reason", u64::from(word), limits::REASON_BYTES as u64)?;
                Ok(Self::Refusal { code: last as u16, reason: word as usize })
            }
            4 => {
                zero(&[u64::from(word), last, u64::from(bytes[3] >> 1)])?;
                within("stripe", payload, limits::PAYLOAD_BYTES)?;
                if bytes[2] == 0 || bytes[2] >= limits::STRIPES {
                    return Err(FrameError::Stripes { stripes: bytes[2], payload });
                }
                Ok(Self::Stripe { call, answer: bytes[3] == 1, index: bytes[2], len: payload })
            }
            5 => {
                zero(&[u64::from(bytes[2]), u64::from(bytes[3]), u64::from(word), payload, last])?;
                Ok(Self::Hello { life: call })
            }
            kind => Err(FrameError::Kind(kind)),
        }
    }
}

impl Body {
    fn checked(self) -> Result<Self, FrameError> {
        within("control", self.control as u64, limits::CONTROL_BYTES as u64)?;
        within("payload", self.payload, limits::PAYLOAD_BYTES)?;
        let single = self.stripes == 1;
        let striped =
            (2..=limits::STRIPES).contains(&self.stripes) && self.payload > limits::STRIPE_FROM_BYTES as u64;
        if single || striped {
            Ok(self)
        } else {
            Err(FrameError::Stripes { stripes: self.stripes, payload: self.payload })
        }
    }

    /// Which bytes of the payload stripe `index` carries.
    pub fn stripe(&self, index: u8) -> Range<usize> {
        let (payload, stripes) = (self.payload as usize, usize::from(self.stripes));
        let part = payload.div_ceil(stripes);
        (part * usize::from(index)).min(payload)..(part * (usize::from(index) + 1)).min(payload)
    }
}

/// Number of streams for a payload of `len` bytes when at most `wanted` are to be used.
pub fn stripes_for(len: usize, wanted: u8) -> u8 {
    if len <= limits::STRIPE_FROM_BYTES { 1 } else { wanted.clamp(1, limits::STRIPES) }
}

fn within(part: &'static str, len: u64, limit: u64) -> Result<(), FrameError> {
    if len > limit { Err(FrameError::TooLarge { part, len, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body() -> impl Strategy<Value = Body> {
        (any::<u64>(), 0..=limits::CONTROL_BYTES, 0..=limits::PAYLOAD_BYTES, 1..=limits::STRIPES).prop_map(
            |(call, control, payload, wanted)| {
                let stripes = stripes_for(payload as usize, wanted);
                Body { call, control, payload, stripes }
            },
        )
    }

    fn head() -> impl Strategy<Value = Head> {
        prop_oneof![
            (body(), any::<u64>())
                .prop_map(|(body, ms)| Head::Request { body, deadline: Duration::from_millis(ms) }),
            body().prop_map(|body| Head::Answer { body }),
            (any::<u16>(), 0..=limits::REASON_BYTES)
                .prop_map(|(code, reason)| Head::Refusal { code, reason }),
            (any::<u64>(), any::<bool>(), 1..limits::STRIPES, 0..=limits::PAYLOAD_BYTES)
                .prop_map(|(call, answer, index, len)| Head::Stripe { call, answer, index, len }),
            any::<u64>().prop_map(|life| Head::Hello { life }),
        ]
    }

    proptest! {
        #[test]
        fn a_head_comes_back_from_its_bytes(head in head()) {
            prop_assert_eq!(Head::decode(&head.encode()), Ok(head));
        }

        #[test]
        fn any_bytes_are_refused_or_have_one_meaning(
            mut bytes in any::<[u8; HEAD_BYTES]>(),
            known in any::<bool>(),
            kind in 0u8..7,
            zero in any::<[bool; HEAD_BYTES]>(),
        ) {
            if known {
                bytes[0] = VERSION;
                bytes[1] = kind;
                // Mostly zeros, so that some are accepted.
                for (byte, zero) in bytes.iter_mut().zip(zero).skip(2) {
                    *byte = if zero { 0 } else { *byte % 8 };
                }
            }
            if let Ok(head) = Head::decode(&bytes) {
                prop_assert_eq!(head.encode(), bytes);
            }
        }

        #[test]
        fn stripes_cover_the_payload_once(body in body()) {
            let mut next = 0;
            for index in 0..body.stripes {
                let range = body.stripe(index);
                prop_assert_eq!(range.start, next);
                next = range.end;
            }
            prop_assert_eq!(next as u64, body.payload);
        }
    }

    #[test]
    fn lengths_over_the_limits_are_named() {
        let body = Body { call: 1, control: 0, payload: limits::PAYLOAD_BYTES + 1, stripes: 1 };
        let error = Head::decode(&Head::Answer { body }.encode()).unwrap_err();
        assert_eq!(error.code(), Refusal::TOO_LARGE);
        assert_eq!(error.to_string(), "payload of 1073741825 bytes is over the limit of 1073741824");
        let body = Body { call: 1, control: limits::CONTROL_BYTES + 1, payload: 0, stripes: 1 };
        assert!(matches!(
            Head::decode(&Head::Answer { body }.encode()),
            Err(FrameError::TooLarge { part: "control", .. })
        ));
    }

    #[test]
    fn golden_bytes_of_a_request() {
        let body = Body { call: 5, control: 7, payload: 1 << 20, stripes: 4 };
        let head = Head::Request { body, deadline: Duration::from_millis(1500) };
        let mut golden = [0; HEAD_BYTES];
        golden[..8].copy_from_slice(&[1, 1, 4, 0, 7, 0, 0, 0]);
        golden[8] = 5;
        golden[18] = 0x10;
        golden[24..26].copy_from_slice(&[0xdc, 0x05]);
        assert_eq!(head.encode(), golden);
    }
}
