//! Integration tests of the stores.

#[cfg(test)]
mod it {
    mod blobs;
    mod full;
    mod log;
}
