//! Integration tests of the judge: real components in the real sandbox, real programs in real jails.

#[cfg(test)]
mod it {
    mod bench;
    mod busy;
    mod codec;
    mod datasets;
    mod evaluators;
    mod hostile;
    mod programs;
    mod rounds;
    mod screening;
}
