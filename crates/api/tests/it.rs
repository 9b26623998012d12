//! The real host over loopback: port 0, temporary folders, real time in rounds of seconds.

#[cfg(test)]
mod it {
    mod blobs;
    mod custody;
    mod documents;
    mod entrants;
    mod events;
    mod gate;
    mod judges;
    mod pages;
    mod pools;
    mod queue;
    mod rounds;
    mod signatures;
    mod world;
}
