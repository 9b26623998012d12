//! The swarm's daemons: orchestrator, miner, validator.

pub mod spec;
