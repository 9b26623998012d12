//! Seeds, kept inputs and a few of their mutants through every target.

use shoal_fuzz::{TARGETS, kept, mutate};

#[test]
fn seeds_and_kept_inputs_do_not_panic() {
    for &(name, target, seeds) in TARGETS {
        assert!(!kept(name).is_empty(), "nothing is kept of {name}");
        let inputs = [seeds(), kept(name)].concat();
        for input in inputs {
            target(&input);
        }
    }
}

/// Mutants of every target in a test run.
const MUTANTS: u64 = 500;

#[test]
fn mutants_do_not_panic() {
    for target in TARGETS {
        let tried = mutate::run(target, 1, |tried| tried < MUTANTS, |_| ());
        assert_eq!(tried.map_err(|found| (found.what, found.input)), Ok(MUTANTS));
    }
}

#[test]
fn every_kept_folder_is_that_of_a_target() {
    for folder in std::fs::read_dir(shoal_fuzz::corpus("")).expect("fuzz/corpus") {
        let name = folder.unwrap().file_name();
        assert!(TARGETS.iter().any(|target| *target.0 == *name), "{} is no target", name.display());
    }
}
