use std::sync::Mutex;

use ledger::fold::{Fact, Last, Tip};
use serde::{Deserialize, Serialize};
use store::MemoryLog;
use wire::{Envelope, RunId};

use super::*;

const KIND: u16 = 77;
const RUN: RunId = RunId([3; 32]);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Said {
    Genesis(NodeId),
    Resumed,
    Closed,
}

impl Fact for Said {
    fn name(&self) -> &'static str {
        "a control"
    }
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
enum No {
    #[error("{0}")]
    Unfit(Unfit),
    #[error("closed")]
    Closed,
}

impl From<Unfit> for No {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit)
    }
}

/// Adds up what is stated until it is closed.
#[derive(Clone, Debug, PartialEq)]
struct Sum {
    tip: Tip,
    total: u64,
    resumed: u32,
    closed: bool,
    last: BTreeMap<NodeId, Last>,
}

impl Fold for Sum {
    type Control = Said;
    type Statement = u64;
    type Derived = Said;
    type Refusal = No;
    type GenesisError = No;
    const STATEMENT_KIND: u16 = KIND;

    fn genesis(run: RunId, control: &Said) -> Result<Self, No> {
        let Said::Genesis(owner) = control else { return Err(No::Closed) };
        let tip = Tip::genesis(run, *owner, control);
        Ok(Self { tip, total: 0, resumed: 0, closed: false, last: BTreeMap::new() })
    }
    fn tip(&self) -> &Tip {
        &self.tip
    }
    fn tip_mut(&mut self) -> &mut Tip {
        &mut self.tip
    }
    fn next_deadline(&self, _after: Millis) -> Option<Millis> {
        None
    }
    fn resumed(_down: Millis) -> Said {
        Said::Resumed
    }
    fn resumes(control: &Said) -> bool {
        *control == Said::Resumed
    }
    fn last(&self, sender: &NodeId) -> Option<Last> {
        self.last.get(sender).copied()
    }
    fn check_control(&self, _control: &Said) -> Result<(), No> {
        if self.closed { Err(No::Closed) } else { Ok(()) }
    }
    fn fold_control(&mut self, control: &Said) {
        self.resumed += u32::from(*control == Said::Resumed);
        self.closed |= *control == Said::Closed;
    }
    fn check_statement(&self, _sender: &NodeId, _statement: &u64) -> Result<(), No> {
        if self.closed { Err(No::Closed) } else { Ok(()) }
    }
    fn fold_statement(&mut self, envelope: &Envelope, statement: u64) {
        self.last.insert(envelope.sender, Last::of(envelope));
        self.total += statement;
    }
    fn fold_derived(&mut self, _derived: &Said) {}
    fn due(&self) -> Option<Said> {
        None
    }
}

/// Keeps what it is shown; refuses blocks from `fails_at` on.
#[derive(Clone, Default)]
struct Board {
    shown: Arc<Mutex<Vec<(Seq, u64)>>>,
    fails_at: Option<Seq>,
}

impl Audience<Sum> for Board {
    fn show(&mut self, state: &Sum, written: Written<Sum>) -> Result<(), String> {
        if self.fails_at.is_some_and(|at| written.head.seq >= at) {
            return Err("another sum".to_owned());
        }
        self.shown.lock().unwrap().push((written.head.seq, state.total));
        Ok(())
    }
    fn pace(&self, _state: &Sum) -> Duration {
        Duration::ZERO
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

async fn start(
    log: &Arc<MemoryLog>,
    board: Board,
) -> Result<(Leader<Sum, Board>, Inputs<Sum>), LeaderError<Sum>> {
    let store = Arc::clone(log) as Arc<dyn LogStore>;
    let opened = open::<Sum>(RUN, key(1), store, || Said::Genesis(key(1).node_id()), |_, _, _| {}).await?;
    let (inputs, queue) = queue();
    Ok((opened.lead(queue, board).await?, inputs))
}

fn stated(seed: u8, number: u64, nonce: u64) -> Input<Said> {
    let now = Clock::default().now();
    Input::Stated(Envelope::sign(&key(seed), RUN, KIND, wire::to_bytes(&number), now, nonce))
}

async fn say(inputs: &Inputs<Sum>, input: Input<Said>) -> Option<Outcome<Sum>> {
    let (answer, outcome) = oneshot::channel();
    inputs.send(Pending { input, len: 100, answer }).await.ok()?;
    outcome.await.ok()
}

#[tokio::test]
async fn what_is_acknowledged_is_shown_kept_and_acknowledged_again() {
    let log = Arc::new(MemoryLog::default());
    let board = Board::default();
    let (leader, inputs) = start(&log, board.clone()).await.unwrap();
    let running = tokio::spawn(leader.run(CancellationToken::new()));
    let first = stated(2, 5, 1);
    let seq = say(&inputs, first.clone()).await.unwrap().unwrap();
    assert_eq!(board.shown.lock().unwrap().last(), Some(&(seq, 5)));
    // The same statement again: the same answer, and no second effect.
    assert_eq!(say(&inputs, first.clone()).await.unwrap(), Ok(seq));
    let second = say(&inputs, stated(3, 7, 1)).await.unwrap().unwrap();
    assert_eq!(board.shown.lock().unwrap().last(), Some(&(second, 12)));
    running.abort();
    drop(running.await);

    // Another process goes on from the log, and still knows whom it answered.
    let (leader, inputs) = start(&log, Board::default()).await.unwrap();
    assert_eq!(leader.state().resumed, 1);
    assert_eq!(leader.state().total, 12);
    let running = tokio::spawn(leader.run(CancellationToken::new()));
    assert_eq!(say(&inputs, first).await.unwrap(), Ok(seq));
    drop(inputs);
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_leader_that_was_taken_over_acknowledges_nothing() {
    let log = Arc::new(MemoryLog::default());
    let (old, inputs) = start(&log, Board::default()).await.unwrap();
    let old = tokio::spawn(old.run(CancellationToken::new()));
    let (new, _) = start(&log, Board::default()).await.unwrap();
    assert_eq!(say(&inputs, stated(2, 5, 1)).await, None);
    let error = old.await.unwrap().unwrap_err();
    assert!(matches!(error, LeaderError::Store(store::LogError::TakenOver { .. })), "{error}");
    assert_eq!(new.state().total, 0);
}

#[tokio::test]
async fn an_audience_that_fell_behind_ends_the_leader_before_it_answers() {
    let log = Arc::new(MemoryLog::default());
    let board = Board { fails_at: Some(Seq(1)), ..Board::default() };
    let (leader, inputs) = start(&log, board).await.unwrap();
    let running = tokio::spawn(leader.run(CancellationToken::new()));
    assert_eq!(say(&inputs, stated(2, 5, 1)).await, None);
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(error, LeaderError::Diverged { .. }), "{error}");
    // The block is in the log all the same.
    let (leader, _) = start(&log, Board::default()).await.unwrap();
    assert_eq!(leader.state().total, 5);
}

#[tokio::test]
async fn a_log_that_is_over_stays_as_it_is_and_that_of_another_key_is_refused() {
    let log = Arc::new(MemoryLog::default());
    let (mut leader, _) = start(&log, Board::default()).await.unwrap();
    assert_eq!(leader.control(Said::Closed).await.unwrap(), Ok(Seq(1)));
    assert_eq!(leader.control(Said::Closed).await.unwrap(), Err(No::Closed));
    let (leader, _) = start(&log, Board::default()).await.unwrap();
    assert_eq!(leader.state().resumed, 0);
    assert_eq!(log.last().await.unwrap(), Some(Seq(1)));

    let store = Arc::clone(&log) as Arc<dyn LogStore>;
    let other = open::<Sum>(RUN, key(9), store, || Said::Genesis(key(9).node_id()), |_, _, _| {}).await;
    assert!(matches!(other, Err(LeaderError::Log(_))));
}
