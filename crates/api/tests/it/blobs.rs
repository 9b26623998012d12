//! Who may read which blob, and how much a key may upload.

use arena::calendar::Moment;
use arena::record::Statement;
use arena::spec::CompetitionSpec;
use bytes::Bytes;
use shoal_api::{Client, ClientError};
use wire::{Hash, Millis};

use super::world::{OWNER, World, code};

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
    // More than a key may ever upload at once, and more than sockets hold: the answer comes all the same.
    let huge = client.put_blob("competition", bytes(QUOTA * 32, 4)).await.unwrap_err();
    let words = huge.to_string();
    assert!(words.contains("over the 1048576 bytes") && words.contains("send less"), "{words}");
    // It is a key's own: others and those in charge go on.
    world.client(11).await.put_blob("competition", bytes(QUOTA / 2, 2)).await.unwrap();
    world.client(OWNER).await.put_blob("competition", bytes(QUOTA * 2, 5)).await.unwrap();
}
