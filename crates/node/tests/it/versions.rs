//! A run without a stash: miners keep one version of their weights, and validators follow.

use std::collections::BTreeMap;

use swarm::record::{Outcome, Statement};

use super::alone::statements;
use super::learning::validate;
use super::miners::Swarm;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_stash_a_step_holds_only_what_its_own_weights_computed() {
    let mut swarm = Swarm::start(3, |spec| {
        spec.inner.stash = 0;
        spec.phases.miners_min = 2;
        spec.phases.validators_min = 1;
        spec.audit.rate = 1.0;
    })
    .await;
    let validating = validate(&swarm);
    swarm.miners(2).await;
    let log = swarm.log.clone();
    let (summary, _) = swarm.end().await;
    validating.await.expect("no panic").expect("a clean end");
    assert!(summary.coverage.expect("work was done") > 0.8, "{:?}", summary.coverage);
    assert!(summary.loss_last < summary.loss_first);

    let (mut versions, mut steps, mut verdicts) = (BTreeMap::new(), 0, Vec::new());
    for (node, statement) in statements(&log).await {
        match statement {
            Statement::Work(work) => {
                for item in &work.items {
                    let key = (node, work.epoch, item.micro_batch, item.lease);
                    let first = *versions.entry(key).or_insert(item.version);
                    assert_eq!(item.version, first, "backward with the weights of forward");
                }
                for step in &work.steps {
                    for (micro_batch, lease) in &step.items {
                        let version = versions[&(node, work.epoch, *micro_batch, *lease)];
                        assert_eq!(version, step.step.0, "{micro_batch:?} of epoch {}", work.epoch);
                    }
                    steps += 1;
                }
            }
            // A busy validator may open an item when its miner has forgotten it.
            Statement::Verdict(verdict) if verdict.outcome != Outcome::NotOpened => {
                verdicts.push(verdict.outcome);
            }
            _ => {}
        }
    }
    assert!(steps > 30, "{steps} steps of 6 miners in 3 epochs");
    assert!(!verdicts.is_empty() && verdicts.iter().all(|outcome| *outcome == Outcome::Pass), "{verdicts:?}");
}
