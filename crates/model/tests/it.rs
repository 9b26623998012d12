//! Integration tests of the model crate: everything through its public interface.

mod it {
    mod checkpoint;
    mod common;
    mod cuts;
    mod data;
    mod learning;
    mod local;
    mod memory;
    mod reference;
    mod refusals;
    mod split;
}
