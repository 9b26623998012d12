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
        ("[batch]\nsequences = -1", "line 2: batch.sequences = -1 is not possible: must be from 1 to 4096"),
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
fn a_kind_without_keys_takes_none() {
    let cases = [
        (
            "[outer]\nkind = \"identity\"\nmomentum = 0.9",
            "line 3: unknown key outer.momentum; known here: kind",
        ),
        (
            "outer = { kind = \"identity\", momentm = 1 }",
            "line 1: unknown key outer.momentm; known here: kind",
        ),
        (
            "outer.kind = \"nesterov\"\nouter.momentm = 1",
            "line 2: unknown key outer.momentm (did you mean momentum?); known here: kind, learning_rate, momentum, momentum_from, ramp_epochs",
        ),
        (
            "[inner.schedule]\nkind = \"constant\"\nfloor = 1",
            "line 3: unknown key inner.schedule.floor; known here: kind",
        ),
        (
            "[inner]\nschedule = { kind = \"constant\", x = 1 }",
            "line 2: unknown key inner.schedule.x; known here: kind",
        ),
    ];
    for (text, expected) in cases {
        let words = refused(text);
        assert!(words.starts_with(expected), "{text:?}\n  gave {words}\n  not  {expected}");
    }
    for text in ["[outer]\nkind = \"identity\"", "[inner.schedule]\nkind = \"constant\""] {
        let spec = RunSpec::parse(text).expect("a spec");
        assert_eq!(RunSpec::parse(&spec.canonical()).expect("canonical"), spec);
        assert!(spec.canonical().contains(text), "{}", spec.canonical());
    }
}

#[test]
fn a_table_of_a_cut_takes_no_other_keys() {
    let cases = [
        (
            "table = { factorised = { rank = 8, x = 1 } }",
            "line 3: unknown key cut.table.factorised.x; known here: rank",
        ),
        (
            "table = { factorised = { rank = 8 }, x = 1 }",
            "line 3: unknown key cut.table.x; known here: factorised",
        ),
        (
            "table = { factorized = { rank = 8 } }",
            "line 3: unknown key cut.table.factorized (did you mean factorised?); known here: factorised",
        ),
        (
            "[cut.table.factorised]\nrnk = 8",
            "line 4: unknown key cut.table.factorised.rnk (did you mean rank?)",
        ),
        (
            "table = { factorised = { rank = -8 } }",
            "line 3: cut.table.factorised.rank = -8 is not possible: must be from 1 to model.d_model",
        ),
        (
            "table = { factorised = { rank = 800 } }",
            "line 3: cut.table.factorised.rank = 800 is not possible: must be from 1 to 256",
        ),
        (
            "table = { factorised = 8 }",
            "line 3: cut.table = { factorised = 8 } is not possible: must be \"full\"",
        ),
        ("table = 8", "line 3: cut.table = 8 is not possible: must be \"full\""),
    ];
    for (text, expected) in cases {
        let words = refused(&format!("[cut]\nkind = \"nothing\"\n{text}"));
        assert!(words.starts_with(expected), "{text:?}\n  gave {words}\n  not  {expected}");
    }
}

#[test]
fn a_whole_number_that_its_type_cannot_hold_is_refused_with_its_range() {
    let cases = [
        ("[phases]\nepochs = -1", "line 2: phases.epochs = -1 is not possible: must be from 1 to 1048576"),
        (
            "[phases]\nepochs = 99999999999",
            "line 2: phases.epochs = 99999999999 is not possible: must be from 1 to 1048576",
        ),
        (
            "[phases]\nepochs = 99999999999999999999",
            "line 2: phases.epochs = 99999999999999999999 is not possible: must be from 1 to 1048576",
        ),
        ("seed = -1", "line 1: seed = -1 is not possible: must be from 0 to 9223372036854775807"),
        (
            "[phases]\nminers_min = 70000",
            "line 2: phases.miners_min = 70000 is not possible: must be from 1 to 64",
        ),
        (
            "[phases]\nvalidators_min = -1",
            "line 2: phases.validators_min = -1 is not possible: must be from 0 to 64",
        ),
        (
            "[model]\npreset = \"micro\"\nffn = -1",
            "line 3: model.ffn = -1 is not possible: must be from 1 to 262144",
        ),
        ("stages = -1", "line 1: stages = -1 is not possible: must be from 1 to 6"),
        ("cuts = [2, -1]", "line 1: cuts[1] = -1 is not possible: must "),
        (
            "[cut]\nkind = \"anchored\"\nwidth = 4\nbits = 300\ntable = \"full\"",
            "line 4: cut.bits = 300 is not possible: must be 1, 2, 3, 4, 8 or 16",
        ),
        // In a tagged table only the value tells which key is meant.
        (
            "[inner.schedule]\nkind = \"saw_tooth\"\nwarmup = 1\nplateau = -20\ncycle = 1\nfloor = 0.1\ntail = 0.1",
            "line 4: inner.schedule.plateau = -20 is not possible: must be from 0 to",
        ),
        (
            "[[data.train]]\nhash = \"6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85\"\ntokens = -1",
            "line 3: data.train[0].tokens = -1 is not possible: must be from 0 to",
        ),
    ];
    for (text, expected) in cases {
        let words = refused(text);
        assert!(words.starts_with(expected), "{text:?}\n  gave {words}\n  not  {expected}");
    }
}

#[test]
fn keys_of_tagged_and_listed_tables_are_named_in_full() {
    let hash = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
    let cases = [
        ("[outer]\nkind = \"nesterov\"\nmomentum = 0.9".to_owned(), "line 1: outer.learning_rate is missing"),
        ("seed = 1\n[outer]\nmomentum = 0.9".to_owned(), "line 2: outer.kind is missing"),
        (
            "[outer]\nkind = \"adam\"".to_owned(),
            "line 2: outer.kind = \"adam\" is not possible: unknown variant `adam`, expected `identity` or `nesterov`",
        ),
        (
            "[outer]\nkind = \"nesterov\"\nlearning_rate = \"high\"\nmomentum = 0.9".to_owned(),
            "line 3: outer.learning_rate = \"high\" is not possible: invalid type: string \"high\", expected a number",
        ),
        (
            format!("[[data.train]]\nhash = \"{hash}\"\ntokens = 1\n[[data.train]]\nhahs = \"{hash}\""),
            "line 5: unknown key data.train[1].hahs (did you mean hash?); known here: hash, tokens",
        ),
        (
            format!("[data]\ntrain = [{{ hash = \"{hash}\", tokns = 1 }}]"),
            "line 2: unknown key data.train[0].tokns (did you mean tokens?)",
        ),
        (format!("[[data.held_out]]\nhash = \"{hash}\""), "line 1: data.held_out[0].tokens is missing"),
        (
            "[model.rope_scaling]\nfactor = 2.0".to_owned(),
            "line 1: model.rope_scaling.low_frequency_factor is missing",
        ),
        (
            "[codec.lossy]\nelemnt = 1.0".to_owned(),
            "line 2: unknown key codec.lossy.elemnt (did you mean element?)",
        ),
    ];
    for (text, expected) in cases {
        let words = refused(&text);
        assert!(words.starts_with(expected), "{text:?}\n  gave {words}\n  not  {expected}");
    }
}

#[test]
fn a_checkpoint_gives_model_and_cut_where_the_spec_does_not() {
    let model = ModelConfig::preset("micro").expect("known");
    let cut = Cut::Plain { wire: model::config::Dtype::Bf16 };
    let base = Base { model: model.clone(), cut, cuts: None };
    let on = |text: &str| RunSpec::parse_on(text, &base);
    let spec = on("").expect("a spec");
    assert_eq!((&spec.model, spec.cut, spec.stages()), (&model, cut, 3));
    assert_eq!(
        on("[model]\nsequence = 32").expect("a spec").model,
        ModelConfig { sequence: 32, ..model.clone() }
    );
    assert_eq!(
        on("[model]\npreset = \"micro\"\nsequence = 32\nnorm_eps = 1e-5").expect("the same").model.sequence,
        32
    );
    let kept = on("[cut]\nkind = \"nothing\"\ntable = \"full\"").expect("a spec");
    assert_eq!(kept.cut, Cut::Nothing { table: Table::Full });
    for (text, expected) in [
        ("[model]\nffn = 8", "line 2: model.ffn = 8 is not possible: must be 160, as in the checkpoint"),
        ("[model]\nrope_theta = 5.0", "line 2: model.rope_theta = 5 is not possible: must be 10000, as"),
        ("[model]\npreset = \"small\"", "line 1: model.vocab = 4096 is not possible: must be 300, as"),
        ("[model]\nsequence = 0", "line 2: model.sequence = 0 is not possible: must be from 1 to"),
        ("[model]\nsequence = -1", "line 2: model.sequence = -1 is not possible: must be from 1 to"),
    ] {
        let words = on(text).expect_err("not possible").to_string();
        assert!(words.starts_with(expected), "{text:?}\n  gave {words}\n  not  {expected}");
    }
    // Weights of cuts are of use in those cuts alone: they are kept unless something else is asked for.
    let own = Base { model, cut: Cut::anchored(64), cuts: Some(vec![1]) };
    let cuts = |text: &str| RunSpec::parse_on(text, &own).expect("a spec").cuts;
    assert_eq!((cuts(""), cuts("stages = 2"), cuts("cuts = [3]")), (vec![1], vec![1], vec![3]));
    assert_eq!(cuts("stages = 3").len(), 2);
    assert_eq!(cuts("stages = 2\n[cut]\nkind = \"plain\"\nwire = \"bf16\""), cuts_of_plain());
}

/// Where two plain stages of micro are cut by cost.
fn cuts_of_plain() -> Vec<usize> {
    let text = "stages = 2\n[model]\npreset = \"micro\"\n[cut]\nkind = \"plain\"\nwire = \"bf16\"";
    RunSpec::parse(text).expect("a spec").cuts
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
