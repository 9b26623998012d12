//! Golden vectors: an address known to everybody, and a signature made by `py-sr25519-bindings` (the library of the
//! subnet's own clients) over the bytes of Python's `json.dumps(…, sort_keys=True)`.

use super::*;

const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
const ALICE_KEY: &str = "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d";
const TIME: Millis = Millis(1_768_302_000_250);
const KEY: &str = "44a996beb1eef7bdcab976ab6d2ca26104834164ecf28fb375600576fcc6eb0f";
const PARAMETERS: &str = "competition_id=1&name=M%C3%A4trix&start_idx=0&count=10";
const SIGNED: &str =
    r#"{"competition_id": 1, "count": 10, "hotkey": null, "name": "M\u00e4trix", "start_idx": 0}"#;
const SIGNATURE_HEX: &str = "2e611b7f3a887b97b7e10bfa1c2c18061b1ca7d4348882cb1a155751dd85e714716609e4bbc594e46253ffd68bcf500f31e4a5ff04e35fa4a70826f0405add84";

fn headers(signature: &str, time: &str) -> Headers {
    let key: [u8; 32] = HEXLOWER.decode(KEY.as_bytes()).unwrap().try_into().unwrap();
    let (signed_by, signature, time) = (to_ss58(&key), format!("0x{signature}"), time.to_owned());
    let get = |name: &str| match name {
        TIMESTAMP => Some(time.as_str()),
        SIGNED_BY => Some(signed_by.as_str()),
        SIGNATURE => Some(signature.as_str()),
        _ => None,
    };
    Headers::read(get).unwrap().unwrap()
}

#[test]
fn golden_address() {
    let key: [u8; 32] = HEXLOWER.decode(ALICE_KEY.as_bytes()).unwrap().try_into().unwrap();
    assert_eq!(to_ss58(&key), ALICE);
    assert_eq!(from_ss58(ALICE), Some(key));
    for bad in ["", "5Grw", &ALICE.replace('w', "x"), &format!("{ALICE}1"), &"z".repeat(48), "0OIl"] {
        assert_eq!(from_ss58(bad), None, "{bad}");
    }
}

#[test]
fn golden_signature_of_a_get() {
    let good = headers(SIGNATURE_HEX, &TIME.0.to_string());
    let bodies = bodies_of_query(PARAMETERS, &["hotkey"]);
    assert_eq!(bodies[1], SIGNED.as_bytes());
    good.verify(&bodies, TIME).unwrap();
    let other = bodies_of_query(&PARAMETERS.replace("count=10", "count=11"), &["hotkey"]);
    assert_eq!(good.verify(&other, TIME), Err(EpistulaError::Signature));
    let moved = headers(SIGNATURE_HEX, &(TIME.0 + 1).to_string());
    assert_eq!(moved.verify(&bodies, TIME), Err(EpistulaError::Signature));
    for now in [TIME.0 + limits::REQUEST_SKEW_MS + 1, TIME.0 - limits::REQUEST_SKEW_MS - 1] {
        assert!(matches!(good.verify(&bodies, Millis(now)), Err(EpistulaError::Stale { .. })));
    }
}

#[test]
fn our_own_signature_verifies_and_headers_are_checked() {
    let secret = schnorrkel::MiniSecretKey::from_bytes(&[3; 32]).unwrap();
    let pair = secret.expand_to_keypair(schnorrkel::ExpansionMode::Ed25519);
    let body = br#"{"b": 1,   "a": 2}"#;
    let sorted = br#"{"a": 2, "b": 1}"#;
    let signature = sign(&pair, sorted, TIME, "");
    let signed_by = to_ss58(&pair.public.to_bytes());
    let time = TIME.0.to_string();
    let get = |name: &str| match name {
        TIMESTAMP => Some(time.as_str()),
        SIGNED_BY => Some(signed_by.as_str()),
        SIGNATURE => Some(signature.as_str()),
        _ => None,
    };
    Headers::read(get).unwrap().unwrap().verify(&bodies_of_json(body), TIME).unwrap();
    assert_eq!(Headers::read(|_| None), Ok(None));
    for missing in [TIMESTAMP, SIGNATURE] {
        let partial = |name: &str| if name == missing { None } else { get(name) };
        assert!(matches!(Headers::read(partial), Err(EpistulaError::Header(_))));
    }
    assert!(matches!(
        Headers::read(|name| if name == SIGNED_BY { Some("nobody") } else { get(name) }),
        Err(EpistulaError::Header("Epistula-Signed-By"))
    ));
}
