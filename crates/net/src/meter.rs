//! Counts the bytes of messages, and holds sending to a rate.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wire::NodeId;

use crate::{PeerTraffic, Traffic, limits};

/// Counter of traffic.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    traffic: Mutex<Traffic>,
    speeds: Mutex<Speeds>,
}

/// Running means of speeds, bytes per second.
#[derive(Debug, Default)]
struct Speeds {
    all: Option<f64>,
    peers: BTreeMap<NodeId, f64>,
}

/// Share of the newest transfer in a running speed.
const NEWEST: f64 = 0.25;

impl Meter {
    /// `bytes` of payload took this long to reach a peer.
    pub(crate) fn reached(&self, peer: NodeId, bytes: usize, took: Duration) {
        if took.is_zero() {
            return;
        }
        let speed = bytes as f64 / took.as_secs_f64();
        let follow = |before: Option<f64>| before.map_or(speed, |before| before + NEWEST * (speed - before));
        let mut speeds = self.speeds.lock().unwrap_or_else(PoisonError::into_inner);
        speeds.all = Some(follow(speeds.all));
        let known = speeds.peers.get(&peer).copied();
        if known.is_some() || speeds.peers.len() < limits::COUNTED_PEERS {
            speeds.peers.insert(peer, follow(known));
        }
    }

    /// Speed to a peer, or to any.
    pub(crate) fn speed(&self, peer: Option<&NodeId>) -> Option<f64> {
        let speeds = self.speeds.lock().unwrap_or_else(PoisonError::into_inner);
        peer.map_or(speeds.all, |peer| speeds.peers.get(peer).copied())
    }

    pub(crate) fn sent(&self, peer: NodeId, control: usize, payload: usize) {
        self.count(peer, |traffic| {
            traffic.control_sent += control as u64;
            traffic.payload_sent += payload as u64;
        });
    }

    pub(crate) fn received(&self, peer: NodeId, control: usize, payload: usize) {
        self.count(peer, |traffic| {
            traffic.control_received += control as u64;
            traffic.payload_received += payload as u64;
        });
    }

    fn count(&self, peer: NodeId, add: impl Fn(&mut PeerTraffic)) {
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        add(&mut traffic.total);
        if traffic.peers.len() < limits::COUNTED_PEERS || traffic.peers.contains_key(&peer) {
            add(traffic.peers.entry(peer).or_default());
        }
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A token bucket over all that a node sends: its owner's `--upload`.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: f64,
    /// When the bucket will be empty again, if nothing more is sent.
    paid_until: Mutex<Instant>,
}

impl Pace {
    /// Bytes that are written between two looks at the bucket.
    pub(crate) const CHUNK_BYTES: usize = 64 << 10;
    /// Sending may run ahead of the rate by this much.
    const BURST: Duration = Duration::from_millis(100);

    pub(crate) fn new(bytes_per_second: NonZeroU64) -> Self {
        Self { bytes_per_second: bytes_per_second.get() as f64, paid_until: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` may be sent. Whoever drops the wait has paid nonetheless.
    pub(crate) async fn take(&self, bytes: usize) {
        let start = {
            let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
            let start = (*paid_until).max(Instant::now());
            *paid_until = start + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
            start
        };
        let ahead = start.saturating_duration_since(Instant::now());
        if ahead > Self::BURST {
            tokio::time::sleep(ahead.saturating_sub(Self::BURST)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_follows_what_was_measured() {
        let (meter, peers) = (Meter::default(), [NodeId([1; 32]), NodeId([2; 32])]);
        assert_eq!((meter.speed(None), meter.speed(Some(&peers[0]))), (None, None));
        meter.reached(peers[0], 1_000_000, Duration::from_millis(100));
        assert_eq!((meter.speed(Some(&peers[0])), meter.speed(Some(&peers[1]))), (Some(1e7), None));
        meter.reached(peers[1], 1_000_000, Duration::from_millis(50));
        assert_eq!((meter.speed(Some(&peers[1])), meter.speed(None)), (Some(2e7), Some(1.25e7)));
        meter.reached(peers[0], 1_000_000, Duration::ZERO);
        for _ in 0..50 {
            meter.reached(peers[0], 1_000_000, Duration::from_secs(1));
        }
        let slow = meter.speed(Some(&peers[0])).expect("measured");
        assert!((1e6..1.01e6).contains(&slow), "{slow}");
    }

    #[tokio::test]
    async fn a_pace_is_never_faster_than_its_rate_but_for_the_burst() {
        let pace = Pace::new(NonZeroU64::new(10_000_000).unwrap());
        let start = Instant::now();
        for _ in 0..50 {
            pace.take(100_000).await;
        }
        assert!(start.elapsed() >= Duration::from_millis(490).saturating_sub(Pace::BURST));
    }
}
