//! Integration tests of the model crate: everything through its public interface.

mod it {
    mod checkpoint;
    mod common;
    mod cuts;
    mod data;
    mod learning;
    mod memory;
    mod local;
    mod reference;
    mod refusals;
    mod split;
}
