//! What a round's inputs may be drawn from.

use std::sync::Arc;

use arena::calendar::Moment;
use arena::record::{PoolItem, RoundNumber, Statement};
use arena::spec::{CompetitionId, CompetitionSpec};
use bytes::Bytes;
use shoal_api::model::EventKind;
use shoal_api::{Client, ClientError};
use wire::{Hash, Millis};

use super::world::{OWNER, World, code, within};

/// A competition with a pool whose only round closes in two seconds.
async fn open(client: &Client, samples: Hash) -> CompetitionId {
    open_with(client, "pooled", Some(samples), 1, 10).await
}

/// The same under a name, with as many rounds, and the time to open seals.
async fn open_with(
    client: &Client,
    name: &str,
    samples: Option<Hash>,
    rounds: u32,
    opening_s: u64,
) -> CompetitionId {
    let baseline = code(b'0', 1);
    client.put_blob("competition", baseline.clone()).await.unwrap();
    let start = Moment(Millis(client.now().0 + 2000 - 120_000));
    let samples = samples.map_or_else(String::new, |samples| format!("samples = \"{samples}\"\n"));
    let text = format!(
        "name = \"{name}\"\nkind = \"codec\"\n[schedule]\nstart = \"{start}\"\nevery_s = 120\nrounds = {rounds}\npool_s = 30\n\
         opening_s = {opening_s}\njudging_s = 20\n[inputs]\nitems = 8\nsource = \"pool\"\noperator_share_ppm = 1000000\n\
         {samples}[takeover]\nalpha_ppm = 0\n[baseline]\nname = \"plain\"\ncode = \"{}\"\nbytes = {}\n",
        Hash::of(&baseline),
        baseline.len(),
    );
    let spec = CompetitionSpec::parse(&text).unwrap();
    client.state(&Statement::Open { spec: spec.canonical() }).await.unwrap();
    spec.id()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_somebody_could_know_or_that_judges_could_not_fetch_is_refused() {
    let world = World::start("", &[1]).await;
    let client: Arc<Client> = world.client(OWNER).await;
    let sample = Bytes::from_static(b"a sample that everybody has");
    client.put_blob("competition", sample.clone()).await.unwrap();
    let list = Bytes::from(format!("file,blake3\na.bin,{}\n", Hash::of(&sample)));
    client.put_blob("competition", list.clone()).await.unwrap();
    let id = open(&client, Hash::of(&list)).await;
    world.submit(10, id, code(b'5', 1)).await; // without an entry the round would be void
    let mut items: Vec<PoolItem> = Vec::new();
    for number in 0..8 {
        let blob = Bytes::from(format!("a secret input {number}"));
        items.push(PoolItem { hash: Hash::of(&blob), operator: client.id().unwrap() });
        client.put_blob("competition", blob).await.unwrap();
    }
    let name = id.to_string();
    let mut events = client.events(Some(&name), None, Some(0));
    within(async { while events.next().await.unwrap().text.as_deref() != Some("pooling") {} }).await;

    let with = |more: Hash| {
        let mut all = items.clone();
        all.push(PoolItem { hash: more, operator: items[0].operator });
        all.sort_unstable();
        Statement::Pool { competition: id, round: RoundNumber(0), items: all }
    };
    // A sample, the manifest of the samples, the baseline's code: all of them are for everybody.
    for known in [Hash::of(&sample), Hash::of(&list), Hash::of(&code(b'0', 1))] {
        let refused = client.state(&with(known)).await.unwrap_err();
        assert!(matches!(&refused, ClientError::Refused { status: 409, .. }), "{refused:?}");
        assert_eq!(refused.reason(), Some("known_input"));
        assert!(refused.to_string().contains(&known.short()), "{refused}");
    }
    let missing = Hash::of(b"never uploaded");
    // Whoever may not name a pool does not hear what is stored.
    for hash in [missing, Hash::of(&sample)] {
        let refused = world.client(10).await.state(&with(hash)).await.unwrap_err();
        assert!(matches!(&refused, ClientError::Refused { status: 403, .. }), "{refused:?}");
    }
    let refused = client.state(&with(missing)).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Refused { status: 400, .. }), "{refused:?}");
    assert!(refused.to_string().contains("judges could not fetch it"), "{refused}");
    // What is secret and there is taken.
    let mut all = items.clone();
    all.sort_unstable();
    client.state(&Statement::Pool { competition: id, round: RoundNumber(0), items: all }).await.unwrap();
    let next = async {
        loop {
            let event = events.next().await.unwrap();
            if event.kind == EventKind::RoundAdvanced {
                return event.text;
            }
        }
    };
    assert_eq!(within(next).await.as_deref(), Some("opening"));
}

/// Waits until a competition tells this.
async fn until(client: &Client, id: CompetitionId, told: impl Fn(&EventKind, Option<&str>) -> bool) {
    let name = id.to_string();
    let mut events = client.events(Some(&name), None, Some(0));
    within(async {
        loop {
            let event = events.next().await.unwrap();
            if told(&event.kind, event.text.as_deref()) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_round_did_not_draw_stays_closed_and_of_use() {
    let world = World::start("", &[1]).await;
    let client: Arc<Client> = world.client(OWNER).await;
    let id = open_with(&client, "first", None, 2, 1).await;
    world.submit(10, id, code(b'5', 1)).await; // never opened: the round is void, nothing is drawn
    let mut items: Vec<PoolItem> = Vec::new();
    for number in 0..8 {
        let blob = Bytes::from(format!("a secret input {number}"));
        items.push(PoolItem { hash: Hash::of(&blob), operator: client.id().unwrap() });
        client.put_blob("competition", blob).await.unwrap();
    }
    items.sort_unstable();
    let pooling = |_: &EventKind, text: Option<&str>| text == Some("pooling");
    until(&client, id, pooling).await;
    let pool = |competition| Statement::Pool { competition, round: RoundNumber(0), items: items.clone() };
    client.state(&pool(id)).await.unwrap();
    until(&client, id, |kind, _| *kind == EventKind::RoundVoid).await;

    // Somebody reads the hashes in the log, and opens competitions whose samples, and whose template, they are.
    let hashes: Vec<String> = items.iter().map(|item| item.hash.to_string()).collect();
    let list = Bytes::from(hashes.join("\n"));
    client.put_blob("competition", list.clone()).await.unwrap();
    let spoiled = open_with(&client, "spoiled", Some(Hash::of(&list)), 1, 1).await;
    open_with(&client, "named", Some(items[0].hash), 1, 1).await;
    let stranger = world.stranger().await;
    stranger.blob(&Hash::of(&list)).await.unwrap();
    for item in &items {
        let refused = stranger.blob(&item.hash).await.unwrap_err();
        assert!(matches!(&refused, ClientError::Refused { status: 404, .. }), "{refused:?}");
    }
    // They are of use as they were.
    world.submit(10, spoiled, code(b'5', 2)).await;
    until(&client, spoiled, pooling).await;
    client.state(&pool(spoiled)).await.unwrap();
}
