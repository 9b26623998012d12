//! Folders, ports and logs that cannot be used: one clear line each.

use leader::LeaderError;
use shoal_node::folder::RunFolder;
use shoal_node::orchestrator::{self, Options, Orchestrator, OrchestratorError, Shutdown};
use store::LogStore;
use tokio::sync::mpsc;

use super::world::{World, soon};

pub(crate) fn options(folder: &RunFolder) -> Options {
    let (progress, _) = mpsc::channel(16);
    let loopback = vec![(std::net::Ipv4Addr::LOCALHOST, 0).into()];
    Options {
        folder: folder.clone(),
        bind: loopback,
        public: Vec::new(),
        congestion: None,
        relay: None,
        checkpoint_every: 0,
        progress,
    }
}

async fn refused(options: Options) -> String {
    let error = soon("a refusal", Box::pin(orchestrator::run(options, Shutdown::default())))
        .await
        .expect_err("refused");
    let line = error.to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

/// A folder that an orchestrator could run.
pub(crate) fn prepared(world: &World) -> RunFolder {
    let folder = world.run_folder();
    std::fs::write(folder.spec(), world.spec.canonical()).unwrap();
    shoal_node::key::create(&folder.key()).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_started_says_why_and_what_next() {
    let world = World::new();
    let folder = world.run_folder();
    let line = refused(options(&folder)).await;
    assert!(line.contains("is not a run's folder") && line.contains("shoal run new"), "{line}");

    let folder = prepared(&world);
    std::fs::write(folder.spec(), "[phasess]\nepochs = 1").unwrap();
    let line = refused(options(&folder)).await;
    assert!(line.contains("run.toml") && line.contains("phasess"), "{line}");
    std::fs::write(folder.spec(), world.spec.canonical()).unwrap();

    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut busy = options(&folder);
    busy.bind = vec![taken.local_addr().unwrap()];
    let line = refused(busy).await;
    assert!(line.contains("in use"), "{line}");

    let held = world.log().await;
    let line = refused(options(&folder)).await;
    assert!(line.contains("in use by another process"), "{line}");
    held.close().await;
    drop(held);

    std::fs::remove_file(folder.key()).unwrap();
    let line = refused(options(&folder)).await;
    assert!(line.contains("no key at"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_or_that_of_another_run_is_refused() {
    let world = World::new();
    let folder = prepared(&world);
    std::fs::write(folder.log(), vec![7; 8192]).unwrap();
    let line = refused(options(&folder)).await;
    assert!(line.contains("log.sqlite"), "{line}");
    for name in ["log.sqlite", "log.sqlite-wal", "log.sqlite-shm"] {
        drop(std::fs::remove_file(folder.root().join(name)));
    }

    // A log of a run with another seed.
    let mut other = World::new();
    other.spec.seed += 1;
    other.folder = tempfile::tempdir().unwrap();
    drop(Orchestrator::open(other.parts().await).await.expect("a new log"));
    let mut parts = world.parts().await;
    parts.log = other.log().await;
    let error = Orchestrator::open(parts).await.expect_err("another run's");
    assert!(matches!(error, OrchestratorError::Lead(LeaderError::Log(_))), "{error}");

    // One byte of one block changed in the store.
    let run = World::new();
    drop(Orchestrator::open(run.parts().await).await.expect("a new log"));
    let log = run.log().await;
    let mut block = log.read(wire::Seq(0), 1).await.unwrap()[0].to_vec();
    let middle = block.len() / 2;
    block[middle] ^= 1;
    let changed = store::MemoryLog::default();
    changed.append(wire::Term(0), wire::Seq(0), block.into()).await.unwrap();
    log.close().await;
    let mut parts = run.parts().await;
    parts.log = std::sync::Arc::new(changed);
    let error = Orchestrator::open(parts).await.expect_err("a changed block");
    assert!(matches!(error, OrchestratorError::Lead(LeaderError::Log(_))), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_floods_is_told_to_wait_and_others_are_heard() {
    const FLOOD: u64 = 3000;
    let mut world = World::new();
    let running = world.start().await;
    let (run, orchestrator) = (world.spec.run_id(), world.orchestrator());
    let shelf = super::script::Shelf::new(&world.spec, wire::StageIndex(0));
    let link = world.link(99, shelf, &running.address);
    let mut calls = tokio::task::JoinSet::new();
    for nonce in 0..FLOOD {
        let now = shoal_node::clock::Clock::default().now();
        let body = wire::to_bytes(&swarm::record::Statement::Heartbeat);
        let kind = swarm::record::STATEMENT_KIND;
        let envelope = wire::Envelope::sign(&super::world::key(99), run, kind, body, now, nonce);
        let message = shoal_node::rpc::Request::State(envelope).message(run);
        let link = std::sync::Arc::clone(&link);
        calls.spawn(async move { link.call(&orchestrator, message, super::world::PATIENCE).await });
    }
    // Meanwhile honest nodes train to the end.
    let scripts = world.scripts(&running.address).await;
    super::runs::finish(scripts).await;
    soon("the orchestrator", running.task).await.unwrap().expect("a clean end");
    let told = calls.join_all().await.into_iter().filter(|answer| match answer {
        Err(net::LinkError::Refused { refusal, .. }) => refusal.code == shoal_node::rpc::code::BUSY,
        _ => false,
    });
    assert!(told.count() > 0);
}
