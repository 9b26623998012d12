//! Whole runs over the in-memory link.

use std::sync::Arc;

use ledger::fold::Signatures;
use ledger::verify::Replay;
use net::{EndpointOptions, Link, QuicLink};
use shoal_node::orchestrator::{self, RelayFor, Shutdown};
use shoal_node::progress::Progress;
use store::LogStore;
use swarm::state::{Phase, State};
use tokio::task::JoinSet;
use wire::{Epoch, Seq};

use super::script::{Script, Shelf, weights};
use super::world::{PATIENCE, World, soon};

/// Folds the whole log from its store.
pub(crate) async fn replay(world: &World, log: &Arc<dyn LogStore>) -> Replay<State> {
    let mut fold = Replay::new(world.spec.run_id(), world.orchestrator());
    loop {
        let blocks = log.read(fold.next_seq(), 1000).await.unwrap();
        if blocks.is_empty() {
            return fold;
        }
        for block in blocks {
            fold.push(&block, Signatures::Check).expect("an honest log");
        }
    }
}

/// All scripts at the run's end; a run that does not end says where it stands.
pub(crate) async fn finish(scripts: Vec<Script>) -> Vec<Script> {
    let log = scripts[0].log.clone();
    let mut running = JoinSet::new();
    for script in scripts {
        running.spawn(script.run());
    }
    let ended = tokio::time::timeout(PATIENCE, running.join_all()).await;
    let stuck = |view: &shoal_node::follow::View| {
        panic!("stuck in {:?}: {:?}", view.state.phase(), view.state.nodes())
    };
    ended.unwrap_or_else(|_| log.read(stuck))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_trains_merges_keeps_its_weights_and_ends() {
    let mut world = World::new();
    let mut running = world.start().await;
    let scripts = world.scripts(&running.address).await;
    let scripts = finish(scripts).await;
    let summary = soon("the orchestrator", running.task).await.unwrap().expect("a clean end");

    assert_eq!(summary.epochs, 2);
    assert_eq!(summary.tokens, 2 * 8 * world.spec.tokens_per_micro_batch());
    assert_eq!((summary.loss_first, summary.loss_last), (Some(2.0), Some(2.0)));
    assert_eq!(summary.activation_ratio, Some(64.0));
    assert_eq!(summary.coverage, Some(1.0));

    // Every follower folded the log that the store holds.
    let log = world.log().await;
    let fold = replay(&world, &log).await;
    let state = fold.state().unwrap();
    assert_eq!(state.phase(), Phase::Finished { epochs: 2 });
    for script in &scripts {
        script.log.read(|view| {
            assert_eq!(view.state.phase(), Phase::Finished { epochs: 2 });
            assert_eq!(view.run_spec[..], *world.spec.canonical().as_bytes());
        });
        for (seq, _) in script.acknowledged.lock().unwrap().iter() {
            assert!(*seq < fold.next_seq());
        }
    }

    // The checkpoint holds the last merged weights.
    let folder = summary.checkpoint.expect("a checkpoint");
    let checkpoint = model::checkpoint::Checkpoint::open(folder.as_ref()).expect("it opens");
    for stage in world.spec.stage_specs() {
        assert_eq!(checkpoint.weights(&stage).unwrap(), weights(stage.parameters(), Epoch(2)));
    }
    // Two epochs of weights stay, no more: two stages, momentum-free.
    let blobs = world.parts_blobs().await;
    assert_eq!(blobs.len(), 4);

    let mut events = Vec::new();
    while let Ok(event) = running.events.try_recv() {
        events.push(event);
    }
    let count = |wanted: fn(&Progress) -> bool| events.iter().filter(|event| wanted(event)).count();
    assert_eq!(count(|event| matches!(event, Progress::Joined { .. })), 2);
    assert_eq!(count(|event| matches!(event, Progress::Epoch { .. })), 2);
    assert_eq!(count(|event| matches!(event, Progress::Merged { .. })), 2);
    assert!(count(|event| matches!(event, Progress::Status(_))) > 0);
    assert!(matches!(events.last(), Some(Progress::Summary(_))));
    assert!(log.last().await.unwrap() > Some(Seq(10)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_after_the_merge() {
    let mut world = World::new();
    world.spec.phases.epochs = 1000;
    let running = world.start().await;
    let scripts = world.scripts(&running.address).await;
    let mut log = scripts[0].log.clone();
    let drain = running.shutdown.drain.clone();
    let watch = tokio::spawn(async move {
        let trains = log.until(PATIENCE, |view| {
            matches!(view.state.phase(), Phase::Training { epoch } if epoch > Epoch(0)).then_some(())
        });
        trains.await.expect("the follower lives").expect("it trains");
        drain.cancel();
    });
    finish(scripts).await;
    watch.await.unwrap();
    let summary = soon("the orchestrator", running.task).await.unwrap().expect("a clean end");
    assert!(summary.epochs >= 2 && summary.epochs < 1000, "{}", summary.epochs);
    assert!(summary.checkpoint.is_some());

    // Started again, it goes on where it stopped.
    let running = world.start().await;
    let scripts = world.scripts(&running.address).await;
    let mut log = scripts[0].log.clone();
    let (drain, before) = (running.shutdown.drain.clone(), summary.epochs);
    let watch = tokio::spawn(async move {
        let trains = log.until(PATIENCE, |view| {
            matches!(view.state.phase(), Phase::Training { epoch } if epoch.0 > before).then_some(())
        });
        trains.await.expect("the follower lives").expect("it trains");
        drain.cancel();
    });
    finish(scripts).await;
    watch.await.unwrap();
    let again = soon("the orchestrator", running.task).await.unwrap().expect("a clean end");
    assert!(again.epochs > summary.epochs && again.tokens > summary.tokens);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_over_quic_from_a_folder_and_a_ticket() {
    let mut world = World::new();
    let folder = super::bad_input::prepared(&world);
    let (progress, mut events) = tokio::sync::mpsc::channel(4096);
    let mut options = super::bad_input::options(&folder);
    options.progress = progress;
    options.relay = Some(RelayFor::new((std::net::Ipv4Addr::LOCALHOST, 0).into()));
    let task = tokio::spawn(orchestrator::run(options, Shutdown::default()));
    let Some(Progress::Listening(listening)) = soon("a ticket", events.recv()).await else {
        panic!("the ticket comes first: {:?}", task.await);
    };
    let ticket: net::Ticket = listening.ticket.parse().expect("a ticket");
    assert_eq!(ticket.run, world.spec.run_id());
    assert!(ticket.address.relay().is_some());
    let mut scripts = Vec::new();
    for stage in 0..world.spec.stages() {
        let key = super::world::key(10 + stage as u8);
        let shelf = Shelf::new(&world.spec, wire::StageIndex(stage as u16));
        let answers: Arc<dyn net::Handler> = Arc::clone(&shelf) as Arc<dyn net::Handler>;
        let link = QuicLink::bind(EndpointOptions::loopback(key.clone()), answers).await.unwrap();
        link.learn(ticket.node, ticket.address.clone());
        let (node, stop) = (ticket.node, world.stop.clone());
        scripts.push(Script::start(key, &shelf, Arc::new(link), node, &mut world.tasks, &stop).await);
    }
    finish(scripts).await;
    let summary = soon("the orchestrator", task).await.unwrap().expect("a clean end");
    assert_eq!((summary.epochs, summary.coverage), (2, Some(1.0)));
    assert!(summary.checkpoint.is_some_and(|path| std::path::Path::new(&path).exists()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_is_for_the_nodes_of_the_run_and_few_others() {
    let mut world = World::new();
    let folder = super::bad_input::prepared(&world);
    let (progress, mut events) = tokio::sync::mpsc::channel(4096);
    let mut options = super::bad_input::options(&folder);
    options.progress = progress;
    options.relay =
        Some(RelayFor { newcomers: 1, ..RelayFor::new((std::net::Ipv4Addr::LOCALHOST, 0).into()) });
    let shutdown = Shutdown::default();
    let task = tokio::spawn(orchestrator::run(options, shutdown.clone()));
    let Some(Progress::Listening(listening)) = soon("a ticket", events.recv()).await else {
        panic!("the ticket comes first: {:?}", task.await);
    };
    let ticket: net::Ticket = listening.ticket.parse().expect("a ticket");
    // The orchestrator itself is no stranger there.
    let relays: Vec<String> = ticket.address.relay().map(str::to_owned).into_iter().collect();
    assert_eq!(relays.len(), 1);
    let shelf = Shelf::new(&world.spec, wire::StageIndex(0));
    let join = async |seed: u8| {
        let options =
            EndpointOptions { relays: relays.clone(), ..EndpointOptions::loopback(super::world::key(seed)) };
        let link = QuicLink::bind(options, Arc::clone(&shelf) as Arc<dyn net::Handler>).await.unwrap();
        link.learn(ticket.node, ticket.address.clone());
        Arc::new(link)
    };
    let miner = join(10).await;
    assert!(miner.reached_relay(PATIENCE).await);
    let stranger = join(11).await;
    let at_once = std::time::Duration::from_millis(500);
    assert!(!stranger.reached_relay(at_once).await, "one stranger too many");
    // Once the miner is in the run, there is room for the next that comes.
    let (key, stop) = (super::world::key(10), world.stop.clone());
    let script = Script::start(key, &shelf, miner, ticket.node, &mut world.tasks, &stop).await;
    let script = tokio::spawn(script.run());
    assert!(stranger.reached_relay(PATIENCE).await);
    script.abort();
    shutdown.stop.cancel();
    soon("the orchestrator", task).await.unwrap().expect("a clean end");
}
