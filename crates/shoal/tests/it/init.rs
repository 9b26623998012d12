//! Runs that start from a checkpoint.

use serde_json::Value;

use super::binary::Place;

/// A trained plain model of two stages in `plain`, and its last held-out loss.
fn trained(place: &Place) -> f64 {
    place.write_text("text/a.txt", 60_000);
    place.write_text("text/b.txt", 60_000);
    let spec = "stages = 2\n[model]\npreset = \"micro\"\n[cut]\nkind = \"plain\"\nwire = \"bf16\"\n\
                [phases]\nepochs = 2\nvalidators_min = 1\n";
    std::fs::write(place.path("source.toml"), spec).unwrap();
    let ran =
        place.run(&["--json", "up", "--spec", "source.toml", "--data", "text", "--dir", "source"]).good();
    place.run(&["run", "export", "source", "plain"]).good();
    held_out(&ran.summary(), "heldout_loss_last")
}

fn held_out(summary: &Value, key: &str) -> f64 {
    summary[key].as_f64().unwrap_or_else(|| panic!("{key} in {summary}"))
}

fn up(place: &Place, args: &[&str]) -> Value {
    place.run(&[&["--json", "up", "--data", "text"], args].concat()).good().summary()
}

#[test]
fn a_run_begins_at_what_its_checkpoint_knows() {
    let place = Place::new();
    let last = trained(&place);
    let near = |summary: &Value| {
        let first = held_out(summary, "heldout_loss_first");
        assert!((first - last).abs() < 0.01, "{last} when saved, {first} at the start");
    };
    // Without a word on the model or the cut.
    std::fs::write(place.path("next.toml"), "stages = 2\n[phases]\nepochs = 1\nvalidators_min = 1\n")
        .unwrap();
    near(&up(&place, &["--init", "plain", "--spec", "next.toml"]));
    near(&up(&place, &["--init", "plain", "--epochs", "1", "--stages", "2"]));
    let toml = place.run(&["run", "show", "--toml", "shoal-runs/run-2"]).good().out;
    assert!(toml.contains("[cut]\nkind = \"plain\"\nwire = \"bf16\""), "{toml}");
}

#[test]
fn a_spec_may_set_the_sequence_and_the_cut_of_a_checkpoint() {
    let place = Place::new();
    trained(&place);
    let new = |name: &str, spec: &str| {
        std::fs::write(place.path("next.toml"), spec).unwrap();
        place.run(&["run", "new", name, "--init", "plain", "--spec", "next.toml", "--data", "text"])
    };
    new("shorter", "[model]\nsequence = 32\n").good();
    let toml = place.run(&["run", "show", "--toml", "shorter"]).good().out;
    assert!(toml.contains("d_model = 64\n") && toml.contains("sequence = 32\n"), "{toml}");
    // Its own sizes may be repeated, others not.
    new("same", "[model]\npreset = \"micro\"\n").good();
    let words = "model.heads = 8 is not possible: must be 4, as in the checkpoint";
    new("other", "[model]\nheads = 8\n").bad(3, &["next.toml", "line 2", words]);
    // Another cut is taken, but not in silence.
    let ran =
        new("anchored", "stages = 2\n[cut]\nkind = \"anchored\"\nwidth = 8\nbits = 4\ntable = \"full\"\n")
            .good();
    assert!(ran.err.contains("not trained with this run's cuts"), "{}", ran.err);
    assert!(place.run(&["run", "show", "--toml", "anchored"]).good().out.contains("kind = \"anchored\""));
}

#[test]
fn a_checkpoint_with_cuts_of_its_own_keeps_them() {
    let place = Place::new();
    place.write_text("text/a.txt", 60_000);
    place.write_text("text/b.txt", 60_000);
    let source = ["--preset", "micro", "--epochs", "1", "--stages", "2", "--dir", "source"];
    let last = held_out(&up(&place, &source), "heldout_loss_last");
    place.run(&["run", "export", "source", "anchored"]).good();
    let first = held_out(&up(&place, &["--init", "anchored", "--epochs", "1"]), "heldout_loss_first");
    assert!((first - last).abs() < 0.01, "{last} when saved, {first} at the start");
    let toml = place.run(&["run", "show", "--toml", "shoal-runs/run-1"]).good().out;
    assert!(toml.contains("kind = \"anchored\""), "{toml}");
}

#[test]
fn the_defaults_are_shown_without_a_file() {
    let place = Place::new();
    std::fs::write(place.path("empty.toml"), "").unwrap();
    let shown = place.run(&["run", "show", "--toml"]).good().out;
    assert_eq!(shown, place.run(&["run", "show", "--toml", "empty.toml"]).good().out);
    std::fs::write(place.path("shown.toml"), &shown).unwrap();
    assert_eq!(place.run(&["run", "show", "--toml", "shown.toml"]).good().out, shown);
    assert_eq!(place.run(&["run", "show"]).code, Some(2));
}
