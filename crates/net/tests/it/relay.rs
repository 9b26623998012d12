//! The embedded relay: within one process, and between two networks that reach only the orchestrator's address.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::Ipv6Addr;
use std::num::NonZeroU32;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shoal_net::relay::Admit;
use shoal_net::{EndpointOptions, Link, Message, PeerAddress, QuicLink, Relay, RelayOptions, Ticket};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use wire::{NodeId, RunId};

use super::nodes::{Mirror, SOON, WhoAmI, key};

fn anywhere() -> RelayOptions {
    RelayOptions { bind: "127.0.0.1:0".parse().unwrap(), admit: None, newcomers: 0, node_limit: None }
}

async fn join(seed: u8, relay: &Relay) -> QuicLink {
    let relays = vec![relay.url("127.0.0.1")];
    let options = EndpointOptions { relays, ..EndpointOptions::loopback(key(seed)) };
    QuicLink::bind(options, Arc::new(WhoAmI)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_meet_through_the_relay_alone() {
    let relay = Relay::start(anywhere()).await.unwrap();
    let (a, b) = (join(1, &relay).await, join(2, &relay).await);
    assert!(a.reached_relay(SOON).await && b.reached_relay(SOON).await);
    let address = b.address();
    assert_eq!(address.relay(), Some(&*relay.url("127.0.0.1")));
    a.learn(b.id(), PeerAddress::new(Vec::new(), address.relay()).unwrap());
    let payload = vec![7; 1 << 20];
    let answer = a.call(&b.id(), Message::with_payload([1], payload), SOON).await.unwrap();
    assert_eq!(answer.control, a.id().0);
    a.close().await;
    b.close().await;
    relay.stop().await.unwrap();
}

#[tokio::test]
async fn a_relay_serves_members_only() {
    let member = key(1).node_id();
    let admit = Arc::new(move |node: &NodeId| *node == member);
    let relay = Relay::start(RelayOptions { admit: Some(admit), ..anywhere() }).await.unwrap();
    let (inside, outside) = (join(1, &relay).await, join(2, &relay).await);
    assert!(inside.reached_relay(SOON).await);
    assert!(!outside.reached_relay(Duration::from_millis(500)).await);
    // It may come to belong: who hears of it must know where.
    assert_eq!(outside.address().relay(), inside.address().relay());
}

/// Who belongs to a relay; more may come to.
#[derive(Clone, Default)]
struct Members(Arc<Mutex<BTreeSet<NodeId>>>);

impl Members {
    fn add(&self, link: &QuicLink) {
        self.0.lock().unwrap().insert(link.id());
    }

    async fn relay(&self, newcomers: usize) -> Relay {
        let members = Arc::clone(&self.0);
        let admit = Some(Arc::new(move |node: &NodeId| members.lock().unwrap().contains(node)) as Admit);
        Relay::start(RelayOptions { admit, newcomers, ..anywhere() }).await.unwrap()
    }
}

/// Long enough for a connection on loopback to be there, if it comes at all.
const AT_ONCE: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_lets_few_strangers_in_and_members_always() {
    let members = Members::default();
    let relay = members.relay(1).await;
    let first = join(1, &relay).await;
    assert!(first.reached_relay(SOON).await);
    let second = join(2, &relay).await;
    assert!(!second.reached_relay(AT_ONCE).await, "one stranger too many");
    // Who has come to belong takes no stranger's place: the next one, which tries again, gets in.
    members.add(&first);
    assert!(second.reached_relay(SOON).await);
    let third = join(3, &relay).await;
    assert!(!third.reached_relay(AT_ONCE).await, "one stranger too many");
    // Members go on, and come in, whoever waits outside.
    first.learn(second.id(), PeerAddress::new(Vec::new(), second.address().relay()).unwrap());
    let answer = first.call(&second.id(), Message::new([1]), SOON).await.unwrap();
    assert_eq!(answer.control, first.id().0);
    members.0.lock().unwrap().insert(key(4).node_id());
    let fourth = join(4, &relay).await;
    assert!(fourth.reached_relay(SOON).await);
    assert!(!third.reached_relay(AT_ONCE).await, "still too many");
    // A stranger that goes makes room.
    second.close().await;
    assert!(third.reached_relay(SOON).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_again_leaves_its_place() {
    let members = Members::default();
    let relay = members.relay(1).await;
    let (before, again) = (join(1, &relay).await, join(1, &relay).await);
    assert!(before.reached_relay(SOON).await || again.reached_relay(SOON).await);
    assert!(again.reached_relay(SOON).await, "its own old place is not held against it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_takes_no_more_from_a_node_than_it_may() {
    const RATE: u32 = 1 << 20;
    const BYTES: usize = 3 << 20;
    let relay = Relay::start(RelayOptions { node_limit: NonZeroU32::new(RATE), ..anywhere() }).await.unwrap();
    let a = join(1, &relay).await;
    // Nothing but the relay connects an address of IPv4 with one of IPv6.
    let relays = vec![relay.url("127.0.0.1")];
    let bind = vec![(Ipv6Addr::LOCALHOST, 0).into()];
    let options = EndpointOptions { relays, bind, ..EndpointOptions::loopback(key(2)) };
    let b = QuicLink::bind(options, Arc::new(WhoAmI)).await.unwrap();
    assert!(a.reached_relay(SOON).await && b.reached_relay(SOON).await);
    a.learn(b.id(), PeerAddress::new(Vec::new(), b.address().relay()).unwrap());
    a.call(&b.id(), Message::new([1]), SOON).await.unwrap();
    let begun = Instant::now();
    a.call(&b.id(), Message::with_payload([1], vec![7; BYTES]), 3 * SOON).await.unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(a.is_relayed(&b.id()), Some(true));
    // A tenth of a second's worth may pass at once.
    let least = BYTES as f64 / f64::from(RATE) - 0.2;
    println!("{BYTES} bytes at {RATE} bytes/s in {seconds:.2} s, {least:.2} s at least");
    assert!(seconds > least, "{BYTES} bytes in {seconds} s");
}

#[tokio::test]
async fn a_busy_relay_port_is_one_clear_line() {
    let relay = Relay::start(anywhere()).await.unwrap();
    let taken = relay.socket();
    let error = Relay::start(RelayOptions { bind: taken, ..anywhere() }).await.unwrap_err();
    let line =
        format!("the relay's port {taken} is in use by another program: choose another port, or 0 for any");
    assert_eq!(error.to_string(), line);
    let error = QuicLink::bind(
        EndpointOptions { relays: vec!["nonsense".into()], ..EndpointOptions::loopback(key(1)) },
        Arc::new(Mirror),
    )
    .await
    .unwrap_err();
    assert!(error.to_string().contains("expected http://HOST:PORT"), "{error}");
}

/// Address of the orchestrator in the test of two networks.
const HUB: &str = "10.77.0.1";
/// Tells the test's own executable which part to play inside a network.
const PART: &str = "SHOAL_TEST_PART";

/// Two network namespaces with a cable to a third each; that one forwards nothing. The first calls the second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_networks_that_reach_only_the_orchestrator() {
    match std::env::var(PART).as_deref() {
        Ok("orchestrator") => return play_orchestrator().await,
        Ok("miner") => return play_miner().await,
        _ => {}
    }
    let Some(networks) = Networks::make().await else { return };
    let mut orchestrator = networks.start("hub", "orchestrator");
    let ticket = orchestrator.line().await;
    let mut callee = networks.start("b", "miner");
    let mut caller = networks.start("a", "miner");
    callee.say(&ticket).await;
    caller.say(&ticket).await;
    let (there, here) = (callee.line().await, caller.line().await);
    // Neither reaches the other's network at all.
    assert!(!networks.reaches("a", "10.77.2.2").await && !networks.reaches("b", "10.77.1.2").await);
    assert!(networks.reaches("a", HUB).await && networks.reaches("b", HUB).await);
    caller.say(&there).await;
    callee.say(&here).await;
    assert_eq!(caller.line().await, "relayed, 3000000 bytes came back");
    assert_eq!(callee.line().await, "relayed, 3000000 bytes came back");
}

/// Starts relay and link, prints the ticket, and serves until its standard input ends.
async fn play_orchestrator() {
    let bind = format!("{HUB}:0").parse().unwrap();
    let relay = Relay::start(RelayOptions { bind, ..anywhere() }).await.unwrap();
    let options =
        EndpointOptions { bind: vec![bind], relays: vec![relay.url(HUB)], ..EndpointOptions::new(key(1)) };
    let link = QuicLink::bind(options, Arc::new(Mirror)).await.unwrap();
    assert!(link.reached_relay(SOON).await);
    print(&Ticket { run: RunId([7; 32]), node: link.id(), address: link.address() }.to_string()).await;
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    while input.next_line().await.unwrap().is_some() {}
}

/// Joins by the ticket, prints who and where it is, learns of the other miner, and calls it.
async fn play_miner() {
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    let ticket: Ticket = input.next_line().await.unwrap().unwrap().parse().unwrap();
    let seed = (std::process::id() % 200) as u8 + 10;
    let relays = vec![ticket.address.relay().unwrap().to_owned()];
    let options = EndpointOptions { relays, ..EndpointOptions::new(key(seed)) };
    let link = QuicLink::bind(options, Arc::new(Mirror)).await.unwrap();
    link.learn(ticket.node, ticket.address.clone());
    link.call(&ticket.node, Message::new([1]), SOON).await.unwrap();
    assert!(link.reached_relay(SOON).await);
    print(&Ticket { run: ticket.run, node: link.id(), address: link.address() }.to_string()).await;
    let other: Ticket = input.next_line().await.unwrap().unwrap().parse().unwrap();
    link.learn(other.node, other.address);
    let payload = vec![5; 3_000_000];
    let answer = link.call(&other.node, Message::with_payload([1], payload.clone()), SOON).await.unwrap();
    assert!(answer.payload == payload);
    let path = if link.is_relayed(&other.node) == Some(true) { "relayed" } else { "direct" };
    print(&format!("{path}, {} bytes came back", answer.payload.len())).await;
    while input.next_line().await.unwrap().is_some() {}
}

/// Lines for the parent are marked: the test harness prints some of its own.
async fn print(line: &str) {
    let mut output = tokio::io::stdout();
    output.write_all(format!("\n=> {line}\n").as_bytes()).await.unwrap();
    output.flush().await.unwrap();
}

/// A part that is played inside a network.
struct Player {
    child: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Player {
    async fn line(&mut self) -> String {
        let reading = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("the part ended early");
                if let Some(line) = line.strip_prefix("=> ") {
                    return line.to_owned();
                }
            }
        };
        tokio::time::timeout(SOON * 2, reading).await.expect("a line comes soon")
    }

    async fn say(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }
}

/// Network namespaces `hub`, `a` and `b`; removed when dropped.
struct Networks(String);

impl Networks {
    async fn make() -> Option<Self> {
        let networks = Self(format!("shoal{}", std::process::id()));
        let ip = |command: String| async move {
            let output = Command::new("ip").args(command.split(' ')).output().await;
            match output {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => {
                    Err(format!("ip {command}: {}", String::from_utf8_lossy(&output.stderr).trim()))
                }
                Err(error) => Err(format!("ip {command}: {error}")),
            }
        };
        let name = |part: &str| format!("{}{part}", networks.0);
        let (hub, pid) = (name("hub"), std::process::id());
        if let Err(reason) = ip(format!("netns add {hub}")).await {
            _ = writeln!(
                std::io::stderr(),
                "skipped: no network namespaces here (needs root and iproute2): {reason}"
            );
            return None;
        }
        let mut commands =
            vec![format!("-n {hub} link set lo up"), format!("-n {hub} addr add {HUB}/32 dev lo")];
        for (index, part) in [(1, "a"), (2, "b")] {
            let (net, near, far) = (name(part), format!("n{pid}{part}"), format!("h{pid}{part}"));
            commands.extend([
                format!("netns add {net}"),
                format!("link add {near} netns {net} type veth peer name {far} netns {hub}"),
                format!("-n {net} addr add 10.77.{index}.2/24 dev {near}"),
                format!("-n {hub} addr add 10.77.{index}.1/24 dev {far}"),
                format!("-n {net} link set lo up"),
                format!("-n {net} link set {near} up"),
                format!("-n {hub} link set {far} up"),
                format!("-n {net} route add {HUB}/32 via 10.77.{index}.1"),
            ]);
        }
        for command in commands {
            if let Err(reason) = ip(command).await {
                _ = writeln!(std::io::stderr(), "skipped: the networks cannot be made here: {reason}");
                return None;
            }
        }
        Some(networks)
    }

    fn start(&self, network: &str, part: &str) -> Player {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &format!("{}{network}", self.0)])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "it::relay::two_networks_that_reach_only_the_orchestrator", "--nocapture"])
            .env(PART, part)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Player { child, lines }
    }

    /// Whether `network` has any route to `address`.
    async fn reaches(&self, network: &str, address: &str) -> bool {
        let output = Command::new("ip")
            .args(["netns", "exec", &format!("{}{network}", self.0), "ip", "route", "get", address])
            .output()
            .await
            .unwrap();
        output.status.success()
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for part in ["hub", "a", "b"] {
            let _ = std::process::Command::new("ip")
                .args(["netns", "del", &format!("{}{part}", self.0)])
                .output();
        }
    }
}
