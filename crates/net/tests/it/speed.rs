//! The speed of a link is measured by what it carries.

use std::num::NonZeroU64;
use std::sync::Arc;

use shoal_net::{Congestion, EndpointOptions, Link, Message, QuicLink, limits};

use super::nodes::{Mirror, SOON, key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paced_link_is_measured_at_its_pace() {
    let pace = 8_000_000;
    let mut options = EndpointOptions::loopback(key(1));
    options.upload_limit = NonZeroU64::new(pace);
    let slow = QuicLink::bind(options, Arc::new(Mirror)).await.unwrap();
    let quick = QuicLink::bind(EndpointOptions::loopback(key(2)), Arc::new(Mirror)).await.unwrap();
    slow.learn(quick.id(), quick.address());
    let call = async |bytes: usize| {
        let message = Message::with_payload("x", vec![7_u8; bytes]);
        slow.call(&quick.id(), message, SOON).await.unwrap();
    };
    call(limits::MEASURED_BYTES - 1).await;
    assert_eq!(slow.speed(None), None, "too small to say anything");
    // Striped and whole; the first ones take the burst.
    for bytes in [2 << 20, 2 << 20, 400 << 10, 2 << 20] {
        call(bytes).await;
    }
    let measured = async {
        loop {
            if let (Some(speed), Some(_)) = (slow.speed(Some(&quick.id())), quick.speed(Some(&slow.id()))) {
                return speed;
            }
            tokio::task::yield_now().await;
        }
    };
    let speed = tokio::time::timeout(SOON, measured).await.expect("measured soon");
    // Never far above its pace; below it as the machine is busy.
    assert!(speed > 0.0 && speed < 4.0 * pace as f64, "{speed}");
    assert_eq!(slow.speed(Some(&key(3).node_id())), None);
}

#[test]
fn what_leaves_the_machine_is_sent_by_the_control_that_stands_losses() {
    let loopback = EndpointOptions::loopback(key(1));
    assert_eq!(loopback.controller(), Congestion::Cubic);
    let mut both = EndpointOptions::new(key(1));
    assert_eq!(both.controller(), Congestion::Bbr3);
    both.bind.extend(&loopback.bind);
    assert_eq!(both.controller(), Congestion::Bbr3);
    both.congestion = Some(Congestion::Cubic);
    assert_eq!(both.controller(), Congestion::Cubic);
}
