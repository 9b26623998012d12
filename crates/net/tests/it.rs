//! Integration tests of the links.

#[cfg(test)]
#[path = "it/contract.rs"]
mod contract;
#[cfg(test)]
#[path = "it/frames.rs"]
mod frames;
#[cfg(test)]
#[path = "it/nodes.rs"]
mod nodes;
#[cfg(test)]
#[path = "it/relay.rs"]
mod relay;
