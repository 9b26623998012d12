//! What every link promises, run against both implementations.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use shoal_net::{Link, LinkError, MemoryNetwork, Message, PeerAddress, Refusal, limits};

use super::nodes::{Gate, Memory, Mirror, Network, Panic, Quic, Refuse, SOON, WhoAmI, key, pair};

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod memory {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&Memory(MemoryNetwork::new())).await;
            })*
        }
        mod quic {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&Quic).await;
            })*
        }
    };
}

contract!(
    messages_of_all_sizes_come_back,
    many_large_calls_at_once_keep_apart,
    the_callers_identity_is_proven,
    a_node_calls_itself,
    an_unknown_peer_is_named,
    nobody_at_the_address,
    somebody_else_at_the_address,
    a_refusal_keeps_code_and_reason,
    too_large_is_refused_before_sending,
    an_answer_too_large_is_refused,
    a_deadline_ends_the_call_and_the_handler,
    a_dropped_call_ends_the_handler,
    calls_to_one_peer_wait_their_turn,
    traffic_is_counted_on_both_sides,
    a_callee_calls_back_without_an_address,
    closing_ends_calls_on_both_sides,
    a_peer_comes_back_elsewhere,
    a_panicking_handler_ends_its_call_only,
);

fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect::<Vec<_>>().into()
}

async fn messages_of_all_sizes_come_back(network: &dyn Network) {
    let (a, b) = pair(network, Arc::new(Mirror), Arc::new(Mirror)).await;
    let edge = limits::STRIPE_FROM_BYTES;
    for (control, payload) in
        [(0, 0), (1, 0), (0, 1), (300, 40_000), (5, edge), (7, edge + 1), (1 << 20, 3), (9, 5_000_001)]
    {
        let message = Message::with_payload(pattern(control).to_vec(), pattern(payload));
        let answer = a.call(&b.id(), message, SOON).await.unwrap();
        let mut expected = pattern(control).to_vec();
        expected.reverse();
        assert!(answer.control == expected && answer.payload == pattern(payload), "{control} + {payload}");
    }
    a.close().await;
    b.close().await;
}

async fn many_large_calls_at_once_keep_apart(network: &dyn Network) {
    let (a, b) = pair(network, Arc::new(Mirror), Arc::new(Mirror)).await;
    let whole = pattern(2_000_000);
    let calls = (0..24usize).map(|index| {
        let payload = whole.slice(index * 1000..index * 1000 + 900_000 + index);
        let (a, to) = (&a, b.id());
        async move {
            let answer =
                a.call(&to, Message::with_payload([index as u8], payload.clone()), SOON).await.unwrap();
            assert_eq!(answer.control, [index as u8]);
            assert!(answer.payload == payload);
        }
    });
    join_all(calls).await;
}

async fn the_callers_identity_is_proven(network: &dyn Network) {
    let (a, b) = pair(network, Arc::new(Mirror), Arc::new(WhoAmI)).await;
    let answer = a.call(&b.id(), Message::default(), SOON).await.unwrap();
    assert_eq!(answer.control, key(1).node_id().0);
    assert_eq!(a.id(), key(1).node_id());
}

async fn a_node_calls_itself(network: &dyn Network) {
    let a = network.join(1, Arc::new(WhoAmI)).await;
    assert_eq!(a.call(&a.id(), Message::default(), SOON).await.unwrap().control, a.id().0);
}

async fn an_unknown_peer_is_named(network: &dyn Network) {
    let a = network.join(1, Arc::new(Mirror)).await;
    let stranger = key(9).node_id();
    let error = a.call(&stranger, Message::default(), SOON).await.unwrap_err();
    assert_eq!(error, LinkError::UnknownPeer(stranger));
    a.learn(stranger, PeerAddress::default());
    let error = a.call(&stranger, Message::default(), SOON).await.unwrap_err();
    assert_eq!(error, LinkError::UnknownPeer(stranger));
}

async fn nobody_at_the_address(network: &dyn Network) {
    let (a, b) = pair(network, Arc::new(Mirror), Arc::new(Mirror)).await;
    let (id, address) = (b.id(), b.address());
    b.close().await;
    drop(b);
    a.learn(id, address);
    let start = Instant::now();
    let error = a.call(&id, Message::default(), Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, LinkError::Timeout { .. } | LinkError::Unreachable { .. }), "{error}");
    assert!(start.elapsed() < SOON);
}

async fn somebody_else_at_the_address(network: &dyn Network) {
    let (a, b) = pair(network, Arc::new(Mirror), Arc::new(Mirror)).await;
    let claimed = key(3).node_id();
    a.learn(claimed, b.address());
    let error = a.call(&claimed, Message::default(), Duration::from_millis(500)).await.unwrap_err();
    assert!(matches!(error, LinkError::Timeout { .. } | LinkError::Unreachable { .. }), "{error}");
}

async fn a_refusal_keeps_code_and_reason(network: &dyn Network) {
    let (a, b) = pair(network, Arc::new(Mirror), Arc::new(Refuse(17, "no lease 5".into()))).await;
    let message = || Message::with_payload([1], pattern(1_000_000));
    let error = a.call(&b.id(), message(), SOON).await.unwrap_err();
    assert_eq!(error, LinkError::Refused { peer: b.id(), refusal: Refusal::new(17, "no lease 5") });
    let long = "ä".repeat(limits::REASON_BYTES);
    let c = network.join(3, Arc::new(Refuse(18, long.clone()))).await;
    a.learn(c.id(), c.address());
    let error = a.call(&c.id(), message(), SOON).await.unwrap_err();
    let cut = long[..limits::REASON_BYTES].to_owned();
    assert_eq!(error, LinkError::Refused { peer: c.id(), refusal: Refusal::new(18, cut) });
}

async fn too_large_is_refused_before_sending(network: &dyn Network) {
    let (a, b) = pair(network, Arc::new(Mirror), Arc::new(Mirror)).await;
    let error = a.call(&b.id(), Message::new(vec![0; limits::CONTROL_BYTES + 1]), SOON).await.unwrap_err();
    assert!(matches!(error, LinkError::TooLarge { part: "control", .. }), "{error}");
    assert_eq!(a.traffic().total.sent(), 0);
    a.call(&b.id(), Message::new(vec![0; limits::CONTROL_BYTES]), SOON).await.unwrap();
}

async fn an_answer_too_large_is_refused(network: &dyn Network) {
    struct Endless;
    #[async_trait::async_trait]
    impl shoal_net::Handler for Endless {
        async fn handle(&self, _: wire::NodeId, _: Message) -> Result<Message, Refusal> {
            Ok(Message::new(vec![0; limits::CONTROL_BYTES + 1]))
        }
    }
    let (a, b) = pair(network, Arc::new(Mirror), Arc::new(Endless)).await;
    let error = a.call(&b.id(), Message::default(), SOON).await.unwrap_err();
    let LinkError::Refused { refusal, .. } = error else { panic!("{error}") };
    assert_eq!(refusal.code, Refusal::TOO_LARGE);
}

async fn a_deadline_ends_the_call_and_the_handler(network: &dyn Network) {
    let gate = Gate::new();
    let (a, b) = pair(network, Arc::new(Mirror), Arc::clone(&gate) as _).await;
    let deadline = Duration::from_millis(400);
    let start = Instant::now();
    let error = a.call(&b.id(), Message::with_payload([1], pattern(400_000)), deadline).await.unwrap_err();
    assert!(start.elapsed() >= Duration::from_millis(390));
    // Both sides keep the deadline; whichever is first.
    match error {
        LinkError::Timeout { peer, deadline: named } => assert_eq!((peer, named), (b.id(), deadline)),
        LinkError::Refused { refusal, .. } => assert_eq!(refusal.code, Refusal::TOO_LATE),
        other => panic!("{other}"),
    }
    gate.until(|gate| gate.left.load(Ordering::SeqCst) == 1).await;
}

async fn a_dropped_call_ends_the_handler(network: &dyn Network) {
    let gate = Gate::new();
    let (a, b) = pair(network, Arc::new(Mirror), Arc::clone(&gate) as _).await;
    for payload in [0, 3_000_000] {
        let before = gate.left.load(Ordering::SeqCst);
        let (caller, to) = (Arc::clone(&a), b.id());
        let message = Message::with_payload([1], pattern(payload));
        let call = tokio::spawn(async move { caller.call(&to, message, SOON).await });
        gate.until(|gate| gate.inside.load(Ordering::SeqCst) == 1).await;
        call.abort();
        gate.until(|gate| gate.left.load(Ordering::SeqCst) == before + 1).await;
    }
    // Dropped in the middle of sending, too.
    let to = b.id();
    for micros in [50, 500, 2000, 5000] {
        let call = a.call(&to, Message::with_payload([1], pattern(8_000_000)), SOON);
        let _ = tokio::time::timeout(Duration::from_micros(micros), call).await;
    }
    gate.open.add_permits(100);
    a.call(&b.id(), Message::with_payload([1], pattern(600_000)), SOON).await.unwrap();
    gate.until(|gate| gate.inside.load(Ordering::SeqCst) == 0).await;
}

async fn calls_to_one_peer_wait_their_turn(network: &dyn Network) {
    let gate = Gate::new();
    let (a, b) = pair(network, Arc::new(Mirror), Arc::clone(&gate) as _).await;
    let count = limits::CALLS_PER_PEER * 3;
    let to = b.id();
    let calls = join_all((0..count).map(|_| a.call(&to, Message::new([1]), SOON)));
    let release = async {
        gate.until(|gate| gate.inside.load(Ordering::SeqCst) == limits::CALLS_PER_PEER).await;
        gate.open.add_permits(count);
    };
    let (answers, ()) = futures_util::future::join(calls, release).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(gate.most.load(Ordering::SeqCst), limits::CALLS_PER_PEER);
}

async fn traffic_is_counted_on_both_sides(network: &dyn Network) {
    let (a, b) = pair(network, Arc::new(Mirror), Arc::new(Mirror)).await;
    for _ in 0..3 {
        a.call(&b.id(), Message::with_payload([1; 10], pattern(700_000)), SOON).await.unwrap();
    }
    let (ours, theirs) = (a.traffic(), b.traffic());
    assert_eq!((ours.total.control_sent, ours.total.payload_sent), (30, 2_100_000));
    assert_eq!(ours.total.received(), 2_100_030);
    assert_eq!(ours.peers[&b.id()], ours.total);
    assert_eq!(theirs.peers[&a.id()], ours.total);
}

async fn a_callee_calls_back_without_an_address(network: &dyn Network) {
    let (a, b) = pair(network, Arc::new(WhoAmI), Arc::new(Mirror)).await;
    assert!(matches!(b.call(&a.id(), Message::default(), SOON).await, Err(LinkError::UnknownPeer(_))));
    a.call(&b.id(), Message::default(), SOON).await.unwrap();
    let answer = b.call(&a.id(), Message::with_payload([1], pattern(2_000_000)), SOON).await.unwrap();
    assert_eq!(answer.control, b.id().0);
}

async fn closing_ends_calls_on_both_sides(network: &dyn Network) {
    let gate = Gate::new();
    let (a, b) = pair(network, Arc::new(Mirror), Arc::clone(&gate) as _).await;
    let c = network.join(3, Arc::new(Mirror)).await;
    c.learn(b.id(), b.address());
    let spawn = |link: &Arc<dyn Link>| {
        let (link, to) = (Arc::clone(link), b.id());
        tokio::spawn(async move { link.call(&to, Message::new([1]), SOON).await })
    };
    let (ours, theirs) = (spawn(&a), spawn(&c));
    gate.until(|gate| gate.inside.load(Ordering::SeqCst) == 2).await;
    a.close().await;
    assert_eq!(ours.await.unwrap(), Err(LinkError::Closed));
    assert_eq!(a.call(&b.id(), Message::default(), SOON).await, Err(LinkError::Closed));
    gate.until(|gate| gate.left.load(Ordering::SeqCst) == 1).await;
    b.close().await;
    let error = theirs.await.unwrap().unwrap_err();
    assert!(matches!(error, LinkError::Unreachable { .. }), "{error}");
    gate.until(|gate| gate.inside.load(Ordering::SeqCst) == 0).await;
    a.close().await;
}

async fn a_peer_comes_back_elsewhere(network: &dyn Network) {
    let (a, b) = pair(network, Arc::new(Mirror), Arc::new(Mirror)).await;
    a.call(&b.id(), Message::new([1]), SOON).await.unwrap();
    b.close().await;
    drop(b);
    let b = network.join(2, Arc::new(WhoAmI)).await;
    a.learn(b.id(), b.address());
    assert_eq!(a.call(&b.id(), Message::default(), SOON).await.unwrap().control, a.id().0);
    // It may also come by itself: its new connection serves for calls back.
    drop(b);
    let b = network.join(2, Arc::new(Mirror)).await;
    b.learn(a.id(), a.address());
    b.call(&a.id(), Message::new([1]), SOON).await.unwrap();
    assert_eq!(a.call(&b.id(), Message::new([7, 8]), SOON).await.unwrap().control, [8, 7]);
}

async fn a_panicking_handler_ends_its_call_only(network: &dyn Network) {
    let (a, b) = pair(network, Arc::new(Mirror), Arc::new(Panic)).await;
    let error = a.call(&b.id(), Message::new([1]), SOON).await.unwrap_err();
    assert!(matches!(error, LinkError::Unreachable { .. }), "{error}");
    a.call(&b.id(), Message::default(), SOON).await.unwrap();
}
