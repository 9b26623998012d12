//! Signed requests: tampered, replayed, stale and foreign ones are refused, in both ways of signing.

use std::time::Duration;

use arena::record::{STATEMENT_KIND, Statement};
use reqwest::{Method, StatusCode};
use shoal_api::epistula;
use shoal_api::model::{Problem, Submitted};
use shoal_api::request::{Request, sign};
use wire::{Envelope, Hash, Millis, SigningKey};

use super::world::{HOST, OWNER, World, code, key};

struct Raw<'a> {
    world: &'a World,
    http: reqwest::Client,
    now: Millis,
    run: wire::RunId,
}

impl<'a> Raw<'a> {
    async fn new(world: &'a World) -> Self {
        let client = world.stranger().await;
        Self { world, http: reqwest::Client::new(), now: client.now(), run: client.run() }
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> (StatusCode, String) {
        let mut asked =
            self.http.request(method, format!("{}{target}", self.world.url())).body(body.to_vec());
        for (name, value) in headers {
            asked = asked.header(*name, value);
        }
        let answer = asked.timeout(Duration::from_secs(20)).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    fn header(
        &self,
        key: &SigningKey,
        method: &str,
        target: &str,
        body: &[u8],
        at: Millis,
    ) -> (&'static str, String) {
        let request = Request { method: method.into(), target: target.into(), body: Hash::of(body) };
        ("authorization", sign(key, self.run, &request, at, 7))
    }
}

fn reason(text: &str) -> String {
    serde_json::from_str::<Problem>(text).unwrap_or_else(|_| panic!("{text}")).reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_is_for_one_request_and_counts_once() {
    let world = World::start("", &[]).await;
    let raw = Raw::new(&world).await;
    let owner = key(OWNER);
    let body =
        br#"{"judge":"0101010101010101010101010101010101010101010101010101010101010101","operator":"x"}"#;
    let good = raw.header(&owner, "POST", "/v1/judges", body, raw.now);
    let (status, text) = raw.send(Method::POST, "/v1/judges", std::slice::from_ref(&good), body).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    // The very same once more.
    let (status, text) = raw.send(Method::POST, "/v1/judges", std::slice::from_ref(&good), body).await;
    assert_eq!((status, reason(&text).as_str()), (StatusCode::UNAUTHORIZED, "replayed"));
    // Another body, path, query or method.
    let fresh = |nonce: u64| raw.header(&owner, "POST", "/v1/judges", body, Millis(raw.now.0 + nonce));
    let cases: [(Method, &str, &[u8]); 4] = [
        (Method::POST, "/v1/judges", b"{}"),
        (Method::POST, "/v1/payments", body),
        (Method::POST, "/v1/judges?x=1", body),
        (Method::PUT, "/v1/blobs?purpose=competition", body),
    ];
    for (index, (method, target, sent)) in (1..).zip(cases) {
        let (status, text) = raw.send(method, target, &[fresh(index)], sent).await;
        assert_eq!((status, reason(&text).as_str()), (StatusCode::UNAUTHORIZED, "bad_signature"), "{target}");
    }
    // Too old, from the future, of nobody in charge, not signed, not an envelope.
    for shift in [-61_000_i64, 61_000] {
        let at = Millis(raw.now.0.saturating_add_signed(shift));
        let header = raw.header(&owner, "POST", "/v1/judges", body, at);
        let (status, text) = raw.send(Method::POST, "/v1/judges", &[header], body).await;
        assert_eq!((status, reason(&text).as_str()), (StatusCode::UNAUTHORIZED, "stale"));
    }
    let header = raw.header(&key(9), "POST", "/v1/judges", body, raw.now);
    assert_eq!(raw.send(Method::POST, "/v1/judges", &[header], body).await.0, StatusCode::FORBIDDEN);
    assert_eq!(raw.send(Method::POST, "/v1/judges", &[], body).await.0, StatusCode::UNAUTHORIZED);
    let header = ("authorization", "Bearer token".to_owned());
    assert_eq!(raw.send(Method::POST, "/v1/judges", &[header], body).await.0, StatusCode::UNAUTHORIZED);
    // A bad signature is refused on a read, too, and not taken for no signature.
    let header = ("authorization", format!("{}AA", good.1));
    assert_eq!(raw.send(Method::GET, "/v1/arena", &[header], b"").await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_no_signature() {
    let mut world = World::start("", &[]).await;
    let (owner, receipt) = (key(OWNER), "7".repeat(64));
    let body = format!(r#"{{"receipt":"{receipt}","payer":"{receipt}","amount":1}}"#);
    let target = format!("/v1/rate-limits/{receipt}");
    let (now, past, ahead) = {
        let raw = Raw::new(&world).await;
        let past = raw.header(&owner, "GET", &target, b"", Millis(raw.now.0 - 10_000));
        // Signed for half a minute ahead, as a client whose clock is fast does.
        let ahead = raw.header(&owner, "POST", "/v1/payments", body.as_bytes(), Millis(raw.now.0 + 30_000));
        (raw.now, past, ahead)
    };
    let post = async |world: &World, header: &(&'static str, String)| {
        let raw = Raw::new(world).await;
        raw.send(Method::POST, "/v1/payments", std::slice::from_ref(header), body.as_bytes()).await
    };
    let read = async |world: &World, header: &(&'static str, String)| {
        Raw::new(world).await.send(Method::GET, &target, std::slice::from_ref(header), b"").await
    };
    // What was signed shortly before a host started does not count: it may have counted before.
    let (status, text) = read(&world, &past).await;
    let before = (StatusCode::SERVICE_UNAVAILABLE, "before_start");
    assert_eq!((status, reason(&text).as_str()), before, "{text}");
    let present = Raw::new(&world).await.header(&owner, "GET", &target, b"", Millis(now.0 + 1));
    assert_eq!(read(&world, &present).await.0, StatusCode::OK);
    assert_eq!(post(&world, &ahead).await.0, StatusCode::OK);
    for restarts in 0..2 {
        if restarts == 0 {
            world.kill().await;
        } else {
            world.stop().await;
        }
        world.go().await;
        let (status, text) = read(&world, &present).await;
        assert_eq!((status, reason(&text).as_str()), before, "{text}");
        let (status, text) = post(&world, &ahead).await;
        assert_eq!((status, reason(&text).as_str()), (StatusCode::UNAUTHORIZED, "replayed"), "{text}");
        // What is signed anew counts.
        let raw = Raw::new(&world).await;
        let fresh = raw.header(&owner, "GET", &target, b"", raw.now);
        assert_eq!(read(&world, &fresh).await.0, StatusCode::OK);
        let other = format!(
            r#"{{"receipt":"{}","payer":"{receipt}","amount":1}}"#,
            format!("{restarts}8").repeat(32)
        );
        let fresh = raw.header(&owner, "POST", "/v1/payments", other.as_bytes(), Millis(raw.now.0 + 20_000));
        let (status, text) = raw.send(Method::POST, "/v1/payments", &[fresh], other.as_bytes()).await;
        assert_eq!(status, StatusCode::OK, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_no_signature_of_a_hotkey() {
    let mut world = World::start("", &[]).await;
    let secret = schnorrkel::MiniSecretKey::from_bytes(&[4; 32]).unwrap();
    let pair = secret.expand_to_keypair(schnorrkel::ExpansionMode::Ed25519);
    let headers = |at: Millis| {
        vec![
            (epistula::TIMESTAMP, at.0.to_string()),
            (epistula::SIGNED_BY, epistula::to_ss58(&pair.public.to_bytes())),
            (epistula::SIGNATURE, epistula::sign(&pair, b"{}", at, "")),
        ]
    };
    let now = Raw::new(&world).await.now;
    let signed = [headers(Millis(now.0 + 1)), headers(Millis(now.0 + 40_000))];
    for headers in &signed {
        // It is signed as it should be, and says nothing that could be entered.
        let (status, text) =
            Raw::new(&world).await.send(Method::POST, "/v1/submissions", headers, b"{}").await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
    }
    world.kill().await;
    world.go().await;
    let refusals =
        [(StatusCode::SERVICE_UNAVAILABLE, "before_start"), (StatusCode::UNAUTHORIZED, "replayed")];
    for (headers, refusal) in signed.iter().zip(refusals) {
        let raw = Raw::new(&world).await;
        let (status, text) = raw.send(Method::POST, "/v1/submissions", headers, b"{}").await;
        assert_eq!((status, reason(&text).as_str()), refusal, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_taken_once_and_in_time() {
    let world = World::start("", &[]).await;
    let raw = Raw::new(&world).await;
    let owner = key(OWNER);
    let body = wire::to_bytes(&Statement::Announce { competition: None, text: "hello".into() });
    let envelope =
        |at: Millis, nonce| Envelope::sign(&owner, raw.run, STATEMENT_KIND, body.clone(), at, nonce);
    let send = async |envelope: &Envelope| {
        raw.send(Method::POST, "/v1/statements", &[], &wire::to_bytes(envelope)).await
    };
    let first = envelope(raw.now, 1);
    assert_eq!(send(&first).await.0, StatusCode::OK);
    // The last statement again is acknowledged again, and stands in the log once.
    assert_eq!(send(&first).await.0, StatusCode::OK);
    assert_eq!(world.stranger().await.notes().await.unwrap().notes.len(), 1);
    assert_eq!(send(&envelope(raw.now, 2)).await.0, StatusCode::OK);
    let (status, text) = send(&first).await;
    assert_eq!((status, reason(&text).as_str()), (StatusCode::UNAUTHORIZED, "replayed"));
    for shift in [-200_000_i64, 200_000] {
        let (status, text) = send(&envelope(Millis(raw.now.0.saturating_add_signed(shift)), 3)).await;
        let word = reason(&text);
        assert!(status == StatusCode::UNAUTHORIZED && (word == "stale" || word == "replayed"), "{text}");
    }
    let mut tampered = envelope(Millis(raw.now.0 + 50), 4);
    *tampered.body.last_mut().unwrap() ^= 1;
    let (status, text) = send(&tampered).await;
    assert_eq!((status, reason(&text).as_str()), (StatusCode::UNAUTHORIZED, "bad_signature"));
    let (status, _) = raw.send(Method::POST, "/v1/statements", &[], b"nonsense").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = raw.send(Method::POST, "/v1/statements", &[], &vec![0; 3 << 20]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sr25519_hotkey_enters_by_epistula() {
    let world = World::start("", &[1]).await;
    let id = world.competition("epistula", 3, 20, "agree = 1\ntakeover = 1\nmax = 1\nlease_s = 20").await;
    let judge = world.judge(1, 2).await;
    let raw = Raw::new(&world).await;
    let secret = schnorrkel::MiniSecretKey::from_bytes(&[3; 32]).unwrap();
    let pair = secret.expand_to_keypair(schnorrkel::ExpansionMode::Ed25519);
    let headers = |body: &[u8], at: Millis| {
        vec![
            (epistula::TIMESTAMP, at.0.to_string()),
            (epistula::SIGNED_BY, epistula::to_ss58(&pair.public.to_bytes())),
            (epistula::SIGNATURE, epistula::sign(&pair, body, at, "")),
            ("x-spec-version", "100000".to_owned()),
        ]
    };
    let text = String::from_utf8(code(b'7', 5).to_vec()).unwrap();
    let body = serde_json::json!({ "competition_id": id.to_string(), "file_extension": ".wasm", "raw_code": text,
            "about": { "title": "by a hotkey", "language": "C" } });
    let body = serde_json::to_vec(&body).unwrap();
    let signed = headers(&epistula::bodies_of_json(&body)[1], raw.now);
    let (status, answer) = raw.send(Method::POST, "/v1/submissions", &signed, &body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let entry: Submitted = serde_json::from_str(&answer).unwrap();
    // The same headers again, and another body under them.
    let (status, answer) = raw.send(Method::POST, "/v1/submissions", &signed, &body).await;
    assert_eq!((status, reason(&answer).as_str()), (StatusCode::UNAUTHORIZED, "replayed"));
    let (status, answer) = raw.send(Method::POST, "/v1/submissions", &signed, b"{}").await;
    assert_eq!((status, reason(&answer).as_str()), (StatusCode::UNAUTHORIZED, "bad_signature"));
    // Signed for this host it counts here, signed for another it does not.
    let host = key(HOST).node_id();
    let (ours, host) = (epistula::to_ss58(&host.0), host.to_string());
    let theirs = epistula::to_ss58(&key(99).node_id().0);
    for (n, receiver, counts) in [(1, &theirs, false), (2, &ours, true), (3, &host, true)] {
        let at = Millis(raw.now.0 + n);
        let mut signed = headers(b"{}", at);
        signed[2].1 = epistula::sign(&pair, b"{}", at, receiver);
        signed.push((epistula::SIGNED_FOR, receiver.clone()));
        let (status, answer) = raw.send(Method::POST, "/v1/submissions", &signed, b"{}").await;
        let expected = if counts { StatusCode::BAD_REQUEST } else { StatusCode::UNAUTHORIZED };
        assert_eq!(status, expected, "{receiver}: {answer}");
        assert!(counts || answer.contains(&ours), "{answer}");
    }
    let late = headers(&body, Millis(raw.now.0 + 61_000));
    assert_eq!(raw.send(Method::POST, "/v1/submissions", &late, &body).await.0, StatusCode::UNAUTHORIZED);

    world.round_over(id).await;
    // Reading its own code, signed over parameters that are null as its clients do.
    let target = format!("/v1/submissions/{}/code", entry.submission_id);
    let now = Millis(raw.now.0 + 10);
    let signed = headers(&epistula::bodies_of_query("", &[])[0], now);
    let (status, answer) = raw.send(Method::GET, &target, &signed, b"").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(raw.send(Method::GET, &target, &[], b"").await.0, StatusCode::FORBIDDEN);
    let row = world.stranger().await.submission(entry.submission_id, false).await.unwrap();
    let about = row.about.unwrap();
    assert_eq!((about.title.as_str(), about.language.as_str()), ("by a hotkey", "C"));
    assert_eq!((row.submission.state.as_str(), row.submission.entrant), ("scored", entry.entrant));
    judge.stop().await;
}
