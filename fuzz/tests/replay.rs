//! Seeds and kept inputs through every target.

#[test]
fn seeds_and_kept_inputs_do_not_panic() {
    for &(name, target, seeds) in shoal_fuzz::TARGETS {
        let inputs = [seeds(), shoal_fuzz::kept(name)].concat();
        assert!(!inputs.is_empty(), "{name} has nothing to start from");
        for input in inputs {
            target(&input);
        }
    }
}
