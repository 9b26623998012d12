//! A raw peer that breaks the framing: refused with a reason, its connection closed, and others are served on.

use std::sync::Arc;

use iroh::endpoint::{Connection, ConnectionError, presets};
use iroh::{Endpoint, EndpointAddr, PublicKey, SecretKey};
use shoal_net::frame::{Body, HEAD_BYTES, Head};
use shoal_net::{ALPN, EndpointOptions, Handler, Link, LinkError, Message, QuicLink, Refusal, limits};

use super::nodes::{Mirror, Refuse, SOON, key};

/// A peer that speaks QUIC and not our framing.
async fn raw(to: &QuicLink) -> (Endpoint, Connection) {
    let endpoint = Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&[77; 32]))
        .alpns(vec![ALPN.to_vec()])
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .unwrap()
        .bind()
        .await
        .unwrap();
    let id = PublicKey::from_bytes(&to.id().0).unwrap();
    let address = EndpointAddr::new(id).with_ip_addr(to.address().direct()[0]);
    let connection = endpoint.connect(address, ALPN).await.unwrap();
    (endpoint, connection)
}

/// Sends `bytes` as a call (or as a stripe) and tells how the connection was closed.
async fn refused(bytes: Vec<u8>, stripe: bool) -> (u64, String) {
    let (closed, served) = refused_by(Arc::new(Mirror), bytes, stripe).await;
    served.expect("everyone else is served on");
    closed
}

/// [`refused`], by a node with another handler, and what that answers to a node that keeps the rules.
async fn refused_by(
    handler: Arc<dyn Handler>,
    bytes: Vec<u8>,
    stripe: bool,
) -> ((u64, String), Result<Message, LinkError>) {
    let link = QuicLink::bind(EndpointOptions::loopback(key(1)), handler).await.unwrap();
    let (endpoint, connection) = raw(&link).await;
    // Whoever stops listening for the answer gives the call up, so the receiving half is kept.
    let (mut stream, _receive) = if stripe {
        (connection.open_uni().await.unwrap(), None)
    } else {
        let (stream, receive) = connection.open_bi().await.unwrap();
        (stream, Some(receive))
    };
    stream.write_all(&bytes).await.unwrap();
    stream.finish().unwrap();
    let closed = tokio::time::timeout(SOON, connection.closed()).await.expect("it is closed soon");
    let ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed}") };
    let other = QuicLink::bind(EndpointOptions::loopback(key(2)), Arc::new(Mirror)).await.unwrap();
    other.learn(link.id(), link.address());
    let served = other.call(&link.id(), Message::new([1]), SOON).await;
    endpoint.close().await;
    ((close.error_code.into_inner(), String::from_utf8(close.reason.to_vec()).unwrap()), served)
}

fn request(control: usize, payload: u64, stripes: u8) -> Vec<u8> {
    let body = Body { call: 0, control, payload, stripes };
    Head::Request { body, deadline: SOON }.encode().to_vec()
}

#[tokio::test]
async fn what_is_of_another_run_ends_the_connection() {
    let handler = Arc::new(Refuse(Refusal::FOREIGN, "for run a, this is run b".to_owned()));
    let ((code, reason), other) = refused_by(handler, request(0, 0, 1), false).await;
    assert_eq!((code, reason.as_str()), (u64::from(Refusal::FOREIGN), "for run a, this is run b"));
    assert!(matches!(other, Err(LinkError::Refused { refusal, .. }) if refusal.code == Refusal::FOREIGN));
}

#[tokio::test]
async fn another_version_is_refused() {
    let mut bytes = request(0, 0, 1);
    bytes[0] = 9;
    let (code, reason) = refused(bytes, false).await;
    assert_eq!(code, u64::from(Refusal::VERSION));
    assert_eq!(reason, "frame version 9, this node speaks 1: update the older one");
}

#[tokio::test]
async fn lengths_over_the_limit_are_refused_before_they_are_allocated() {
    for (bytes, part) in [
        (request(0, u64::MAX, 1), "payload"),
        (request(0, limits::PAYLOAD_BYTES + 1, 1), "payload"),
        (request(limits::CONTROL_BYTES + 1, 0, 1), "control"),
    ] {
        let (code, reason) = refused(bytes, false).await;
        assert_eq!(code, u64::from(Refusal::TOO_LARGE));
        assert!(reason.starts_with(part) && reason.contains("over the limit"), "{reason}");
    }
}

#[tokio::test]
async fn truncated_frames_are_refused() {
    let (code, reason) = refused(request(0, 0, 1)[..20].to_vec(), false).await;
    assert_eq!(
        (code, &*reason),
        (u64::from(Refusal::MALFORMED), "frame truncated: head ended after 20 of 32 bytes")
    );
    let (_, reason) = refused([request(8, 0, 1), vec![1; 5]].concat(), false).await;
    assert_eq!(reason, "frame truncated: control ended after 5 of 8 bytes");
    let (_, reason) = refused([request(0, 1000, 1), vec![1; 999]].concat(), false).await;
    assert_eq!(reason, "frame truncated: payload ended after 999 of 1000 bytes");
}

#[tokio::test]
async fn surplus_bytes_are_refused() {
    let (code, reason) = refused([request(1, 1, 1), vec![1; 3]].concat(), false).await;
    assert_eq!((code, &*reason), (u64::from(Refusal::MALFORMED), "bytes follow the end of the frame"));
}

#[tokio::test]
async fn wrong_heads_are_refused() {
    for kind in [0, 6, 255] {
        let mut bytes = request(0, 0, 1);
        bytes[1] = kind;
        assert_eq!(refused(bytes, false).await.1, format!("frame of unknown kind {kind}"));
    }
    let answer = Head::Answer { body: Body { call: 0, control: 0, payload: 0, stripes: 1 } };
    assert_eq!(refused(answer.encode().to_vec(), false).await.1, "not a request at the head of a call");
    let hello = Head::Hello { life: 7 };
    assert_eq!(refused(hello.encode().to_vec(), false).await.1, "not a request at the head of a call");
    assert_eq!(refused(request(0, 0, 1), true).await.1, "a call's head on a stripe's stream");
    assert_eq!(refused(request(0, 10, 3), false).await.1, "3 stripes for a payload of 10 bytes");
    let mut flagged = request(0, 0, 1);
    flagged[3] = 1;
    assert_eq!(refused(flagged, false).await.1, "frame head with bits set that have no meaning");
}

#[tokio::test]
async fn stripes_that_do_not_fit_their_call_are_refused() {
    let link = QuicLink::bind(EndpointOptions::loopback(key(1)), Arc::new(Mirror)).await.unwrap();
    for (index, len, twice, expected) in
        [(1, 5, false, "a stripe is not as long as its call says"), (1, 500_000, true, "a stripe came twice")]
    {
        let (endpoint, connection) = raw(&link).await;
        let stripe = Head::Stripe { call: 0, answer: false, index, len }.encode();
        let (mut streams, mut answers) = (Vec::new(), Vec::new());
        for _ in 0..=u8::from(twice) {
            let mut stream = connection.open_uni().await.unwrap();
            stream.write_all(&stripe).await.unwrap();
            streams.push(stream);
        }
        if !twice {
            let (mut stream, answer) = connection.open_bi().await.unwrap();
            stream.write_all(&request(0, 1_000_000, 2)).await.unwrap();
            streams.push(stream);
            answers.push(answer);
        }
        let closed = tokio::time::timeout(SOON, connection.closed()).await.expect("it is closed soon");
        let ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed}") };
        assert_eq!(close.reason, expected.as_bytes());
        endpoint.close().await;
    }
}

#[tokio::test]
async fn a_callee_that_breaks_the_rules_is_named_to_the_caller() {
    let endpoint = Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&key(5).to_bytes()))
        .alpns(vec![ALPN.to_vec()])
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .unwrap()
        .bind()
        .await
        .unwrap();
    let socket = endpoint.bound_sockets()[0];
    let rogue = tokio::spawn(async move {
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        let (mut stream, _receive) = connection.accept_bi().await.unwrap();
        let body = Body { call: 99, control: 0, payload: 0, stripes: 1 };
        stream.write_all(&Head::Answer { body }.encode()).await.unwrap();
        connection.closed().await
    });
    let link = QuicLink::bind(EndpointOptions::loopback(key(1)), Arc::new(Mirror)).await.unwrap();
    let id = key(5).node_id();
    link.learn(id, shoal_net::PeerAddress::new(vec![socket], None).unwrap());
    let error = link.call(&id, Message::new([1]), SOON).await.unwrap_err();
    let expected = shoal_net::LinkError::Malformed { peer: id, reason: "an answer to another call".into() };
    assert_eq!(error, expected);
    assert!(matches!(rogue.await.unwrap(), ConnectionError::ApplicationClosed(_)));
}

#[tokio::test]
async fn a_busy_port_is_one_clear_line() {
    let first = QuicLink::bind(EndpointOptions::loopback(key(1)), Arc::new(Mirror)).await.unwrap();
    let taken = first.sockets()[0];
    let options = EndpointOptions { bind: vec![taken], ..EndpointOptions::loopback(key(2)) };
    let error = QuicLink::bind(options, Arc::new(Mirror)).await.unwrap_err();
    let line = format!("{taken} is in use by another program: choose another port, or 0 for any");
    assert_eq!(error.to_string(), line);
}

/// Random bytes never panic a node nor keep it from serving others (the frames' own property tests are in `shoal_net::frame`).
#[tokio::test]
async fn noise_is_survived() {
    let link = QuicLink::bind(EndpointOptions::loopback(key(1)), Arc::new(Mirror)).await.unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..20 {
        let (endpoint, connection) = raw(&link).await;
        let mut bytes = vec![0; HEAD_BYTES + round * 7];
        for byte in &mut bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
        bytes[0] = 1;
        bytes[1] %= 5;
        let (mut stream, _receive) = connection.open_bi().await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        drop(stream);
        let mut uni = connection.open_uni().await.unwrap();
        let _ = uni.write_all(&bytes).await;
        drop(endpoint);
    }
    let other = QuicLink::bind(EndpointOptions::loopback(key(2)), Arc::new(Mirror)).await.unwrap();
    other.learn(link.id(), link.address());
    other.call(&link.id(), Message::new([1]), SOON).await.unwrap();
}
