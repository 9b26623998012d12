//! Who may read which blob, and how much a key may upload.

use std::time::Duration;

use arena::calendar::Moment;
use arena::record::Statement;
use arena::spec::CompetitionSpec;
use bytes::Bytes;
use shoal_api::request::{Request, sign};
use shoal_api::{Client, ClientError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::{Hash, Millis};

use super::world::{OWNER, World, code, key, within};

async fn open(client: &Client, name: &str, named: &str) {
    let start = Moment(Millis(client.now().0 + 3_600_000));
    let text = format!(
        "name = \"{name}\"\nkind = \"codec\"\n[schedule]\nstart = \"{start}\"\nevery_s = 3600\nopening_s = 10\njudging_s = 60\nrounds = 1\n{named}"
    );
    let spec = CompetitionSpec::parse(&text).unwrap();
    client.state(&Statement::Open { spec: spec.canonical() }).await.unwrap();
}

fn missing(found: &Result<Bytes, ClientError>) {
    assert!(matches!(found, Err(ClientError::Refused { status: 404, .. })), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_does_not_open_what_the_arena_keeps_closed() {
    let world = World::start("", &[1]).await;
    let id = world.competition("matrix", 4, 20, "agree = 1\ntakeover = 1\nmax = 1\nlease_s = 30").await;
    // Without a judge's part of the seed the round would be void.
    let judge = world.judge(1, 1).await;
    let secret = code(b'9', 1);
    world.submit(10, id, secret.clone()).await;
    world.open_seals(10).await;
    // The log shows the code's hash from here on; the code itself is its maker's until it is revealed.
    let (hash, stranger, owner) = (Hash::of(&secret), world.stranger().await, world.client(OWNER).await);
    missing(&stranger.blob(&hash).await);
    let baseline = format!("[baseline]\nname = \"stolen\"\ncode = \"{hash}\"\nbytes = {}\n", secret.len());
    open(&owner, "thief", &baseline).await;
    missing(&stranger.blob(&hash).await);
    // A list of samples opens what is listed, but not that either.
    let sample = Bytes::from_static(b"a sample");
    let free = owner.put_blob("competition", sample.clone()).await.unwrap().hash;
    let list = Bytes::from(format!("file,blake3\na.bin,{free}\nb.bin,{hash}\n"));
    missing(&stranger.blob(&free.parse().unwrap()).await);
    let list = owner.put_blob("competition", list).await.unwrap().hash;
    open(&owner, "samples", &format!("[inputs]\nsamples = \"{list}\"\n")).await;
    assert_eq!(stranger.blob(&free.parse().unwrap()).await.unwrap(), sample);
    missing(&stranger.blob(&hash).await);
    // What was for everybody before stays so, whoever enters it as code.
    let plain = Hash::of(&code(b'0', 1));
    stranger.blob(&plain).await.unwrap();
    judge.stop().await;
}

const QUOTA: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_uploads_what_its_quota_allows() {
    let world = World::with_quota(QUOTA, "", &[1]).await;
    let (client, bytes) =
        (world.client(10).await, |len: u64, fill: u8| Bytes::from(vec![fill; len as usize]));
    client.put_blob("competition", bytes(QUOTA * 3 / 4, 1)).await.unwrap();
    let refused = client.put_blob("competition", bytes(QUOTA / 2, 2)).await.unwrap_err();
    let ClientError::Refused { status: 429, problem } = &refused else { panic!("{refused:?}") };
    let quota = problem.quota.as_ref().unwrap();
    assert_eq!((problem.reason.as_str(), quota.limit_bytes), ("upload_quota", QUOTA));
    // A quarter of the quota too much: a quarter of a day, less what drained in between.
    let quarter = quota.window_s / 4;
    assert!((quarter - 120..=quarter).contains(&quota.free_in_s), "{quota:?}");
    let words = refused.to_string();
    assert!(words.contains("1048576 bytes that a key may upload in 24 h"), "{words}");
    assert!(words.contains("try again in 3") && words.contains(" min "), "{words}");
    // What was refused does not count; the same bytes again count, though nothing new is stored.
    client.put_blob("competition", bytes(QUOTA / 8, 3)).await.unwrap();
    // More than a key may ever upload at once, more than sockets hold, more than the host reads of what it refuses: the
    // answer comes all the same.
    for len in [QUOTA * 32, QUOTA * 96, QUOTA * 160] {
        let refused = client.put_blob("competition", bytes(len, 4)).await.unwrap_err();
        let words = refused.to_string();
        assert!(words.contains("over the 1048576 bytes") && words.contains("send less"), "{words}");
    }
    // It is a key's own: others and those in charge go on.
    world.client(11).await.put_blob("competition", bytes(QUOTA / 2, 2)).await.unwrap();
    world.client(OWNER).await.put_blob("competition", bytes(QUOTA * 2, 5)).await.unwrap();
}

/// An upload whose head has arrived: the host has asked for its bytes.
async fn begun(world: &World, seed: u8, bytes: &[u8]) -> TcpStream {
    let client = world.client(seed).await;
    let target = "/v1/blobs?purpose=competition";
    let request = Request { method: "PUT".into(), target: target.into(), body: Hash::of(bytes) };
    let signed = sign(&key(seed), client.run(), &request, client.now(), 7 + bytes.len() as u64);
    let head = format!(
        "PUT {target} HTTP/1.1\r\nhost: {}\r\nauthorization: {signed}\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        world.address,
        bytes.len()
    );
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    within(stream.read_exact(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 100 "), "{:?}", String::from_utf8_lossy(&answer));
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_uploads_at_a_time_the_second_is_refused_and_neither_cut_off() {
    let world = World::with_quota(QUOTA, "", &[1]).await;
    let client = world.client(10).await;
    let (first, second) = (vec![1; QUOTA as usize * 3 / 4], Bytes::from(vec![2; QUOTA as usize / 2]));
    let mut stream = begun(&world, 10, &first).await;
    let (half, rest) = first.split_at(first.len() / 2);
    stream.write_all(half).await.unwrap();
    let refused = client.put_blob("competition", second.clone()).await.unwrap_err();
    assert_eq!(refused.reason(), Some("upload_quota"), "{refused}");
    stream.write_all(rest).await.unwrap();
    let mut answer = [0; 15];
    within(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    // What was announced and broke off is free again.
    let other = world.client(11).await;
    let mut stream = begun(&world, 11, &first).await;
    stream.write_all(&first[..1000]).await.unwrap();
    other.put_blob("competition", second.clone()).await.unwrap_err();
    drop(stream);
    within(async { while other.put_blob("competition", second.clone()).await.is_err() {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_vanished_in_the_middle_of_an_upload_holds_its_quota_no_longer() {
    let mut world = World::with_quota(QUOTA, "", &[1]).await;
    world.stop().await;
    world.upload_stall = Duration::from_millis(300);
    world.go().await;
    let (client, second) = (world.client(10).await, Bytes::from(vec![2; QUOTA as usize / 2]));
    let first = vec![1; QUOTA as usize * 3 / 4];
    let mut stream = begun(&world, 10, &first).await;
    stream.write_all(&first[..1000]).await.unwrap();
    let refused = client.put_blob("competition", second.clone()).await.unwrap_err();
    assert_eq!(refused.reason(), Some("upload_quota"), "{refused}");
    // The line stands, nothing comes: what was announced is free again, and the sender is told.
    within(async { while client.put_blob("competition", second.clone()).await.is_err() {} }).await;
    let mut answer = [0; 12];
    within(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_a_judge_do_not_use_up_what_its_key_may_upload() {
    let world = World::with_quota(QUOTA, "", &[1]).await;
    let client = world.client(1).await;
    let bytes = |fill: u8| Bytes::from(vec![fill; QUOTA as usize * 3 / 4]);
    client.put_blob("log", bytes(1)).await.unwrap();
    client.put_blob("competition", bytes(2)).await.unwrap();
    for purpose in ["log", "competition"] {
        let refused = client.put_blob(purpose, bytes(3)).await.unwrap_err();
        assert_eq!(refused.reason(), Some("upload_quota"), "{refused}");
    }
}

/// A host that has room for so many bytes.
async fn with_room(bytes: u64) -> World {
    let mut world = World::start("", &[1]).await;
    world.stop().await;
    world.blobs_max = bytes;
    world.go().await;
    world
}

async fn is_stored(stream: &mut TcpStream) {
    let mut answer = [0; 15];
    within(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_coming_takes_room_until_it_breaks_off() {
    let world = with_room(QUOTA).await;
    let client = world.client(11).await;
    let first = vec![1; QUOTA as usize * 3 / 4];
    let mut stream = begun(&world, 10, &first).await;
    let no_room = async |len: u64| {
        let bytes = Bytes::from(vec![2; len as usize]);
        let refused = client.put_blob("competition", bytes).await.unwrap_err();
        assert_eq!(refused.reason(), Some("no_room"), "{refused}");
    };
    no_room(QUOTA / 2).await;
    stream.write_all(&first).await.unwrap();
    is_stored(&mut stream).await;
    no_room(QUOTA / 2).await;
    let mut stream = begun(&world, 10, &first[..QUOTA as usize / 5]).await;
    stream.write_all(&first[..1000]).await.unwrap();
    no_room(QUOTA / 8).await;
    drop(stream);
    let third = Bytes::from(vec![3; QUOTA as usize / 8]);
    within(async { while client.put_blob("competition", third.clone()).await.is_err() {} }).await;
    assert_eq!(world.metric("blob_bytes").await, QUOTA * 7 / 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_two_bring_at_a_time_takes_room_once() {
    let world = with_room(QUOTA).await;
    let bytes = vec![1; QUOTA as usize / 3];
    let (mut one, mut other) = (begun(&world, 10, &bytes).await, begun(&world, 11, &bytes).await);
    for stream in [&mut one, &mut other] {
        stream.write_all(&bytes).await.unwrap();
        is_stored(stream).await;
    }
    assert_eq!(world.metric("blob_bytes").await, bytes.len() as u64);
    // Nor does one that is there, also where there is no room for another.
    world.client(10).await.put_blob("competition", vec![2; QUOTA as usize * 5 / 9].into()).await.unwrap();
    world.client(11).await.put_blob("competition", bytes.into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_under_the_name_of_a_blob_are_refused_whether_it_is_there_or_not() {
    let world = World::start("", &[1]).await;
    let (client, stored) = (world.client(10).await, Bytes::from_static(b"stored"));
    client.put_blob("competition", stored.clone()).await.unwrap();
    for body in ["", "stored too", "others"] {
        let mut answers = Vec::new();
        for named in [&stored[..], b"nowhere"] {
            let target = "/v1/blobs?purpose=competition";
            let request = Request { method: "PUT".into(), target: target.into(), body: Hash::of(named) };
            let signed = sign(&key(10), client.run(), &request, client.now(), 7 + body.len() as u64);
            let asked = reqwest::Client::new().put(format!("{}{target}", world.url()));
            let answer = asked.header("authorization", signed).body(body).send().await.unwrap();
            answers.push((answer.status().as_u16(), answer.text().await.unwrap()));
        }
        // Who has not got the bytes does not learn whether the host has.
        assert_eq!(answers[0], answers[1], "{body:?}");
        assert!(answers[0].0 == 401 && answers[0].1.contains("bad_signature"), "{answers:?}");
    }
    assert_eq!(world.metric("blob_bytes").await, stored.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_that_comes_too_slowly_ends_and_is_told_so() {
    let mut world = World::start("", &[1]).await;
    world.stop().await;
    world.upload_stall = Duration::from_millis(300);
    world.go().await;
    // Enough for a small one, but this one would hold its place and its room for hours.
    let large = vec![1; 128 << 20];
    let mut stream = begun(&world, 10, &large).await;
    let mut answer = [0; 12];
    within(async {
        for part in large.chunks(32 << 10) {
            stream.write_all(part).await.unwrap();
            let told = stream.read_exact(&mut answer);
            if tokio::time::timeout(Duration::from_millis(100), told).await.is_ok() {
                return;
            }
        }
    })
    .await;
    assert_eq!(&answer, b"HTTP/1.1 408");
}
