//! Integration tests of the links.

#[path = "it/contract.rs"]
mod contract;
#[path = "it/frames.rs"]
mod frames;
#[path = "it/nodes.rs"]
mod nodes;
#[path = "it/relay.rs"]
mod relay;
