//! `shoal arena` without a server: rules, scores, specs.

use super::binary::Place;

const SPEC: &str = "name = \"matrix-compression\"\nkind = \"codec\"\n[schedule]\nstart = \"2026-03-28T00:00:00Z\"\nzone = \"CET-1CEST,M3.5.0,M10.5.0/3\"\nat = \"11:00\"\ndays = 1\nrounds = 2\n";

fn score(place: &Place, rule: &str, similarity: &str, ratio: &str, time: &str) -> (f64, f64) {
    let args = [
        "arena",
        "score",
        "--rule",
        rule,
        "--similarity",
        similarity,
        "--ratio",
        ratio,
        "--time",
        time,
        "--json",
    ];
    let rows = place.run(&args).good().objects();
    assert_eq!(rows.len(), 1);
    (rows[0]["raw_score"].as_f64().expect("a number"), rows[0]["score"].as_f64().expect("a number"))
}

#[test]
fn scores_are_those_of_the_formulas() {
    let place = Place::new();
    assert_eq!(score(&place, "apex-2025-12-02", "0.97", "1.999", "0"), (2_000_000.0, 0.5));
    assert_eq!(
        score(&place, "apex-2025-12-02", "-0.5", "1", "10"),
        (999_520.0, 1.0 / (1.0 + (3.001_44_f64).exp()))
    );
    assert_eq!(score(&place, "apex-2025-12-04", "1", "2", "0.506"), (0.25, 0.25));
    assert_eq!(score(&place, "apex-2026-01-13", "0.9901", "4", "7"), (0.75, 0.75));
    assert_eq!(score(&place, "apex-2026-01-13", "0.99", "4", "7"), (0.0, 0.0));
    assert_eq!(score(&place, "shoal-link-1", "0.995", "4", "0"), (4.0, 0.75));
}

#[test]
fn figures_and_rules_that_are_none_are_refused() {
    let place = Place::new();
    let run = |rule: &str, similarity: &str, ratio: &str, time: &str| {
        place.run(&[
            "arena",
            "score",
            "--rule",
            rule,
            "--similarity",
            similarity,
            "--ratio",
            ratio,
            "--time",
            time,
        ])
    };
    run("apex-2025-12-03", "1", "2", "1").bad(3, &["apex-2025-12-03", "apex-2025-12-04"]);
    run("objective-1", "1", "2", "1").bad(3, &["objective-1", "evaluator"]);
    run("shoal-link-1", "1", "0", "1").bad(3, &["--ratio 0", "above 0"]);
    run("shoal-link-1", "1.1", "2", "1").bad(3, &["--similarity 1.1", "at most 1"]);
    run("shoal-link-1", "1", "2", "-1").bad(3, &["--time -1", "0 or more"]);
    run("shoal-link-1", "nan", "2", "1").bad(3, &["--similarity NaN"]);
    assert_eq!(run("shoal-link-1", "much", "2", "1").code, Some(2));
}

#[test]
fn rules_are_listed_with_their_formulas() {
    let place = Place::new();
    let rows = place.run(&["arena", "rules", "--json"]).good().objects();
    let names: Vec<&str> = rows.iter().filter_map(|row| row["rule"].as_str()).collect();
    assert_eq!(
        names,
        [
            "apex-2025-12-02",
            "apex-2025-12-04",
            "apex-2026-01-13",
            "shoal-link-1",
            "shoal-link-exact-1",
            "objective-1"
        ]
    );
    let plain = place.run(&["arena", "rules"]).good();
    assert!(plain.out.contains("Takeover: 1 % over the top raw score\n"), "{}", plain.out);
    assert!(plain.out.contains("Takeover: 0.2 % over the top raw score, and a paired test at 1 %"));
}

#[test]
fn a_spec_is_checked_and_written_out() {
    let place = Place::new();
    std::fs::write(place.path("a.toml"), SPEC).expect("a file");
    let row = place.run(&["arena", "check", "a.toml", "--json"]).good().objects().remove(0);
    // 11:00 in Berlin, before and after the clock changes on the 29th.
    assert_eq!(row["rounds"][0]["opens"], "2026-03-28T10:00:00Z");
    assert_eq!(row["rounds"][1]["opens"], "2026-03-29T09:00:00Z");
    assert_eq!(row["rounds"].as_array().map(Vec::len), Some(2));
    let canonical = row["canonical"].as_str().expect("text");
    std::fs::write(place.path("b.toml"), canonical).expect("a file");
    let again = place.run(&["arena", "check", "b.toml", "--json"]).good().objects().remove(0);
    assert_eq!(again, row);
    let plain = place.run(&["arena", "check", "a.toml"]).good();
    assert!(plain.out.contains(&format!("competition {}", row["competition"].as_str().expect("an id"))));
    assert!(plain.out.contains("margin_ppm = 2000"));
}

#[test]
fn a_spec_that_cannot_be_names_the_key() {
    let place = Place::new();
    place.run(&["arena", "check", "none.toml"]).bad(3, &["none.toml"]);
    std::fs::write(place.path("a.toml"), SPEC.replace("days = 1", "days = 0")).expect("a file");
    place.run(&["arena", "check", "a.toml"]).bad(3, &["a.toml", "schedule.days = 0 is not possible"]);
    std::fs::write(place.path("a.toml"), format!("{SPEC}hours = 3\n")).expect("a file");
    place.run(&["arena", "check", "a.toml"]).bad(3, &["unknown key schedule.hours = 3", "known here: start"]);
}
