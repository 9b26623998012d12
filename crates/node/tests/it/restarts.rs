//! The orchestrator is cut off at any point and comes back over its SQLite log: nothing acknowledged is lost.

use shoal_node::progress::Progress;
use shoal_node::rpc::{Reply, Request};
use swarm::record::Record;
use swarm::state::{Cell, Phase};
use tokio::task::JoinSet;
use wire::{Hash, Seq, StageIndex};

use super::runs::replay;
use super::script::Shelf;
use super::world::{PATIENCE, World, soon};

/// Points at which the orchestrator dies, in blocks from its start, by seed.
fn deaths(seed: u64) -> impl Iterator<Item = u64> {
    (0_u64..).map(move |life| {
        let draw = Hash::of_parts("deaths", &[&seed.to_le_bytes(), &life.to_le_bytes()]);
        1 + u64::from(draw.0[0]) % 12
    })
}

async fn survives(seed: u64) {
    let mut world = World::new();
    let first = world.start().await;
    let mut address = first.address.clone();
    let scripts = world.scripts(&address).await;
    let links: Vec<_> = scripts.iter().map(|script| std::sync::Arc::clone(&script.link)).collect();
    let acknowledged: Vec<_> =
        scripts.iter().map(|script| std::sync::Arc::clone(&script.acknowledged)).collect();
    let mut log = scripts[0].log.clone();
    let mut nodes = JoinSet::new();
    for script in scripts {
        nodes.spawn(script.run());
    }
    let mut running = first;
    for blocks in deaths(seed).take(8) {
        let from = log.head().seq.0;
        let there = log.until(PATIENCE, |view| {
            let over = matches!(view.state.phase(), Phase::Finished { .. });
            (over || view.head.seq >= Seq(from + blocks)).then_some(over)
        });
        let over = there.await.expect("the follower lives").unwrap_or_else(|| panic!("seed {seed}: stuck"));
        if over {
            break;
        }
        // Dropped at once, whatever it was doing; nothing is flushed or said.
        running.task.abort();
        drop(running.task.await);
        running = world.start().await;
        address = running.address.clone();
        for link in &links {
            link.learn(world.orchestrator(), address.clone());
        }
    }
    // An orchestrator that failed says more than nodes that wait for it.
    let (summary, _) = tokio::join!(
        async { soon("the orchestrator", running.task).await.unwrap().expect("a clean end") },
        soon("the nodes", nodes.join_all())
    );
    assert_eq!(summary.epochs, 2, "seed {seed}");
    assert_eq!(summary.tokens, 2 * 8 * world.spec.tokens_per_micro_batch(), "seed {seed}");

    let store = world.log().await;
    let fold = replay(&world, &store).await;
    let state = fold.state().unwrap();
    assert_eq!(state.phase(), Phase::Finished { epochs: 2 }, "seed {seed}");
    let finals = |cell: &Cell| matches!(cell, Cell::Merged { .. } | Cell::Forfeited { .. });
    assert!(state.paths().values().flat_map(|path| &path.cells).all(finals), "seed {seed}");
    // Every acknowledged statement stands in the block that was named.
    for said in acknowledged {
        let said = std::mem::take(&mut *said.lock().unwrap());
        for (seq, statement) in &said {
            let block: ledger::Block = wire::from_bytes(&store.read(*seq, 1).await.unwrap()[0]).unwrap();
            let stands = block.records.iter().any(|record| match wire::from_bytes(record).unwrap() {
                Record::Stated(envelope) => envelope.body == wire::to_bytes(statement),
                _ => false,
            });
            assert!(stands, "seed {seed}: {statement:?} was acknowledged in block {seq}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_wherever_the_orchestrator_dies() {
    for seed in 0..6 {
        survives(seed).await;
    }
}

/// Who waits for a block does not have it: only who asks for the next one does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_is_seen_by_who_has_its_block() {
    let mut world = World::new();
    let running = world.start().await;
    let scripts = world.scripts(&running.address).await;
    let run = world.spec.run_id();
    super::runs::finish(scripts).await;
    soon("the orchestrator", running.task).await.unwrap().expect("a clean end");

    let begun = std::time::Instant::now();
    let again = world.start().await;
    let links: Vec<_> =
        [10, 11].map(|seed| world.link(seed, Shelf::new(&world.spec, StageIndex(0)), &again.address)).into();
    let ask = async |link: &std::sync::Arc<dyn net::Link>, after| {
        let wait = wire::Millis(1);
        let message = Request::Blocks { after: Some(after), wait }.message(run);
        let answer = link.call(&world.orchestrator(), message, PATIENCE).await?;
        let Reply::Blocks { lengths, head } = Reply::parse(&answer).unwrap() else { panic!("no blocks") };
        Ok::<_, net::LinkError>((lengths.len(), head.unwrap().seq))
    };
    let (_, end) = ask(&links[0], Seq(0)).await.unwrap();
    for link in &links {
        assert_eq!(ask(link, Seq(end.0 - 1)).await.unwrap(), (1, end));
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    // For 5 s it waits; a machine that stood still for them says nothing.
    let left = again.task.is_finished() && begun.elapsed() < std::time::Duration::from_secs(4);
    assert!(!left, "it left nodes that may not have heard of the end");
    for link in &links {
        drop(ask(link, end).await);
    }
    soon("the orchestrator", again.task).await.unwrap().expect("a clean end");
}

/// A checkpoint that is being written when its orchestrator is dropped is finished before the next one begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_outlives_its_orchestrator_meets_no_other() {
    let mut world = World::new();
    let mut running = world.start().await;
    let scripts = world.scripts(&running.address).await;
    let links: Vec<_> = scripts.iter().map(|script| std::sync::Arc::clone(&script.link)).collect();
    let mut nodes = JoinSet::new();
    for script in scripts {
        nodes.spawn(script.run());
    }
    for epoch in [1, 2] {
        let partial = world.run_folder().checkpoints().join(format!(".epoch-{epoch:06}.partial"));
        let began = async {
            while !partial.exists() && !world.run_folder().checkpoint(epoch).exists() {
                tokio::task::yield_now().await;
            }
        };
        soon("a checkpoint", began).await;
        running.task.abort();
        drop(running.task.await);
        running = world.start().await;
        for link in &links {
            link.learn(world.orchestrator(), running.address.clone());
        }
    }
    let (ended, _) =
        tokio::join!(soon("the orchestrator", running.task), soon("the nodes", nodes.join_all()));
    ended.unwrap().expect("a clean end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_run_that_is_started_again_only_says_so() {
    let mut world = World::new();
    let running = world.start().await;
    let scripts = world.scripts(&running.address).await;
    super::runs::finish(scripts).await;
    let first = soon("the orchestrator", running.task).await.unwrap().expect("a clean end");
    let mut again = world.start().await;
    // Its nodes are gone; the owner does not wait for them.
    again.shutdown.stop.cancel();
    let second = soon("the orchestrator", again.task).await.unwrap().expect("a clean end");
    assert_eq!((second.epochs, second.tokens, second.head), (first.epochs, first.tokens, first.head));
    assert_eq!(second.checkpoint, first.checkpoint);
    assert!(matches!(again.events.try_recv(), Ok(Progress::Listening(_))));
}
