//! An arena by its verbs: host, judge and entrant as processes; a host killed with -9 goes on.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::binary::{Place, Ran, component};

/// A process that does not outlive its test.
pub(crate) struct Process {
    child: Child,
    pub(crate) line: Value,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) struct Arena {
    pub(crate) place: Place,
    pub(crate) server: String,
    host: Option<Process>,
}

impl Arena {
    pub(crate) fn new() -> Self {
        let mut arena = Self { place: Place::new(), server: String::new(), host: None };
        for name in ["owner", "entrant", "judge", "stranger"] {
            arena.run(&["key", "new", &arena.key(name)]).good();
        }
        arena.run(&["arena", "link", "--key", &arena.key("owner")]).good();
        arena.serve("127.0.0.1:0");
        arena.run(&["arena", "link", "--server", &arena.server]).good();
        arena
    }

    pub(crate) fn key(&self, name: &str) -> String {
        self.place.path(&format!("{name}.key")).display().to_string()
    }

    pub(crate) fn id(&self, name: &str) -> String {
        self.run(&["key", "show", &self.key(name)]).good().out.trim().to_owned()
    }

    /// Config and data folders lie in the place.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(args);
        let folder = |name: &str| self.place.path(name);
        command.env("XDG_CONFIG_HOME", folder("config")).env("XDG_DATA_HOME", folder("data"));
        command.env_remove("SHOAL_ARENA").env_remove("SHOAL_PASSPHRASE");
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.command(args);
        Ran::wait(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("shoal starts"))
    }

    pub(crate) fn object(&self, args: &[&str]) -> Value {
        let all: Vec<&str> = args.iter().chain(&["--json"]).copied().collect();
        self.run(&all).good().objects().pop().expect("an object")
    }

    pub(crate) fn spawn(&self, args: &[&str]) -> Process {
        let mut command = self.command(args);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("shoal starts");
        let out = child.stdout.take().expect("piped");
        let mut reader = BufReader::new(out);
        let mut line = String::new();
        reader.read_line(&mut line).expect("a first line");
        // The rest is read, so that the process never waits for us.
        std::thread::spawn(move || reader.lines().map_while(Result::ok).for_each(drop));
        Process { child, line: serde_json::from_str(&line).unwrap_or(Value::Null) }
    }

    fn serve(&mut self, bind: &str) {
        let judge = format!("{}=north", self.id("judge"));
        let folder = self.place.path("arena").display().to_string();
        let args = ["arena", "host", &folder, "--bind", bind, "--judge", &judge, "--json"];
        let host = self.spawn(&args);
        self.server = host.line["server"].as_str().expect("its address").to_owned();
        self.host = Some(host);
    }

    /// The orchestrator of a run, for what it says of its codec.
    fn follower(&self, run: &str) -> Follower {
        let args = ["--json", "orchestrator", run, "--bind", "127.0.0.1:0", "--no-relay"];
        let mut child = self.command(&args).stdout(Stdio::piped()).spawn().expect("shoal starts");
        let out = child.stdout.take().expect("piped");
        let (sender, pinned) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
                if event["event"] == "codec" && event["news"] == "pinned" {
                    drop(sender.send(event["about"].to_string()));
                }
            }
        });
        Follower { _process: Process { child, line: Value::Null }, pinned }
    }

    /// Killed with -9.
    fn kill(&mut self) {
        drop(self.host.take());
    }
}

/// A run without miners that follows a competition.
struct Follower {
    _process: Process,
    pinned: std::sync::mpsc::Receiver<String>,
}

impl Follower {
    /// Where its champion comes from, once it has one.
    fn taken(&self) -> String {
        self.pinned.recv_timeout(super::binary::DEADLINE).expect("a champion is pinned")
    }
}

pub(crate) fn spec(open_s: u64, baseline: &str) -> String {
    let bytes = std::fs::read(baseline).expect("the baseline");
    let every_s = open_s + 200;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let start = now + open_s - every_s;
    let (days, rest) = (start / 86_400, start % 86_400);
    let (year, month, day) = arena::calendar::civil_from_days(days as i64);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!(
        "name = \"e2e\"\nkind = \"codec\"\n[schedule]\nstart = \"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z\"\n\
         every_s = {every_s}\nrounds = 1\nopening_s = 10\njudging_s = 180\n[inputs]\nitems = 8\n[takeover]\nalpha_ppm = 0\n[submission]\nbytes_max = 4194304\n\
         [judges]\nagree = 1\ntakeover = 1\nmax = 1\nlease_s = 120\n[baseline]\nname = \"zstd-3\"\ncode = \"{}\"\nbytes = {}\n",
        wire::Hash::of(&bytes),
        bytes.len()
    )
}

/// The answer to a plain GET, with its head.
fn http_get(server: &str, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let address = server.strip_prefix("http://").expect("an address");
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn registration_and_an_entry_s_own_words_by_their_verbs() {
    let arena = Arena::new();
    let (baseline, entry) = (component("zstd-3"), component("huffman"));
    let path = arena.place.path("spec.toml").display().to_string();
    let text = spec(3600, &baseline).replace("bytes_max", "registered = true\nbytes_max");
    std::fs::write(&path, text).expect("a spec");
    arena.run(&["arena", "open", &path, "--with", &baseline]).good();
    let (entrant, id) = (arena.key("entrant"), arena.id("entrant"));
    let submit = ["arena", "submit", &entry, "-c", "e2e", "--key", &entrant, "--title", "plain huffman"];
    let next = format!("shoal arena register e2e {id}");
    arena.run(&submit).bad(3, &["only registered keys", &next]);
    let mine = ["arena", "show", "e2e", "--key", &entrant];
    let shown = arena.run(&mine).good().out;
    assert!(shown.contains("0 keys, yours is not"), "{shown}");
    arena.run(&["arena", "register", "e2e", &id, "--key", &entrant]).bad(1, &["only the opener"]);
    let list = arena.place.path("keys.txt").display().to_string();
    std::fs::write(&list, format!("# those of this round\n{}\n\n{id}\n", arena.id("stranger")))
        .expect("a list");
    assert_eq!(arena.object(&["arena", "register", "e2e", &format!("@{list}")])["keys"], 2);
    arena.run(&["arena", "register", "e2e", &arena.id("stranger"), "--remove"]).good();
    assert_eq!(arena.object(&["arena", "register", "e2e"])["keys"], serde_json::json!([id]));
    assert_eq!(arena.object(&mine)["may_enter"], true);

    let wrong = [&submit[..], &["--link", "here"]].concat();
    arena.run(&wrong).bad(3, &["no address of a page"]);
    let made = arena.object(&submit)["submission"].as_u64().expect("an id").to_string();
    assert_eq!(arena.object(&["arena", "submissions"])["submissions"][0]["title"], "plain huffman");
    // Sealed: nobody has its code, and its maker is the first who sees results.
    let sealed = |words: &str| format!("results        shown {words}\ncode           sealed\nfile ");
    let shown = arena.run(&["arena", "result", &made, "--key", &entrant]).good().out;
    assert!(shown.contains(&sealed("once judges have settled it")), "{shown}");
    assert!(shown.contains("code.wasm (sealed)"), "{shown}");
    let shown = arena.run(&["arena", "result", &made]).good().out;
    assert!(shown.contains(&sealed("when the round is completed")), "{shown}");
    let shown = arena.run(&["arena", "show", "e2e"]).good().out;
    assert!(shown.contains("rounds         of 1 h 3 min; code is shown 1 d after one\n"), "{shown}");
    let describe = ["arena", "describe", &made, "--key", &entrant, "--title", "huffman", "--licence", "MIT"];
    arena.run(&describe).good();
    let shown = arena.run(&["arena", "result", &made]).good().out;
    assert!(shown.contains("title          huffman\n") && shown.contains("licence        MIT\n"), "{shown}");
}

#[test]
fn lists_boards_judges_and_weights_by_their_verbs() {
    let arena = Arena::new();
    let baseline = component("zstd-3");
    let open = |name: &str, text: String| {
        let path = arena.place.path(&format!("{name}.toml")).display().to_string();
        std::fs::write(&path, text.replace("\"e2e\"", &format!("\"{name}\""))).expect("a spec");
        arena.run(&["arena", "open", &path, "--with", &baseline]).good();
    };
    open("running", spec(3600, &baseline));
    // Its first round opens in the year after next.
    let later = spec(3600, &baseline);
    let start = later.find("start = \"").expect("a start") + 9;
    let year: u32 = later[start..start + 4].parse().expect("a year");
    open("coming", later.replacen(&year.to_string(), &(year + 2).to_string(), 1));

    let names = |args: &[&str]| {
        let found = arena.object(&[&["arena", "list"], args].concat());
        let rows = found["competitions"].as_array().expect("a list").clone();
        rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]).len(), 2);
    assert_eq!(names(&["--state", "pending"]), ["coming"]);
    assert_eq!(names(&["--state", "active"]), ["running"]);
    assert_eq!(names(&["--state", "completed"]), [""; 0]);
    assert_eq!(names(&["--kind", "codec", "--name", "RUN"]), ["running"]);
    assert_eq!(names(&["--kind", "program"]), [""; 0]);
    let listed = arena.run(&["arena", "list"]).good().out;
    let row = |name: &str| listed.lines().find(|line| line.contains(name)).expect("a row").to_owned();
    assert!(row("coming").contains(&format!("{}-", year + 2)) && row("coming").contains("(in "), "{listed}");
    assert!(row("running").trim_end().ends_with('–'), "{listed}");

    let entry = component("huffman");
    arena.run(&["arena", "submit", &entry, "-c", "running", "--key", &arena.key("entrant")]).good();
    let head = |mode: &str| {
        let shown = arena.run(&["arena", "leaderboard", "--mode", mode]).good().out;
        shown.lines().next().expect("a line of titles").to_owned()
    };
    assert!(head("mean-score").contains(" mean   mean place"), "{}", head("mean-score"));
    assert!(head("median-score").contains(" median   mean place"), "{}", head("median-score"));
    assert!(head("median-place").contains(" mean median place"), "{}", head("median-place"));

    let judges = arena.run(&["arena", "judges", "--json"]).good();
    let judges: Value = serde_json::from_str(judges.out.trim()).expect("a list");
    assert_eq!((&judges[0]["operator"], &judges[0]["judge"]), (&"north".into(), &arena.id("judge").into()));
    let shown = arena.run(&["arena", "judges"]).good().out;
    assert!(shown.lines().nth(1).expect("a judge").contains(" north            yes "), "{shown}");
    assert_eq!(arena.object(&["arena", "weights"])["burned_ppb"], 1_000_000_000);
    assert!(arena.run(&["arena", "weights"]).good().out.contains("burned "));

    // A price, and where it is paid.
    open(
        "paid",
        format!(
            "{}[fee]\namount = 5\ncurrency = \"shells\"\npay_to = \"account 7\"\n",
            spec(3600, &baseline)
        ),
    );
    assert_eq!(arena.object(&["arena", "show", "paid"])["pay_to"], "account 7");
    let shown = arena.run(&["arena", "show", "paid"]).good().out;
    assert!(shown.contains("price          5 shells an entry\npaid to        account 7\n"), "{shown}");
    let submit = ["arena", "submit", &entry, "-c", "paid", "--key", &arena.key("entrant")];
    arena.run(&submit).bad(3, &["costs 5 shells", "pay to account 7"]);
    let receipt = "7".repeat(64);
    let named = [&submit[..], &["--receipt", &receipt]].concat();
    arena.run(&named).bad(1, &["this entry costs 5: the receipt is not known (yet); pay to account 7"]);
}

#[test]
fn a_competition_by_its_verbs() {
    let mut arena = Arena::new();
    let (baseline, entry) = (component("zstd-3"), component("huffman"));
    let path = arena.place.path("spec.toml").display().to_string();
    std::fs::write(&path, spec(40, &baseline)).expect("a spec");
    let opened = arena.object(&["arena", "open", &path, "--with", &baseline]);
    assert_eq!(opened["name"], "e2e");
    arena.run(&["arena", "announce", "good luck", "-c", "e2e"]).good();
    let judge =
        arena.spawn(&["arena", "judge", "--key", &arena.key("judge"), "--bind", "127.0.0.1:0", "--json"]);
    let page = judge.line["metrics"].as_str().and_then(|page| page.strip_suffix("/metrics"));
    let page = page.expect("the address of its metrics").to_owned();

    let entrant = arena.key("entrant");
    let checked = arena.object(&["arena", "submit", &entry, "-c", "e2e", "--key", &entrant, "--check"]);
    assert_eq!((&checked["ok"], &checked["form"]), (&Value::Bool(true), &Value::from("component")));
    // The verdict is the evaluator's own, on inputs of the competition's generator; nothing was entered.
    assert_eq!(checked["verdict"]["state"], "scored", "{checked}");
    assert!(checked["verdict"]["compression_ratio"].as_f64() > Some(1.0), "{checked}");
    assert_eq!(arena.object(&["arena", "submissions"])["pagination"]["total"], 0);
    let samples = arena.place.path("samples").display().to_string();
    let drawn =
        arena.run(&["arena", "samples", "-c", "e2e", "--items", "2", "-o", &samples, "--json"]).good();
    assert_eq!(drawn.objects().len(), 2);
    let on = ["arena", "submit", &entry, "-c", "e2e", "--key", &entrant, "--check", "--data", &samples];
    assert_eq!(arena.object(&on)["verdict"]["inputs"], 2);
    let broken = arena.place.path("broken.wasm").display().to_string();
    std::fs::write(&broken, b"\0asm\x0d\0\x01\0junk").expect("a file");
    let ran = arena.run(&["arena", "submit", &broken, "-c", "e2e", "--key", &entrant, "--check", "--json"]);
    assert_eq!((ran.code, &ran.objects()[0]["verdict"]["state"]), (Some(1), &Value::from("rejected")));
    std::fs::write(&broken, b"\0as").expect("a file");
    let ran = arena.run(&["arena", "submit", &broken, "-c", "e2e", "--key", &entrant]);
    ran.bad(3, &["its name ends in .wasm", "damaged"]);
    let spec_is_no_component = arena.run(&["arena", "submit", &path, "-c", "e2e", "--key", &entrant]);
    spec_is_no_component.bad(3, &["is text", "--form python"]);
    let as_python = ["arena", "submit", &path, "-c", "e2e", "--key", &entrant, "--form", "python"];
    arena.run(&as_python).bad(3, &["form python is not admitted"]);
    let folder = arena.place.path("samples").display().to_string();
    arena.run(&["arena", "submit", &folder, "-c", "e2e", "--key", &entrant]).bad(3, &["is a folder"]);
    arena.run(&["arena", "submit", &entry, "-c", "e2e", "--key", &entry]).bad(3, &["is no key"]);

    // A run that asks for a champion before there is one goes on without.
    let run_spec = "stages = 2\n[model]\npreset = \"micro\"\n[cut]\nkind = \"plain\"\nwire = \"bf16\"\n\
                    [codec]\nactivations = \"arena:e2e\"\ngradients = \"arena:e2e\"\n";
    std::fs::write(arena.place.path("run.toml"), run_spec).expect("a spec");
    arena.place.write_text("text/a.txt", 40_000);
    let server = arena.server.clone();
    let new = |name| ["run", "new", name, "--spec", "run.toml", "--data", "text", "--arena", &server];
    let early = [&new("early")[..], &["--once"]].concat();
    arena.run(&early).bad(3, &["has no champion yet"]);
    let made = arena.run(&new("early")).good();
    assert!(made.err.contains("none yet"), "{}", made.err);
    arena.run(&["arena", "link", "--key", &entrant]).good();
    let follower = arena.follower("early");
    assert!(
        arena.run(&["run", "show", "early"]).good().out.contains("follows    competition e2e at http://")
    );

    // The host dies with an open round, and goes on at the same port.
    let port = arena.server.rsplit_once(':').expect("a port").1.to_owned();
    let ran = arena.run(&["arena", "submit", &entry, "-c", "e2e", "--key", &entrant, "--json"]).good();
    let submission = ran.objects()[0]["submission"].as_u64().expect("an id").to_string();
    arena.kill();
    arena.serve(&format!("127.0.0.1:{port}"));
    let opened = arena.run(&["arena", "agent", "--key", &entrant, "--json"]).good();
    assert!(
        opened.objects().iter().any(|row| row["submission"].as_u64() == submission.parse().ok()),
        "{}",
        opened.out
    );

    let events = arena.run(&["arena", "watch", "--from", "0", "-n", "4", "--json"]).good().objects();
    assert_eq!(events[0]["kind"], "competition_opened");
    let scored = super::binary::until("the verdict", || {
        let row = arena.object(&["arena", "result", &submission, "--key", &entrant]);
        (row["state"] == "scored" && row["round_state"] == "completed").then_some(row)
    });
    assert!(scored["compression_ratio"].as_f64().expect("a ratio") > 1.0);
    let told = http_get(&page, "/metrics");
    assert!(told.contains("shoal_judge_judged_total{outcome=\"measured\"} 2"), "entry and baseline: {told}");
    assert!(http_get(&page, "/healthz").contains("\"status\":\"ok\""));
    drop(judge);

    let listed = arena.run(&["arena", "submissions", "-c", "e2e"]).good().out;
    assert!(listed.contains(" code log ") && listed.contains(" base "), "{listed}");
    let shown = arena.run(&["arena", "result", &submission]).good().out;
    assert!(shown.contains("judged ") && shown.contains(", took ") && shown.contains("leads"), "{shown}");
    arena
        .run(&["arena", "result", &submission, "-f", "nothing.log"])
        .bad(1, &["no file nothing.log", "lists those"]);

    let board = arena.object(&["arena", "leaderboard", "-c", "e2e"]);
    assert_eq!(board["rows"][0]["submission_id"].to_string(), submission);
    let shown = arena.object(&["arena", "show", "e2e"]);
    assert_eq!(shown["top"]["submission_id"].to_string(), submission);
    let since = shown["top"]["since"].as_str().expect("a time");
    let words = arena.run(&["arena", "show", "e2e"]).good().out;
    let leads = words.lines().find(|line| line.starts_with("leads ")).expect("a leader");
    assert!(
        leads.contains(&format!("since {}", &since[..16])) && leads.ends_with(" ago)"),
        "{leads} {since}"
    );
    assert_eq!(arena.object(&["arena", "list"])["pagination"]["total"], 0, "it is over");
    assert_eq!(arena.object(&["arena", "list", "--all"])["pagination"]["total"], 1);
    let mine = arena.object(&["arena", "submissions", "--mine", "--key", &entrant]);
    assert_eq!(mine["pagination"]["total"], 1);
    let profile = arena.object(&["arena", "profile", "--key", &entrant]);
    assert_eq!(profile["leader"]["first_places"], 1);
    assert_eq!(arena.object(&["arena", "leaderboard"])["rows"][0]["entrant"], profile["leader"]["entrant"]);
    assert!(!arena.run(&["arena", "logs", &submission]).good().out.trim().is_empty());
    let logs = arena.run(&["arena", "logs", &submission, "--json"]).good();
    let logs: Value = serde_json::from_str(logs.out.trim()).expect("a list");
    assert!(logs[0]["usage"]["fuel"].as_u64() > Some(0) && logs[0]["failure"].is_null(), "{logs}");
    assert!(logs[0]["machine"]["cores"].as_u64() > Some(0), "{logs}");
    let result = arena.run(&["arena", "result", &submission]).good().out;
    assert!(result.contains("took") && result.contains("G fuel") && result.contains("wasmtime"), "{result}");

    // What leads is what runs take that ask for the competition's champion: the one made before anybody led too.
    let source = format!("arena:e2e entry {submission}");
    assert!(follower.taken().contains(&source));
    // Its log is read while its orchestrator writes it.
    let read = |args: &[&str]| arena.run(args).good().out;
    assert!(read(&["run", "show", "early"]).contains(&source), "the champion stands in the log");
    assert!(read(&["verify", "early"]).contains("follows: "));
    assert!(read(&["run", "log", "early", "early.log"]).contains("blocks"));
    drop(follower);
    // Here its maker's, whose code is not shown to others yet.
    arena.run(&["arena", "link", "--key", &arena.key("owner")]).good();
    arena.run(&new("a-run")).bad(1, &["not shown yet"]);
    arena.run(&["arena", "link", "--key", &entrant]).good();
    let made = arena.run(&new("a-run")).good();
    assert!(made.err.contains(&source), "{}", made.err);
    assert!(arena.place.path("a-run/codec.wish").exists() && arena.place.path("a-run/codec.arena").exists());
    assert!(arena.run(&["run", "codec", "a-run", "--off"]).good().out.contains("does not run"));
    assert!(!arena.place.path("a-run/codec.arena").exists());
    arena.run(&["arena", "link", "--key", &arena.key("owner")]).good();

    // Code: its maker's at once, others' after the delay; a gate is an error.
    let saved = arena.place.path("saved.wasm").display().to_string();
    arena.run(&["arena", "code", &submission, "-o", &saved, "--key", &entrant]).good();
    assert_eq!(std::fs::read(&saved).expect("saved"), std::fs::read(&entry).expect("the entry"));
    let code = arena.object(&["arena", "code", &submission, "--key", &entrant]);
    let plain = data_encoding::BASE64.decode(code["base64"].as_str().expect("no text").as_bytes());
    assert_eq!(plain.expect("base64"), std::fs::read(&entry).expect("the entry"));
    // The same by round, maker and version.
    let detail = arena.object(&["arena", "result", &submission, "--key", &entrant]);
    let of = |key: &str| detail[key].to_string().trim_matches('"').to_owned();
    let (round, maker, version) = (of("round_number"), of("entrant"), of("version"));
    let named = ["--round", &round, "--entrant", &maker, "--version", &version, "--key", &entrant];
    let again = arena.object(&[&["arena", "code", "-c", "e2e"], &named[..]].concat());
    assert_eq!(again, code);
    let file = arena.object(&["arena", "result", &submission, "-f", "metadata.json"]);
    assert_eq!((&file["file"], file["text"].is_string()), (&"metadata.json".into(), true));
    let spec = arena.object(&["arena", "show", "e2e", "--spec"]);
    assert!(spec["spec"].as_str().expect("a text").contains("name = \"e2e\""), "{spec}");
    let stranger = arena.key("stranger");
    arena.run(&["arena", "code", &submission, "--key", &stranger]).bad(1, &["not shown yet"]);
    arena.run(&["arena", "show", "nothing-like-it"]).bad(1, &["no competition"]);
    arena.run(&["arena", "announce", "hello", "--key", &stranger]).bad(1, &["only an owner"]);
    arena.run(&["arena", "announce", "hello"]).good();

    let log = arena.place.path("arena.log").display().to_string();
    let got = arena.place.path("baseline.wasm").display().to_string();
    arena.run(&["arena", "get", "e2e", "baseline", "-o", &got]).good();
    assert_eq!(std::fs::read(&got).expect("fetched"), std::fs::read(&baseline).expect("the baseline"));
    arena
        .run(&["arena", "get", "e2e", "template", "-o", &got])
        .bad(3, &["names no template", "arena new codec"]);
    let history = arena.object(&["arena", "show", "e2e", "--history"]);
    assert_eq!(history["points"][0]["submission_id"].to_string(), submission);
    arena.run(&["arena", "announce", "too late", "-c", "e2e"]).bad(1, &["no competition", "under way"]);
    assert!(arena.run(&["arena", "show", "e2e", "--notes"]).good().out.contains("good luck"));
    let receipt = "7".repeat(64);
    let payer = arena.id("entrant");
    arena.run(&["arena", "paid", "--receipt", &receipt, "--payer", &payer, "--amount", "5"]).good();
    assert!(arena.run(&["arena", "receipts", "--key", &entrant]).good().out.contains(&receipt));
    assert!(arena.run(&["arena", "profile", "--key", &entrant]).good().out.contains("entries, earned"));

    let audit = arena.object(&["arena", "audit", "--out", &log]);
    assert_eq!((&audit["follows"], &audit["rounds"]), (&Value::Bool(true), &Value::from(1)));
    // The verdict again, from what the log names; who may not see the code cannot.
    let run_log = arena.place.path("run.log").display().to_string();
    let rerun = ["arena", "audit", "--rerun", &submission, "--key", &entrant];
    let all = arena.object(&[&rerun[..], &["--run-log", &run_log]].concat());
    let (again, held) = (&all["rerun"], Value::Bool(true));
    assert_eq!((&all["follows"], &again["agrees"]), (&held, &held), "{all}");
    let judged = arena.object(&["arena", "result", &submission, "--key", &entrant]);
    let outputs = &judged["judgements"][0]["outputs"];
    assert_eq!((&again["log"]["outputs_hash"], &again["here"]["outputs_hash"]), (outputs, outputs), "{all}");
    assert!(std::fs::read_to_string(&run_log).expect("its log").contains("8 inputs"));
    let words = arena.run(&[&rerun[..], &["--file", &log]].concat()).good().out;
    assert!(words.contains("1 judges found measurements on 8 inputs"), "{words}");
    arena.run(&["arena", "audit", "--rerun", &submission, "--key", &stranger]).bad(1, &["not shown yet"]);
    arena.run(&["arena", "audit", "--rerun", "999"]).bad(3, &["no submission 999"]);

    let mut bytes = std::fs::read(&log).expect("the log");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&log, bytes).expect("a log");
    assert_eq!(arena.run(&["arena", "audit", "--file", &log]).code, Some(4));
}

#[test]
fn keys_are_encrypted_if_asked() {
    let place = Place::new();
    let file = place.path("sealed.key").display().to_string();
    let with = |words: &str, args: &[&str]| {
        let mut command = place.command(args);
        command.env("SHOAL_PASSPHRASE", words).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ran::wait(command.spawn().expect("shoal starts"))
    };
    with("short", &["key", "new", &file, "--encrypt"]).bad(3, &["at least 8 characters"]);
    let made = with("correct horse", &["key", "new", &file, "--encrypt"]).good().out;
    assert_eq!(with("correct horse", &["key", "show", &file]).good().out, made);
    with("battery staple", &["key", "show", &file]).bad(3, &["does not open"]);
    let text = std::fs::read_to_string(&file).expect("the key file");
    assert!(text.starts_with("shoal encrypted key 1\n"));
    with("correct horse", &["key", "new", &file, "--encrypt"]).bad(3, &["cannot make the key"]);
    place.run(&["key", "show", &file]).bad(3, &["SHOAL_PASSPHRASE"]);

    // In place: to plain and back, the same key all the way; what a broken-off run left beside it changes nothing.
    with("battery staple", &["key", "decrypt", &file]).bad(3, &["does not open"]);
    with("correct horse", &["key", "encrypt", &file]).bad(3, &["encrypted already", "shoal key decrypt"]);
    assert_eq!(std::fs::read_to_string(&file).expect("the key file"), text, "nothing was changed");
    std::fs::write(place.path(".sealed.key.replacing"), "half a k").expect("a left-over");
    assert_eq!(with("correct horse", &["key", "decrypt", &file]).good().out, made);
    assert_eq!(place.run(&["key", "show", &file]).good().out, made);
    with("correct horse", &["key", "decrypt", &file]).bad(3, &["is not encrypted"]);
    with("short", &["key", "encrypt", &file]).bad(3, &["at least 8 characters"]);
    assert_eq!(place.run(&["key", "show", &file]).good().out, made);
    assert_eq!(with("battery staple", &["key", "encrypt", &file]).good().out, made);
    with("correct horse", &["key", "show", &file]).bad(3, &["does not open"]);
    assert_eq!(with("battery staple", &["key", "show", &file]).good().out, made);
    assert_eq!(super::binary::entries(place.path("").as_path()), ["sealed.key"]);
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).expect("the key file"));
        assert_eq!(mode & 0o777, 0o600);
    }
    let missing = place.path("missing.key").display().to_string();
    with("correct horse", &["key", "encrypt", &missing]).bad(3, &["no key at"]);
    with("correct horse", &["key", "decrypt", &missing]).bad(3, &["no key at"]);
    place.run(&["arena", "list", "--server", "http://127.0.0.1:1"]).bad(1, &["no answer from"]);
    place.run(&["arena", "list", "--server", "ftp://nowhere"]).bad(3, &["is not the address of a host"]);
}
