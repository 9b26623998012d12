//! Integration tests of the model crate: everything through its public interface.

mod it {
    mod common;
    mod cuts;
    mod learning;
    mod memory;
    mod reference;
    mod refusals;
    mod split;
}
