//! The competition protocol, pure: competitions, rounds, sealed entries, verdicts, takeovers, boards, rewards.
//!
//! This crate must never know tokio, a clock, randomness, files, sockets or an entry's code: time, seeds and input are
//! arguments, effects are data. The same code runs in the host, in every judge that follows the log, and in whoever
//! verifies it.
//!
//! # A round
//!
//! One log holds an arena: many competitions, everybody's entries, and all that follows from them. Keys *state* things
//! in signed envelopes ([`record::Statement`]); the fold ([`State`]) accepts or refuses them and derives the rest
//! ([`record::Derived`]). [`commit`] drives it in the host, [`verify`] replays it elsewhere and names the first
//! record that does not follow.
//!
//! | Step | Who | What | Ends |
//! |---|---|---|---|
//! | Open | entrants | `Submit{seal}`: a hash of the code behind a salt | at the time of the schedule |
//! | | judges | `Nonce{commitment}` | |
//! | Pooling | the opener | `Pool{items}`: what inputs may be drawn from (only with a pool) | when named; void after `pool_s` |
//! | Opening | entrants | `Unseal{code, salt}` | when all did, or after `opening_s` |
//! | Drawing | judges | `OpenNonce{nonce}`; then the seed is known and draws or makes the inputs | when all did, or after `opening_s` |
//! | Judging | judges | `Lease` → `Judged{seal}` → `Show{verdict}` per entry | when the takeover is decided, or after `judging_s` |
//!
//! - Nobody knows the inputs when entries close: the seed needs every opened salt and every judge's nonce. Entrants open
//!   before judges, so whoever competes cannot choose between seeds. A judge who keeps its nonce back judges nothing of
//!   the round, and that is counted.
//! - A verdict is bound before it is shown, and shown only when all judges asked are bound: it cannot be copied. `agree`
//!   judges of different operators must find the same, else one more is asked, up to `max`. A takeover needs `takeover`
//!   judges on the challenger and on whoever holds the bar; a score that they contradict is struck from the board.
//! - A lease that runs out goes to another judge; the one that lost it comes last, each time for one lease longer.
//! - The champion is judged again in each round, as an automatic entry of version 0, on the inputs of that round. So is
//!   the baseline. A round is judged while the next one is open.
//! - Entries that nobody judged in time, or whose round was void, count as never made: the rate limit and the fee are
//!   given back.
//!
//! # Rules
//!
//! Rules are data ([`rule::RULES`]): a spec names one and may set its parameters.
//!
//! | Rule | Score | Takeover |
//! |---|---|---|
//! | `apex-2025-12-02` | raw = 1·(30 − t) + 1000·similarity + 1000000·ratio; 1/(1 + exp(−0.003·(raw/1000 − 2000))) | ≥ 1 % |
//! | `apex-2025-12-04` | clip((1 − 1/ratio)·(1 − t/1.012), 0, 1) if exact, else 0 | ≥ 1 % |
//! | `apex-2026-01-13` | clip(1 − 1/ratio, 0, 1) if every similarity > 0.99, else 0 | ≥ 1 % |
//! | `shoal-link-1` | raw = plain time on the link ÷ (compressed time + code's share + compress + decompress) | ≥ 0.2 % and paired test at 1 % |
//! | `shoal-link-exact-1` | the same; every bit must come back | the same |
//! | `objective-1` | mean of the evaluator's objective | the same |
//!
//! Three choices that the published formulas leave open: ratio is total original over total compressed bytes, t is the
//! mean time of one input, and a similarity floor holds for each input.
//!
//! Where `shoal-link-1` differs, and why:
//!
//! | Known fault | What it does instead |
//! |---|---|
//! | one weight outvotes all others, so destroyed data wins | fidelity is a floor; an input below it travels as it is, more than 1 % of them score 0 |
//! | wall-clock in the score | time is fuel; the clock, paired with the baseline, can only make it worse |
//! | time counts in seconds, whatever the size | both bytes and time are time on one link |
//! | tables of the data in the code | the code's bytes are shared out over a declared number of tensors |
//! | 1 % is as large as the noise between rounds | both codecs on the same inputs; one-sided sign-flip test, its level shared among the challengers |
//! | a copy with the wrong sign everywhere has a similarity of 1 | [`similarity`]: of two negative factors the product is not positive |
//! | one number hides the trade | [`state::RoundSummary::pareto`]: ratio, speed, fidelity |
//!
//! ```
//! use shoal_arena::rule::{Figures, info};
//!
//! let figures = Figures { similarity: 0.97, ratio: 1.999, task_time_s: 0.0 };
//! let score = info("apex-2025-12-02").unwrap().rule.score(&figures);
//! assert_eq!((score.raw, score.score), (2_000_000.0, 0.5));
//! // Below the floor of 0.99 the default gives nothing.
//! assert_eq!(info("shoal-link-1").unwrap().rule.score(&figures).raw, 0.0);
//! ```
//!
//! # A spec
//!
//! Every key but three has a default; the canonical text has them all, and its hash is the competition's id.
//!
//! ```
//! use shoal_arena::spec::CompetitionSpec;
//!
//! let spec = CompetitionSpec::parse(r#"
//! name = "matrix-compression"
//! kind = "codec"
//! [schedule]
//! start = "2026-01-13T00:00:00Z"
//! zone = "CET-1CEST,M3.5.0,M10.5.0/3"
//! at = "11:00"
//! days = 2
//! "#)?;
//! assert_eq!(CompetitionSpec::parse(&spec.canonical())?.id(), spec.id());
//!
//! let error = CompetitionSpec::parse(&spec.canonical().replace("agree = 2", "agree = 0")).unwrap_err();
//! assert_eq!(error.to_string(), "judges.agree = 0 is not possible: expected an integer from 1 to 15");
//! # Ok::<(), shoal_arena::spec::SpecError>(())
//! ```
//!
//! # A host
//!
//! ```
//! use shoal_arena::{State, commit};
//! use shoal_arena::record::{Control, Input, STATEMENT_KIND, Statement};
//! use shoal_arena::spec::{ArenaSpec, CompetitionSpec};
//! use wire::{Envelope, Millis, SigningKey};
//!
//! let (host, opener) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
//! let arena = ArenaSpec::parse("name = \"demo\"")?;
//! let now = Millis(1_768_262_400_000);
//! let genesis = Control::Genesis { spec: arena.canonical(), host: host.node_id() };
//! let (mut state, _records) = commit::genesis::<State>(arena.run_id(), now, genesis).unwrap();
//!
//! let text = "name = \"a\"\nkind = \"codec\"\n[schedule]\nstart = \"2026-01-13T00:00:00Z\"\ndays = 2\n";
//! let spec = CompetitionSpec::parse(text)?;
//! let body = wire::to_bytes(&Statement::Open { spec: spec.canonical() });
//! let envelope = Envelope::sign(&opener, arena.run_id(), STATEMENT_KIND, body, now, 1);
//! let committed = commit::commit(&mut state, now, vec![Input::Stated(envelope)]);
//! assert!(committed.outcomes[0].is_ok());
//! // The statement, and what follows from it: round 0 opens, since its time has come.
//! assert_eq!(committed.records.len(), 2);
//! assert!(state.competition(&spec.id()).unwrap().open_round().is_some());
//! # Ok::<(), shoal_arena::spec::SpecError>(())
//! ```

pub mod about;
pub mod account;
pub mod calendar;
pub mod limits;
pub mod measure;
pub mod number;
pub mod record;
pub mod refusal;
pub mod rule;
pub mod similarity;
pub mod spec;
pub mod state;

pub use ledger::{Fold, commit, verify};
pub use refusal::Refusal;
pub use state::State;
