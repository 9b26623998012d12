//! The real host over loopback: port 0, temporary folders, real time in rounds of seconds.

#[cfg(test)]
mod it {
    mod blobs;
    mod documents;
    mod events;
    mod pages;
    mod queue;
    mod rounds;
    mod signatures;
    mod world;
}
