//! A native program as an entry: built here by the system's C compiler, run in a jail, asked over the HTTP contract.

use std::process::Command;

use super::binary::Place;

/// Builds the program; none, with a word, where this machine has no C compiler.
fn built(place: &Place, name: &str, more: &[&str]) -> Option<String> {
    std::fs::write(place.path("codec.c"), include_str!("native_codec.c")).expect("its source");
    let mut command = Command::new("cc");
    command.args(["-O2", "-D_GNU_SOURCE", "-Wall", "-o", name, "codec.c"]).args(more);
    match command.current_dir(place.path(".")).output() {
        Err(error) => {
            println!("skipped: no C compiler here: {error}");
            None
        }
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(name.to_owned())
        }
    }
}

#[test]
fn a_native_program_is_judged_by_the_http_contract() {
    let place = Place::new();
    let Some(entry) = built(&place, "mine", &[]) else { return };
    let ran = place.run(&["arena", "eval", &entry, "--items", "4", "--json"]);
    if ran.code != Some(0) && ran.err.contains("cannot judge programs") {
        println!("skipped: {}", ran.err.trim());
        return;
    }
    let found = ran.good().objects().pop().expect("an object");
    assert_eq!(found["state"], "scored", "{found}");
    let figure = |name: &str| found[name].as_f64().unwrap_or_else(|| panic!("{name} in {found}"));
    // 14 of 16 bits, and the four bytes of the length.
    assert!((1.142..1.143).contains(&figure("compression_ratio")), "{found}");
    assert!((0.99..0.999).contains(&figure("similarity_min")), "{found}");
    assert!(figure("task_time_s") > 0.0, "{found}");

    // It answers, and cannot give back what it took: its own failure, told as such.
    let entry = built(&place, "broken", &["-DBROKEN"]).expect("the compiler is there");
    let ran = place.run(&["arena", "eval", &entry, "--items", "2", "--json"]);
    let found = ran.objects().pop().expect("an object");
    assert_eq!(ran.code, Some(1), "{found}");
    assert_ne!(found["state"], "scored", "{found}");
}
