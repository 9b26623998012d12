//! What the arena reads: specs, records, data sets' manifests, requests signed by hotkeys.

use api::epistula;
use arena::Fold as _;
use arena::record::{Control, Record, Statement};
use arena::spec::{ArenaSpec, CompetitionSpec};
use judge::dataset::Manifest;
use wire::{Hash, Millis, SigningKey};

use crate::wire_targets::canonical;

/// Any text as the spec of a competition and of an arena.
pub(crate) fn spec(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(spec) = CompetitionSpec::parse(&text) {
        let again = CompetitionSpec::parse(&spec.canonical()).expect("its own text is a spec");
        assert_eq!(again.id(), spec.id());
    }
    if let Ok(spec) = ArenaSpec::parse(&text) {
        let again = ArenaSpec::parse(&spec.canonical()).expect("its own text is a spec");
        assert_eq!(again.run_id(), spec.run_id());
    }
}

const COMPETITION: &str = r#"
name = "matrix"
kind = "codec"
[schedule]
start = "2026-01-01T01:00:00Z"
every_s = 3600
pool_s = 60
opening_s = 60
judging_s = 1800
[inputs]
items = 16
[submission]
bytes_max = 20000
forms = ["component", "python"]
per_round_max = 100
[judges]
lease_s = 60
"#;

pub(crate) fn specs() -> Vec<Vec<u8>> {
    let whole = CompetitionSpec::parse(COMPETITION).expect("a spec").canonical();
    let arena = ArenaSpec::parse("name = \"test\"").expect("a spec").canonical();
    vec![COMPETITION.into(), whole.into_bytes(), arena.into_bytes()]
}

/// Any bytes as what stands in an arena's log.
pub(crate) fn records(input: &[u8]) {
    canonical::<Statement>(input);
    if let Some(Record::Control(control @ Control::Genesis { .. })) = canonical::<Record>(input) {
        let Control::Genesis { spec, .. } = &control else { return };
        let _ = arena::State::genesis(wire::RunId(Hash::of(spec.as_bytes()).0), &control);
    }
}

pub(crate) fn some_records() -> Vec<Vec<u8>> {
    let key = SigningKey::from_bytes(&[2; 32]);
    let spec = ArenaSpec::parse("name = \"test\"").expect("a spec").canonical();
    let genesis: Record = Record::Control(Control::Genesis { spec, host: key.node_id() });
    let spec = CompetitionSpec::parse(COMPETITION).expect("a spec");
    let competition = spec.id();
    let hash = Hash::of(b"any");
    let statements = [
        Statement::Open { spec: spec.canonical() },
        Statement::Announce { competition: Some(competition), text: "hello".into() },
        Statement::Submit {
            competition,
            seal: hash,
            form: arena::spec::Form::Component,
            parents: vec![arena::record::EntryId(3)],
            receipt: Some(hash),
        },
        Statement::Unseal { entry: arena::record::EntryId(3), code: hash, bytes: 9, salt: hash },
        Statement::Register { competition, keys: vec![key.node_id()], enter: true },
        Statement::Lease { want: 3 },
    ];
    statements.iter().map(wire::to_bytes).chain([wire::to_bytes(&genesis)]).collect()
}

/// Any bytes as `manifest.csv`.
pub(crate) fn manifest(input: &[u8]) {
    if let Ok(manifest) = Manifest::parse(input) {
        let again = Manifest::parse(manifest.to_csv().as_bytes()).expect("its own text is a manifest");
        assert_eq!(again.items.len(), manifest.items.len());
    }
}

pub(crate) fn manifests() -> Vec<Vec<u8>> {
    let hash = Hash::of(b"any");
    let whole = format!(
        "file,blake3,bytes,dtype,rows,cols,direction,operator\na.bin,{hash},8,bf16,2,2,forward,{}\nb/c.bin,,,,,,backward,\n",
        SigningKey::from_bytes(&[2; 32]).node_id()
    );
    vec![whole.into_bytes(), b"a.bin\nb.bin\n".to_vec()]
}

/// Any bytes as the headers, query and body of a request signed by a hotkey: parts between zero bytes.
pub(crate) fn signed(input: &[u8]) -> [&[u8]; 6] {
    let mut parts = input.splitn(6, |&byte| byte == 0);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// Any bytes as the headers, query and body of a request signed by a hotkey.
pub(crate) fn epistula(input: &[u8]) {
    let [by, time, signature, receiver, query, body] = signed(input);
    let [by, time, signature, receiver, query] =
        [by, time, signature, receiver, query].map(|part| String::from_utf8_lossy(part).into_owned());
    let get = |name: &str| match name {
        epistula::SIGNED_BY => Some(by.as_str()),
        epistula::TIMESTAMP => Some(time.as_str()),
        epistula::SIGNATURE => Some(signature.as_str()),
        epistula::SIGNED_FOR => Some(receiver.as_str()),
        _ => None,
    };
    let bodies = [epistula::bodies_of_query(&query, &["round"]), epistula::bodies_of_json(body)].concat();
    if let Ok(Some(headers)) = epistula::Headers::read(get) {
        let _ = headers.check_receiver(&SigningKey::from_bytes(&[2; 32]).node_id());
        let _ = headers.verify(&bodies, Millis(1_700_000_000_000));
    }
}

pub(crate) fn signed_requests() -> Vec<Vec<u8>> {
    let by = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    let signature = format!("0x{}", "ab".repeat(64));
    let seed =
        |query: &str, body: &str| [by, "1700000000000", &signature, "", query, body].join("\0").into_bytes();
    vec![
        seed("page=2&round=&name=a%20b+c&flag=True", ""),
        seed("", "{\"b\": [1, 2.5e3, null], \"a\": \"\\u00e9\\ud83d\\udc1f\", \"c\": {\"d\": false}}"),
    ]
}
