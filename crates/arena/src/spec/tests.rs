use proptest::prelude::*;

use super::*;
use crate::calendar::Moment;
use crate::rule::Direction;

const SHORT: &str = r#"
name = "matrix-compression"
kind = "codec"
[schedule]
start = "2026-01-13T00:00:00Z"
days = 2
"#;

/// What [`SHORT`] means, written out.
const GOLDEN: &str = r#"name = "matrix-compression"
title = "matrix-compression"
about = ""
kind = "codec"

[links]
doc_url = ""
image_url = ""
sponsor = ""
sponsor_url = ""

[rule]
name = "shoal-link-1"
failures_max_ppm = 10000
floor_ppb = 990000000
fuel_ps = 170
link_bytes_per_s = 12500000
module_share = 1000
reference_bytes = 2097152

[takeover]
margin_ppm = 2000
alpha_ppm = 10000

[schedule]
start = "2026-01-13T00:00:00Z"
zone = "UTC0"
at = "00:00"
days = 2
every_s = 0
rounds = 0
pool_s = 3600
opening_s = 3600
judging_s = 43200

[inputs]
source = "generator"
code = ""
samples = ""
items = 400
operator_share_ppm = 333333

[submission]
bytes_max = 1048576
forms = ["component"]
per_round_max = 4
latest_only = false
entries_max = 10000

[screening]
python = true
forbidden_modules = ["_ctypes", "_posixsubprocess", "cffi", "ctypes", "marshal", "posix", "pty", "subprocess"]
forbidden_names = ["__import__", "compile", "eval", "exec", "importlib.import_module", "os.execl", "os.execle", "os.execlp", "os.execlpe", "os.execv", "os.execve", "os.execvp", "os.execvpe", "os.popen", "os.posix_spawn", "os.posix_spawnp", "os.spawnl", "os.spawnle", "os.spawnlp", "os.spawnlpe", "os.spawnv", "os.spawnve", "os.spawnvp", "os.spawnvpe", "os.system", "runpy.run_module", "runpy.run_path"]
forbidden_attributes = ["__builtins__", "__code__", "__globals__", "__subclasses__"]
dynamic_attributes = true
literal_bytes_max = 65536
data_bytes_max = 67108864
binaries = false
architecture = "x86_64"

[resources]
runtime = ""
environment = ""
memory_bytes = 1610612736
fuel = 100000000000
call_s = 60
startup_s = 60
cpu_milli = 1000
processes = 64
disk_bytes = 1073741824

[judges]
agree = 2
takeover = 3
max = 5
distinct_operators = true
tolerance_ppm = 0
lease_s = 1200

[reveal]
code_delay_s = 86400

[reward]
weight_ppm = 0
base_burn_ppm = 900000
decay_s = 864000
split_ppm = [1000000]
lineage_ppm = 0

[fee]
amount = 0
currency = ""

[baseline]
name = ""
code = ""
bytes = 0
form = "component"
template = ""
"#;

fn with(section: &str, line: &str) -> Result<CompetitionSpec, SpecError> {
    let text = match section {
        "" => format!("{line}\n{SHORT}"),
        "schedule" => format!("{SHORT}{line}\n"),
        other => format!("{SHORT}[{other}]\n{line}\n"),
    };
    CompetitionSpec::parse(&text)
}

#[test]
fn golden_canonical_form_and_id() {
    let spec = CompetitionSpec::parse(SHORT).unwrap();
    assert_eq!(spec.canonical(), GOLDEN);
    assert_eq!(spec.id().0, Hash::of(GOLDEN.as_bytes()));
    assert_eq!(CompetitionSpec::parse(GOLDEN).unwrap(), spec);
    assert_eq!(spec.id().to_string().parse::<CompetitionId>().unwrap(), spec.id());
}

#[test]
fn every_value_is_part_of_the_id() {
    let base = CompetitionSpec::parse(GOLDEN).unwrap().id();
    for (from, to) in [
        ("alpha_ppm = 10000", "alpha_ppm = 10001"),
        ("floor_ppb = 990000000", "floor_ppb = 980000000"),
        ("days = 2", "days = 3"),
        ("[1000000]", "[800000, 160000, 32000]"),
        (r#"["component"]"#, r#"["component", "python"]"#),
        (
            "code = \"\"\nsamples",
            "code = \"0000000000000000000000000000000000000000000000000000000000000001\"\nsamples",
        ),
    ] {
        let text = GOLDEN.replacen(from, to, 1);
        assert_ne!(text, GOLDEN, "{from}");
        assert_ne!(CompetitionSpec::parse(&text).unwrap().id(), base, "{to}");
    }
    let apex = with("rule", "name = \"apex-2026-01-13\"").unwrap();
    assert_eq!((apex.takeover().margin_ppm, apex.takeover().alpha_ppm), (10_000, 0));
}

#[test]
fn a_spec_says_which_way_metrics_are_better() {
    let program = |metrics: &str| {
        let code = Hash::of(b"evaluator");
        let text = format!("{SHORT}[inputs]\nitems = 8\ncode = \"{code}\"\n[metrics]\n{metrics}\n");
        CompetitionSpec::parse(&text.replace("\"codec\"", "\"program\"")).map_err(|error| error.to_string())
    };
    let plain = program("").unwrap();
    assert!(!plain.canonical().contains("metrics"));
    let spec = program("higher = [\"hits\"]\nlower = [\"latency_p99\", \"bytes\"]").unwrap();
    assert_eq!(CompetitionSpec::parse(&spec.canonical()).unwrap(), spec);
    let way = |name| spec.metrics.direction(name);
    assert_eq!(
        (way("hits"), way("bytes"), way("other")),
        (Some(Direction::Higher), Some(Direction::Lower), None)
    );
    for (metrics, named) in [
        ("lower = [\"Latency\"]", "metrics.lower"),
        ("higher = [\"a\", \"a\"]", "metrics.higher"),
        ("higher = [\"a\"]\nlower = [\"a\"]", "metrics.lower = a"),
    ] {
        let error = program(metrics).unwrap_err();
        assert!(error.contains(named), "{error}");
    }
    let error = with("metrics", "higher = [\"a\"]").unwrap_err().to_string();
    assert!(error.contains("competition of codecs"), "{error}");
}

#[test]
fn what_nobody_could_judge_is_no_spec() {
    let program = |rule: &str, code: &str| {
        let text = format!("{SHORT}[inputs]\nitems = 8\n{code}[rule]\n{rule}");
        CompetitionSpec::parse(&text.replace("\"codec\"", "\"program\"")).map_err(|error| error.to_string())
    };
    let code = format!("code = \"{}\"\n", Hash::of(b"evaluator"));
    assert!(program("", &code).is_ok());
    assert!(program("", "").unwrap_err().contains("inputs.code"));
    // Where lower is better, no answer at all would win.
    let error = program("direction = \"lower\"\n", &code).unwrap_err();
    assert!(error.contains("rule.missing_nano"), "{error}");
    assert!(program("direction = \"lower\"\nmissing_nano = 5000000000\n", &code).is_ok());
    let error = with("reward", "bounties = [{}]").unwrap_err().to_string();
    assert!(error.contains("reward.bounties[0].raw"), "{error}");
    let error = with("reward", "bounties = [{ raw = 1, sum = 0 }]").unwrap_err().to_string();
    assert!(error.contains("reward.bounties[0].sum") && error.contains("raw, share_ppm, rounds"), "{error}");
    let error = with("baseline", "name = \"zstd-3\"").unwrap_err().to_string();
    assert!(error.contains("baseline.code"), "{error}");
}

#[test]
fn impossible_values_name_key_value_and_range() {
    for (section, line, key, value, allowed) in [
        ("judges", "agree = 0", "judges.agree", "0", "1 to 15"),
        ("judges", "agree = 3\ntakeover = 2", "judges.takeover", "2", "3 to 15"),
        ("judges", "tolerance_ppm = 5", "judges.tolerance_ppm", "5", "0 to 0"),
        ("rule", "name = \"apex-2025-12-03\"", "rule.name", "\"apex-2025-12-03\"", "apex-2025-12-04"),
        ("rule", "name = \"objective-1\"", "rule.name", "\"objective-1\"", "shoal-link-1"),
        ("rule", "link_bytes_per_s = 1.5", "rule.link_bytes_per_s", "1.5", "1000 to 1000000000000"),
        ("reward", "weight_ppm = 1000001", "reward.weight_ppm", "1000001", "0 to 1000000"),
        ("reward", "split_ppm = [800000, 300000]", "reward.split_ppm", "[800000, 300000]", "at most 1000000"),
        ("reward", "contribution_ppm = 1000001", "reward.contribution_ppm", "1000001", "0 to 1000000"),
        ("fee", "amount = 1\npay_to = \"a\\nb\"", "fee.pay_to", "a…", "one line"),
        ("fee", "pay_to = \"a\"", "fee.pay_to", "a", "fee.amount = 0"),
        ("reward", "bounties = 3", "reward.bounties", "3", "[[reward.bounties]]"),
        ("reward", "bounties = [{ raw = nan }]", "reward.bounties[0].raw", "nan", "a number"),
        (
            "reward",
            "bounties = [{ raw = 1, share_ppm = 0 }]",
            "reward.bounties[0].share_ppm",
            "0",
            "1 to 1000000",
        ),
        (
            "reward",
            "bounties = [{ raw = 1, share_ppm = 600000 }, { raw = 2, share_ppm = 600000 }]",
            "reward.bounties",
            "1200000",
            "at most 1000000",
        ),
        ("reward", "split_ppm = []", "reward.split_ppm", "[]", "1 to 64"),
        ("submission", "forms = [\"ruby\"]", "submission.forms", "[\"ruby\"]", "component, python, native"),
        (
            "submission",
            "forms = [\"python\", \"python\"]",
            "submission.forms",
            "[\"python\", \"python\"]",
            "different",
        ),
        ("inputs", "items = 5000", "inputs.items", "5000", "1 to 4096"),
        ("inputs", "items = 7", "inputs.items", "7", "at least 8"),
        ("inputs", "code = \"abc\"", "inputs.code", "\"abc\"", "64 lower-case hex digits"),
        ("schedule", "zone = \"Europe/Berlin\"", "schedule.zone", "\"Europe/Berlin\"", "POSIX"),
        ("schedule", "at = \"25:00\"", "schedule.at", "\"25:00\"", "time of day"),
        ("schedule", "every_s = 100", "schedule.days", "2", "one of both"),
        ("schedule", "judging_s = 160000", "schedule.judging_s", "160000", "lower one of them"),
        ("", "title = \"a\\u0007b\"", "title", "\"a\\u0007b\"", "at most 128 bytes"),
        ("baseline", "form = 3", "baseline.form", "3", "component, python, native"),
    ] {
        match with(section, line).unwrap_err() {
            SpecError::Value { key: found, value: shown, allowed: range } => {
                assert_eq!((found.as_str(), shown.as_str()), (key, value), "{line}");
                assert!(range.contains(allowed), "{line}: {range}");
            }
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn screening_is_part_of_the_id_also_where_it_is_not_set() {
    let plain = CompetitionSpec::parse(SHORT).unwrap();
    // A build with other defaults must not mean something else by the same id.
    let text = plain.canonical();
    assert!(text.contains("[screening]\npython = true\n") && text.contains("\"os.spawnvpe\""), "{text}");
    assert_eq!(CompetitionSpec::parse(&text).unwrap(), plain);
    let same = with("screening", "architecture = \"x86_64\"").unwrap();
    assert_eq!(same.id(), plain.id());
    let set = with("screening", "forbidden_modules = [\"pty\", \"ctypes\"]\npython = false").unwrap();
    assert_ne!(set.id(), plain.id());
    assert_eq!(set.screening.forbidden_modules, ["ctypes", "pty"]);
    assert_eq!(CompetitionSpec::parse(&set.canonical()).unwrap(), set);
    let other_order = with("screening", "python = false\nforbidden_modules = [\"ctypes\", \"pty\"]").unwrap();
    assert_eq!(other_order.id(), set.id());
    for (line, value) in [
        ("forbidden_modules = [\"a b\"]", "a b"),
        ("forbidden_modules = [\"a\", \"a\"]", "\"a\""),
        ("forbidden_names = [\"os..system\"]", "os..system"),
        ("forbidden_attributes = [\"a.b\"]", "a.b"),
        ("literal_bytes_max = 1", "1"),
        ("architecture = \"vax\"", "vax"),
    ] {
        let error = with("screening", line).unwrap_err();
        let key = line.split(' ').next().unwrap();
        assert!(
            matches!(&error, SpecError::Value { key: named, value: said, .. }
                if *named == format!("screening.{key}") && said.contains(value)),
            "{error}"
        );
    }
}

#[test]
fn unknown_and_missing_keys_are_named() {
    for (section, line, key) in [
        ("", "nam = \"x\"", "nam"),
        ("judges", "agreee = 2", "judges.agreee"),
        ("schedule", "hours = 2", "schedule.hours"),
        ("prize", "money = 2", "prize"),
    ] {
        let error = with(section, line).unwrap_err();
        let SpecError::UnknownKey { key: found, known, .. } = &error else { panic!("{error:?}") };
        assert_eq!(found, key);
        assert!(!known.is_empty() && error.to_string().contains("known here"));
    }
    // A parameter of another rule is unknown.
    let text = "name = \"apex-2025-12-04\"\nfuel_ps = 3";
    assert!(matches!(with("rule", text), Err(SpecError::UnknownKey { .. })));
    for (text, key) in
        [("", "name"), ("name = \"a\"", "kind"), ("name = \"a\"\nkind = \"codec\"", "schedule.start")]
    {
        let Err(SpecError::Missing { key: found, allowed }) = CompetitionSpec::parse(text) else {
            panic!("{text}")
        };
        assert_eq!(found, key);
        assert!(!allowed.is_empty());
    }
    assert!(matches!(CompetitionSpec::parse("name = "), Err(SpecError::Syntax { .. })));
    let long = "#".repeat(limits::SPEC_BYTES_MAX + 1);
    assert!(matches!(CompetitionSpec::parse(&long), Err(SpecError::TooLong { .. })));
}

#[test]
fn a_command_prepares_programs_only() {
    let of = |forms: &str, prepare: &str| {
        let text = format!("{SHORT}[submission]\nforms = [{forms}]\n[resources]\nprepare = {prepare}\n");
        CompetitionSpec::parse(&text)
    };
    let spec = of("\"python\"", "[\"python\", \"build.py\", \"-O\", \"-O\"]").unwrap();
    assert_eq!(spec.resources.prepare, ["python", "build.py", "-O", "-O"]);
    assert_eq!(CompetitionSpec::parse(&spec.canonical()).unwrap(), spec);
    assert_ne!(spec.id(), of("\"python\"", "[\"python\", \"-O\", \"build.py\", \"-O\"]").unwrap().id());
    // Nothing to do is what specs meant that do not know the key.
    assert_eq!(of("\"component\"", "[]").unwrap(), CompetitionSpec::parse(SHORT).unwrap());
    let many = format!("[{}]", vec!["\"x\""; limits::COMMAND_WORDS + 1].join(", "));
    let long = format!("[\"{}\"]", "x".repeat(limits::COMMAND_WORD_BYTES + 1));
    for (forms, prepare) in [
        ("\"component\"", "[\"true\"]"),
        ("\"native\"", "\"make all\""),
        ("\"native\"", "[\"\"]"),
        ("\"native\"", "[\"a\\u0000b\"]"),
        ("\"native\"", &many),
        ("\"native\"", &long),
    ] {
        let error = of(forms, prepare).unwrap_err();
        assert!(
            matches!(&error, SpecError::Value { key, .. } if key == "resources.prepare"),
            "{prepare}: {error}"
        );
    }
}

#[test]
fn programs_have_their_own_rule() {
    let text = r#"
name = "routing"
kind = "program"
[inputs]
code = "0000000000000000000000000000000000000000000000000000000000000001"
[rule]
direction = "lower"
missing_nano = 5000000000
[judges]
tolerance_ppm = 1000
[schedule]
start = "2026-01-13T00:00:00Z"
every_s = 86400
"#;
    let spec = CompetitionSpec::parse(text).unwrap();
    assert_eq!(spec.rule().direction(), Direction::Lower);
    assert_eq!(CompetitionSpec::parse(&spec.canonical()).unwrap(), spec);
}

fn moment(text: &str) -> Millis {
    text.parse::<Moment>().unwrap().0
}

#[test]
fn rounds_change_at_the_same_time_of_day_through_both_changes_of_the_clock() {
    let text = r#"
name = "a"
kind = "codec"
[schedule]
start = "2026-03-26T12:00:00Z"
zone = "CET-1CEST,M3.5.0,M10.5.0/3"
at = "11:00"
days = 2
"#;
    let schedule = CompetitionSpec::parse(text).unwrap().schedule;
    // 11:00 in Berlin: 10:00 UTC in winter, 09:00 UTC in summer; the change is on the 29th.
    let opens: Vec<String> = (0..4).map(|round| Moment(schedule.opens(round)).to_string()).collect();
    assert_eq!(
        opens,
        ["2026-03-27T10:00:00Z", "2026-03-29T09:00:00Z", "2026-03-31T09:00:00Z", "2026-04-02T09:00:00Z"]
    );
    assert_eq!(schedule.closes(0), schedule.opens(1));
    assert_eq!(schedule.local_date(1), (2026, 3, 29));
    assert_eq!(schedule.round_at(moment("2026-03-27T09:59:59Z"), 0), None);
    assert_eq!(schedule.round_at(moment("2026-03-27T10:00:00Z"), 0), Some(0));
    assert_eq!(schedule.round_at(moment("2026-03-29T08:59:59Z"), 0), Some(0));
    assert_eq!(schedule.round_at(moment("2026-04-01T00:00:00Z"), 0), Some(2));
    assert_eq!(schedule.round_at(moment("2026-04-01T00:00:00Z"), 3), None);
    // The very hour that is skipped: half an hour after the change.
    let skipped = text.replace("11:00", "02:30");
    let schedule = CompetitionSpec::parse(&skipped).unwrap().schedule;
    assert_eq!(Moment(schedule.opens(1)).to_string(), "2026-03-29T01:30:00Z");
}

#[test]
fn an_arena_has_owners_and_a_rate() {
    let key = NodeId([0xab; 32]);
    let text = format!("name = \"demo\"\nowners = [\"{key}\"]\nrate_entries = 4\n");
    let spec = ArenaSpec::parse(&text).unwrap();
    assert_eq!(spec.owners, [Key(key)]);
    assert_eq!(ArenaSpec::parse(&spec.canonical()).unwrap(), spec);
    assert_eq!(spec.rate_window(), Millis(86_400_000));
    let error = ArenaSpec::parse("name = \"demo\"\nowners = [\"xyz\"]").unwrap_err();
    assert!(error.to_string().contains("owners"), "{error}");
    assert!(matches!(ArenaSpec::parse("name = \"demo\"\nowner = 3"), Err(SpecError::UnknownKey { .. })));
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in "(\\PC|\n){0,200}") {
        let _ = CompetitionSpec::parse(&text);
    }

    #[test]
    fn a_spec_that_reads_comes_back(
        days in 1_u32..400, items in 1_u32..5000, agree in 1_u8..16, weight in 0_u32..1_100_000,
        rule in prop::sample::select(vec!["apex-2025-12-02", "apex-2025-12-04", "apex-2026-01-13", "shoal-link-1", "shoal-link-exact-1"]),
    ) {
        let text = format!("{SHORT}[inputs]\nitems = {items}\n[judges]\nagree = {agree}\n[reward]\nweight_ppm = {weight}\n[rule]\nname = \"{rule}\"\n")
            .replace("days = 2", &format!("days = {days}"));
        if let Ok(spec) = CompetitionSpec::parse(&text) {
            let again = CompetitionSpec::parse(&spec.canonical()).unwrap();
            prop_assert_eq!(&again, &spec);
            prop_assert_eq!(again.id(), spec.id());
        }
    }

    #[test]
    fn rounds_follow_each_other_without_a_gap(start in 0_u64..4_000_000_000, days in 1_u32..9, at in 0_u32..1440, round in 0_u32..200,
        zone in prop::sample::select(vec!["UTC0", "CET-1CEST,M3.5.0,M10.5.0/3", "EST5EDT,M3.2.0,M11.1.0", "AEST-10AEDT,M10.1.0,M4.1.0/3"])) {
        let text = format!("name = \"a\"\nkind = \"codec\"\n[schedule]\nstart = \"{}\"\nzone = \"{zone}\"\nat = \"{:02}:{:02}\"\ndays = {days}\njudging_s = 3600\n",
            Moment(Millis(start * 1000)), at / 60, at % 60);
        let schedule = CompetitionSpec::parse(&text).unwrap().schedule;
        let (opens, closes) = (schedule.opens(round), schedule.closes(round));
        prop_assert!(opens >= Millis(start * 1000));
        let length = closes.since(opens).0 / 1000;
        prop_assert!(length >= schedule.shortest_round_s() && length <= u64::from(days) * 86_400 + 7200);
        prop_assert_eq!(schedule.round_at(opens, 0), Some(round));
        prop_assert_eq!(schedule.round_at(Millis(closes.0 - 1), 0), Some(round));
        prop_assert_eq!(schedule.round_at(closes, round), Some(round + 1));
    }
}
