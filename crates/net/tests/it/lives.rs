//! A node that dies without a word and is started again: its peers do not wait for the dead one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_net::{EndpointOptions, Handler, Link, LinkError, Message, PeerAddress, QuicLink, limits};
use tokio::runtime::Runtime;

use super::nodes::{Gate, Mirror, SOON, key};

/// Far less than the silence after which a connection counts as lost.
const AT_ONCE: Duration = Duration::from_secs(5);

/// One life of node 2, with threads of its own.
struct Life {
    runtime: Runtime,
    link: Arc<QuicLink>,
}

impl Life {
    fn begin(bind: SocketAddr, handler: Arc<dyn Handler>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let options = EndpointOptions { bind: vec![bind], ..EndpointOptions::loopback(key(2)) };
        let link = runtime.block_on(QuicLink::bind(options, handler)).unwrap();
        Self { runtime, link: Arc::new(link) }
    }

    fn address(&self) -> PeerAddress {
        self.link.address()
    }

    /// Ends as a killed process does: nothing is said, and the socket closes.
    fn die(self) -> SocketAddr {
        let socket = self.link.sockets()[0];
        let Self { runtime, link } = self;
        runtime.shutdown_timeout(SOON);
        drop(link);
        socket
    }
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Node 1, with a call to node 2 that waits in vain.
struct Caller {
    runtime: Runtime,
    link: Arc<QuicLink>,
    waiting: tokio::task::JoinHandle<Result<Message, LinkError>>,
}

impl Caller {
    fn of(first: &Life, gate: &Gate) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let bound = QuicLink::bind(EndpointOptions::loopback(key(1)), Arc::new(Mirror));
        let link = Arc::new(runtime.block_on(bound).unwrap());
        link.learn(first.link.id(), first.address());
        let (calling, to) = (Arc::clone(&link), first.link.id());
        let waiting = runtime.spawn(async move { calling.call(&to, Message::new([1]), SOON * 10).await });
        runtime.block_on(gate.until(|gate| gate.inside.load(std::sync::atomic::Ordering::SeqCst) == 1));
        Self { runtime, link, waiting }
    }

    /// The call that waits fails at once, and the next one is answered by the new life.
    fn finds(self, second: &Life) {
        let Self { runtime, link, waiting } = self;
        let to = second.link.id();
        runtime.block_on(async {
            let failed = tokio::time::timeout(AT_ONCE, waiting).await.expect("at once").unwrap();
            assert!(matches!(failed, Err(LinkError::Unreachable { .. })), "{failed:?}");
            let answer = link.call(&to, Message::new([1, 2]), AT_ONCE).await.unwrap();
            assert_eq!(answer.control, [2, 1]);
            link.close().await;
        });
    }
}

#[test]
fn a_node_that_is_back_at_its_port_is_found_at_once() {
    assert!(AT_ONCE * 2 < limits::IDLE);
    let gate = Gate::new();
    let first = Life::begin(any_port(), Arc::clone(&gate) as Arc<dyn Handler>);
    let caller = Caller::of(&first, &gate);
    let socket = first.die();
    let second = Life::begin(socket, Arc::new(Mirror));
    second.link.learn(caller.link.id(), caller.link.address());
    let _inside = second.runtime.enter();
    second.link.reach(caller.link.id());
    caller.finds(&second);
}

#[test]
fn a_node_that_is_back_elsewhere_is_found_once_it_calls() {
    let gate = Gate::new();
    let first = Life::begin(any_port(), Arc::clone(&gate) as Arc<dyn Handler>);
    let caller = Caller::of(&first, &gate);
    first.die();
    let second = Life::begin(any_port(), Arc::new(Mirror));
    second.link.learn(caller.link.id(), caller.link.address());
    let to = caller.link.id();
    let called = second.link.call(&to, Message::new([3]), AT_ONCE);
    assert_eq!(second.runtime.block_on(called).unwrap().control, [3]);
    caller.finds(&second);
}
