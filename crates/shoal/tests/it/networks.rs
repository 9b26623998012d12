//! Two networks that reach only the orchestrator: miners join and train through its relay, and again after it was killed.

use std::io::Write as _;
use std::process::Command;

use super::audit::Audit;
use super::binary::Place;
use super::crew::Crew;

/// Address of the orchestrator.
const HUB: &str = "10.78.0.1";

const SPEC: &str = r#"
name = "networks"
stages = 2
[model]
preset = "micro"
[batch]
sequences = 2
micro_batches_per_epoch = 12
[inner]
steps = 3
[phases]
epochs = 3
miners_min = 1
heartbeat_ms = 200
lost_after_ms = 20000
"#;

/// Network namespaces `hub`, `a` and `b`, each of the two with a cable to the first, which forwards nothing; removed
/// when dropped.
struct Networks(String);

fn ip(command: &str) -> Result<(), String> {
    match Command::new("ip").args(command.split(' ')).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("ip {command}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("ip {command}: {error}")),
    }
}

impl Networks {
    fn make() -> Result<Self, String> {
        let pid = std::process::id();
        let networks = Self(format!("shoal-cli-{pid}"));
        let hub = networks.name("hub");
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link set lo up"))?;
        ip(&format!("-n {hub} addr add {HUB}/32 dev lo"))?;
        for (index, part) in [(1, "a"), (2, "b")] {
            let (net, near, far) = (networks.name(part), format!("s{pid}{part}"), format!("t{pid}{part}"));
            ip(&format!("netns add {net}"))?;
            ip(&format!("link add {near} netns {net} type veth peer name {far} netns {hub}"))?;
            ip(&format!("-n {net} addr add 10.78.{index}.2/24 dev {near}"))?;
            ip(&format!("-n {hub} addr add 10.78.{index}.1/24 dev {far}"))?;
            ip(&format!("-n {net} link set lo up"))?;
            ip(&format!("-n {net} link set {near} up"))?;
            ip(&format!("-n {hub} link set {far} up"))?;
            ip(&format!("-n {net} route add {HUB}/32 via 10.78.{index}.1"))?;
        }
        Ok(networks)
    }

    fn name(&self, part: &str) -> String {
        format!("{}{part}", self.0)
    }

    /// Whether `network` has any route to `address`.
    fn reaches(&self, network: &str, address: &str) -> bool {
        ip(&format!("netns exec {} ip route get {address}", self.name(network))).is_ok()
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for part in ["hub", "a", "b"] {
            drop(ip(&format!("netns del {}", self.name(part))));
        }
    }
}

fn within(network: &str) -> [&str; 4] {
    ["ip", "netns", "exec", network]
}

#[test]
fn miners_that_reach_only_the_orchestrator_train_through_its_relay() {
    let networks = match Networks::make() {
        Ok(networks) => networks,
        Err(reason) => {
            _ = writeln!(
                std::io::stderr(),
                "skipped: no network namespaces here (needs root and iproute2): {reason}"
            );
            return;
        }
    };
    assert!(!networks.reaches("a", "10.78.2.2") && !networks.reaches("b", "10.78.1.2"));
    assert!(networks.reaches("a", HUB) && networks.reaches("b", HUB));

    let place = Place::new();
    place.write_text("text/a.txt", 60_000);
    place.write_text("text/b.txt", 60_000);
    std::fs::write(place.path("spec.toml"), SPEC).expect("a spec");
    place.run(&["run", "new", "run", "--data", "text", "--spec", "spec.toml"]).good();
    let mut crew = Crew::new(place, "warn");
    let (hub, a, b) = (networks.name("hub"), networks.name("a"), networks.name("b"));
    let bind = format!("{HUB}:7700");
    let args = ["--json", "orchestrator", "run", "--bind", &bind];
    let orchestrator = crew.start("orchestrator", &within(&hub), &args);
    let ticket = crew.until("a ticket", |said| {
        said.is("listening").and_then(|event| event["ticket"].as_str().map(str::to_owned))
    });
    let miner = |crew: &mut Crew, network: &str, stage: &str, name: &str| {
        let mut args = vec!["miner", &ticket, "--dir", name, "--stage", stage, "--threads", "1"];
        if name == "tail" {
            args.extend(["--congestion", "cubic"]);
        }
        crew.start(name, &within(network), &args)
    };
    let head = miner(&mut crew, &a, "0", "head");
    let tail = miner(&mut crew, &b, "1", "tail");
    crew.until("a merge", |said| said.is("merged"));
    // The relay comes back at its port, and the nodes find it there.
    crew.kill(orchestrator);
    crew.start_again(orchestrator);
    let mut summary = None;
    for member in [orchestrator, head, tail] {
        let status = crew.end(member, |said| {
            if let Some(event) = said.is("summary") {
                summary = Some(event);
            }
        });
        assert!(status.success(), "{status}: {}", crew.tails());
    }
    let summary = summary.expect("a summary");
    assert_eq!(summary["epochs"], 3, "{summary}");
    assert!(summary["activation_bytes"].as_f64() > Some(0.0), "{summary}");
    crew.place.run(&["run", "log", "run", "log"]).good();
    let audit = Audit::of(&std::fs::read(crew.place.path("log")).expect("the log"));
    assert_eq!(audit.resumed, 1);
    assert!(audit.merged.len() > 2 * 12, "{} cells merged", audit.merged.len());
}

#[test]
fn a_ticket_names_the_address_that_others_reach_it_at() {
    let place = Place::new();
    place.write_text("text/a.txt", 60_000);
    place.run(&["run", "new", "run", "--data", "text", "--preset", "micro"]).good();
    let mut crew = Crew::new(place, "warn");
    let args = ["--json", "orchestrator", "run", "--bind", "127.0.0.1:0", "--public", "203.0.113.9:7000"];
    crew.start("orchestrator", &[], &args);
    let ticket = crew.until("a ticket", |said| {
        said.is("listening").and_then(|event| event["ticket"].as_str().map(str::to_owned))
    });
    let ticket: net::Ticket = ticket.parse().expect("a ticket");
    assert_eq!(
        ticket.address.direct(),
        ["203.0.113.9:7000".parse::<std::net::SocketAddr>().expect("an address")]
    );
    let relay = ticket.address.relay().expect("it embeds a relay");
    assert!(relay.starts_with("http://203.0.113.9:"), "{relay}");
}
