//! Project tasks: tidy, ci, interop, bench.
fn main() {}
