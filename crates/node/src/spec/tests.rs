use super::*;
use model::config::Table;

fn refused(text: &str) -> String {
    RunSpec::parse(text).expect_err("not possible").to_string()
}

#[test]
fn an_empty_spec_is_the_default_preset_and_its_canonical_text_reads_back() {
    let spec = RunSpec::parse("").expect("every key has a default");
    assert_eq!(spec.stages(), 3);
    let text = spec.canonical();
    let again = RunSpec::parse(&text).expect("canonical text is a spec");
    assert_eq!(again, spec);
    assert_eq!(again.canonical(), text);
    assert_eq!(RunSpec::from_canonical(text.as_bytes(), spec.run_id()).expect("the same run"), spec);
    let other = RunSpec::parse("seed = 2").expect("a spec").run_id();
    assert!(matches!(RunSpec::from_canonical(text.as_bytes(), other), Err(SpecError::OtherRun { .. })));
}

#[test]
fn presets_and_the_same_sizes_written_out_are_one_run() {
    let preset = RunSpec::parse("[model]\npreset = \"micro\"").expect("a preset");
    let sizes =
        "[model]\nvocab = 300\nd_model = 64\nblocks = 4\nheads = 4\nkv_heads = 2\nffn = 160\nsequence = 64";
    assert_eq!(RunSpec::parse(sizes).expect("sizes").run_id(), preset.run_id());
    for name in ModelConfig::preset_names() {
        let spec = RunSpec::preset(name).expect("known");
        assert_eq!(RunSpec::parse(&spec.canonical()).expect("a spec"), spec, "{name}");
    }
}

#[test]
fn every_kind_of_section_reads_back() {
    let text = r#"
        name = "kinds"
        cuts = [1, 3]
        [model]
        preset = "8b"
        blocks = 5
        [cut]
        kind = "anchored"
        width = 64
        bits = 4
        table = { factorised = { rank = 64 } }
        [data]
        tokenizer = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
        train = [{ hash = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85", tokens = 9 }]
        [inner.schedule]
        kind = "saw_tooth"
        warmup = 1
        plateau = 20
        cycle = 10
        floor = 0.1
        tail = 0.02
        [outer]
        kind = "nesterov"
        learning_rate = 0.7
        momentum = 0.9
    "#;
    let spec = RunSpec::parse(text).expect("a spec");
    assert_eq!(RunSpec::parse(&spec.canonical()).expect("canonical"), spec);
    assert_eq!(spec.stage_specs().len(), 3);
    assert_eq!(spec.swarm_spec().stages.len(), 3);
    assert!(matches!(spec.check_data(), Err(SpecError::Data { list: "train", found: 9, .. })));
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_a_guess() {
    let text = "seed = 3\n\n[model]\npreset = \"micro\"\nhaeds = 2\n";
    let words = refused(text);
    assert!(
        words.starts_with("line 5: unknown key model.haeds (did you mean heads?); known here: preset,"),
        "{words}"
    );
    let words = refused("sed = 3");
    assert!(words.starts_with("line 1: unknown key sed (did you mean seed?)"), "{words}");
    let factorised = "[cut]\nkind = \"nothing\"\ntable = { factorised = { rank = 3 } }";
    assert_eq!(
        RunSpec::parse(factorised).unwrap().cut,
        Cut::Nothing { table: Table::Factorised { rank: 3 } }
    );
    let words = refused("seed = 3\n[cut]\nkind = \"plain\"\nwire = \"f32\"\nwidht = 4\n");
    assert!(words.starts_with("line 5: unknown key cut.widht (did you mean width?); known here:"), "{words}");
    let words = refused("[inner.schedule]\nkind = \"cosine\"\nwarmup = 0.1\nflor = 0.0\nfloor = 1");
    assert!(words.starts_with("line 4: unknown key inner.schedule.flor (did you mean floor?)"), "{words}");
}

#[test]
fn an_impossible_value_is_named_with_its_range_and_line() {
    let cases = [
        ("seed = 1\n[phases]\nepochs = 0", "line 3: phases.epochs = 0 is not possible: must be from 1 to"),
        ("[model]\npreset = \"micro\"\nheads = 3", "line 3: model.heads = 3 is not possible: must divide"),
        (
            "[model]\npreset = \"nano\"",
            "line 2: model.preset = \"nano\" is not possible: must be one of micro, tiny",
        ),
        ("stages = 70", "line 1: stages = 70 is not possible: must be from 1 to 6"),
        ("stages = 2\ncuts = [1, 2]", "line 1: stages = 2 is not possible: must be 3, one more than cuts"),
        ("cuts = [2, 2]", "line 1: cuts = [2, 2] is not possible: must rise"),
        (
            "[cut]\nkind = \"thin\"",
            "line 2: cut.kind = \"thin\" is not possible: must be one of plain, tabled",
        ),
        (
            "[cut]\nkind = \"plain\"\nwire = \"f8\"",
            "line 3: cut.wire = \"f8\" is not possible: must be \"f32\"",
        ),
        ("[cut]\nkind = \"plain\"", "line 1: cut.wire is missing"),
        (
            "[cut]\nkind = \"plain\"\nwire = \"f32\"\nwidth = 4",
            "line 4: cut.width = 4 is not possible: a cut of kind \"plain\" has none: leave it out",
        ),
        (
            "[cut]\nkind = \"bottleneck\"\nwidth = \"a\"\nwire = \"f32\"",
            "line 3: cut.width = \"a\" is not possible: invalid type",
        ),
        (
            "[cut]\nkind = \"nothing\"\ntable = \"factorised\"",
            "line 3: cut.table = \"factorised\" is not possible: must be \"full\", \"none\" or { factorised = { rank = 16 } }",
        ),
        (
            "[cut]\nkind = \"anchored\"\nwidth = 4\nbits = 5\ntable = \"full\"",
            "line 4: cut.bits = 5 is not possible",
        ),
        ("[audit]\nrate = 1.5", "line 2: audit.rate = 1.5 is not possible: must be from 0 to 1"),
        (
            "[batch]\nmicro_batches_per_epoch = 2",
            "line 2: batch.micro_batches_per_epoch = 2 is not possible: must be at least inner.steps (8)",
        ),
        // What the protocol bounds is refused here, not by the orchestrator after the data were built.
        (
            "[batch]\nmicro_batches_per_epoch = 100000",
            "line 2: batch.micro_batches_per_epoch = 100000 is not possible: must be from 1 to 65536",
        ),
        ("[phases]\nheartbeat_ms = 200000000", "line 2: phases.heartbeat_ms = 200000000 is not possible"),
        ("[inner]\nsteps = \"many\"", "line 2: inner.steps = \"many\" is not possible: invalid type"),
        (
            "[inner]\noptimiser = \"sgd\"",
            "line 2: inner.optimiser = \"sgd\" is not possible: unknown variant `sgd`, expected `adamw` or `muon`",
        ),
        ("[batch]\nsequences = -1", "line 2: batch.sequences = -1 is not possible: invalid value"),
        ("name = \"a b\"", "line 1: name = \"a b\" is not possible: must be 1 to 64 letters"),
        ("version = 2", "line 1: version = 2 is not possible: must be from 1 to 1"),
        (
            "[data]\ntokenizer = \"words\"",
            "line 2: data.tokenizer = \"words\" is not possible: expected \"bytes\"",
        ),
        ("[model]\nd_model = 4", "line 1: model.heads is missing"),
        (
            "[inner]\nclip_scope = \"model\"\nclip_norm = 0.0",
            "line 3: inner.clip_norm = 0 is not possible: must be above 0",
        ),
    ];
    for (text, expected) in cases {
        let words = refused(text);
        assert!(words.starts_with(expected), "{text:?}\n  gave {words}\n  not  {expected}");
    }
    let words = refused("[model\nheads = 3");
    assert!(words.starts_with("line 1: "), "{words}");
}

#[test]
fn the_outer_momentum_may_start_lower() {
    let nesterov = "[outer]\nkind = \"nesterov\"\nlearning_rate = 0.7\nmomentum = 0.9\n";
    let plain = RunSpec::parse(nesterov).expect("a spec");
    assert!(!plain.canonical().contains("ramp"), "specs without a ramp stay as they were");
    let ramped = |keys: &str| RunSpec::parse(&format!("{nesterov}{keys}"));
    let spec = ramped("momentum_from = 0.5\nramp_epochs = 20").expect("a spec");
    assert!(spec.canonical().contains("momentum_from = 0.5\nramp_epochs = 20\n"));
    assert_eq!(RunSpec::parse(&spec.canonical()).expect("canonical"), spec);
    let momenta =
        |spec: &RunSpec| [0, 10, 20].map(|epoch| spec.swarm_spec().merge.outer.momentum(Epoch(epoch)));
    assert_eq!((momenta(&plain), momenta(&spec)), ([0.9; 3], [0.5, 0.7, 0.9]));
    for (keys, expected) in [
        (
            "momentum_from = 1\nramp_epochs = 20",
            "line 5: outer.momentum_from = 1 is not possible: must be at least 0",
        ),
        (
            "momentum_from = 0.5\nramp_epochs = 0",
            "line 6: outer.ramp_epochs = 0 is not possible: must be from 1 to",
        ),
        ("momentum_from = 0.5", "line 1: outer.ramp_epochs is missing"),
        ("ramp_epochs = 20", "line 1: outer.momentum_from is missing"),
        ("momentum_form = 0.5", "line 5: unknown key outer.momentum_form (did you mean momentum_from?)"),
    ] {
        let words = ramped(keys).expect_err("not possible").to_string();
        assert!(words.starts_with(expected), "{keys:?}\n  gave {words}\n  not  {expected}");
    }
}

#[test]
fn a_run_may_keep_one_version_of_the_weights() {
    let plain = RunSpec::parse("").expect("a spec");
    assert_eq!(plain.inner.stash, 1);
    assert!(!plain.canonical().contains("stash"), "specs with two versions stay as they were");
    let spec = RunSpec::parse("[inner]\nstash = 0").expect("a spec");
    assert!(spec.canonical().contains("stash = 0"));
    assert_eq!(RunSpec::parse(&spec.canonical()).expect("canonical"), spec);
    let words = refused("[inner]\nstash = 2");
    assert!(words.starts_with("line 2: inner.stash = 2 is not possible: must be from 0 to 1"), "{words}");
}

#[test]
fn the_schedule_covers_the_whole_run() {
    let spec = RunSpec::parse("[inner]\nsteps = 10\n[phases]\nepochs = 10").expect("a spec");
    assert_eq!(spec.rate(Epoch(0), Step(0)), 0.2);
    assert_eq!(spec.rate(Epoch(0), Step(4)), 1.0);
    assert!(spec.rate(Epoch(9), Step(9)) < 0.03);
}

#[test]
fn data_is_checked_apart() {
    let spec = RunSpec::parse("").expect("a spec");
    assert!(matches!(spec.check_data(), Err(SpecError::Data { found: 0, .. })));
}
