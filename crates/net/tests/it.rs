//! Integration tests of the links.

#[cfg(test)]
mod it {
    mod contract;
    mod frames;
    mod lives;
    mod nodes;
    mod relay;
    mod speed;
}
