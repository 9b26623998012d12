//! The swarm's daemons: orchestrator, miner, validator.
