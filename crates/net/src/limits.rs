//! Every bound on what comes from outside, in one place.

use std::num::NonZeroU32;
use std::time::Duration;

/// Longest control part of a message, bytes: an envelope with the longest body, and room for the messages around it.
pub const CONTROL_BYTES: usize = 2 << 20;
/// Largest payload of a message, bytes.
pub const PAYLOAD_BYTES: u64 = wire::limits::FRAME_PAYLOAD_BYTES;
/// Longest reason of a refusal, bytes; a longer one is cut.
pub const REASON_BYTES: usize = 1024;
/// Longest deadline of a call; a longer one is cut to this.
pub const DEADLINE: Duration = Duration::from_mins(10);
/// Payloads up to this travel on the call's own stream, bytes.
pub const STRIPE_FROM_BYTES: usize = 256 << 10;
/// Most streams that one payload is spread over.
pub const STRIPES: u8 = 8;
/// How long a stripe waits for the call that it belongs to, or such a call for its stripe to arrive.
pub const STRIPE_CLAIM: Duration = Duration::from_secs(30);
/// Time for the head of a stream to arrive once the stream is open.
pub const HEAD: Duration = Duration::from_secs(30);
/// Calls in flight to one peer; more wait their turn.
pub const CALLS_PER_PEER: usize = 64;
/// Calls in flight to all peers together; more wait their turn.
pub const CALLS: usize = 1024;
/// Calls of one connection that are served at a time; the peer's others wait for stream credit.
pub const SERVED_PER_PEER: usize = 128;
/// Calls served at a time for all peers together; more wait.
pub const SERVED: usize = 4096;
/// Bytes of payloads that are being received at a time; senders of more wait.
pub const RECEIVE_BYTES: u64 = 4 << 30;
/// Connections kept with one peer; beyond this the oldest is closed.
pub const CONNECTIONS_PER_PEER: usize = 4;
/// Connections in all; beyond this newcomers are refused.
pub const CONNECTIONS: usize = 8192;
/// Time for a handshake, from the first packet to the peer's identity.
pub const HANDSHAKE: Duration = Duration::from_secs(30);
/// Silence after which a connection counts as lost.
pub const IDLE: Duration = Duration::from_secs(20);
/// Pause between keep-alive packets.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Time that closing waits for peers to hear of it.
pub const CLOSE: Duration = Duration::from_secs(3);
/// Direct addresses of one peer.
pub const DIRECT_ADDRESSES: usize = 16;
/// Longest relay URL, bytes.
pub const RELAY_URL_BYTES: usize = 256;
/// Longest printed ticket, bytes.
pub const TICKET_BYTES: usize = 2048;
/// Smallest payload that a link's speed is measured by, bytes: a smaller one is done before the path is full.
pub const MEASURED_BYTES: usize = 256 << 10;
/// Peers whose traffic is counted by name; the bytes of others enter the totals only.
pub const COUNTED_PEERS: usize = 65_536;
/// Bytes that one connection may have delivered without anyone reading them yet.
pub const CONNECTION_WINDOW_BYTES: u32 = 256 << 20;
/// How long a node that does not belong may keep its place in the relay when another one wants it.
pub const RELAY_NEWCOMER_STAY: Duration = Duration::from_mins(1);
/// Connections that a member may have with the relay.
pub const RELAY_CONNECTIONS: usize = 2;
/// How often the end of a connection is tried that is not there yet, and the pause between.
pub const RELAY_LEAVING_TRIES: u32 = 50;
/// See [`RELAY_LEAVING_TRIES`].
pub const RELAY_LEAVING_PAUSE: Duration = Duration::from_millis(100);
/// Connections of the relay that are being ended; more end by silence.
pub const RELAY_LEAVING: usize = 1024;
/// Least rate that the relay can be limited to, bytes per second: below it a node could not even keep a connection.
pub const RELAY_RATE_MIN: NonZeroU32 = NonZeroU32::new(16 << 10).unwrap();
