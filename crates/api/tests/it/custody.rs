//! Seals in the host's keeping: what is acknowledged is durable, whatever failed or broke off before.

use arena::spec::CompetitionId;
use shoal_api::client::SubmissionQuery;
use shoal_api::epistula;
use shoal_api::seals::Kept;
use wire::Hash;

use super::gate::Fate;
use super::world::{World, code, within};

async fn open(world: &World) -> CompetitionId {
    world.competition("trust", 3600, 20, "lease_s = 20").await
}

/// Entrusts a seal of key 10, which is acknowledged and outlives the host.
async fn entrust(mut world: World, kept: &Kept, entry: u64) {
    within(world.seals(10).entrust(&*world.client(10).await, kept, entry)).await.unwrap();
    world.kill().await;
    world.go().await;
    assert!(world.client(10).await.submission(entry, false).await.unwrap().entrusted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_whose_keeping_failed_is_kept_by_the_next_try() {
    let world = World::start("", &[1]).await;
    let (entry, kept) = world.submit(10, open(&world).await, code(b'5', 1)).await;
    let client = world.client(10).await;
    world.gate.next(Fate::Fails);
    let failed = world.seals(10).entrust(&client, &kept, entry).await.unwrap_err();
    assert_eq!(failed.reason(), Some("internal"), "{failed}");
    assert!(!client.submission(entry, false).await.unwrap().entrusted);
    entrust(world, &kept, entry).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_whose_maker_hung_up_is_kept_by_the_next_try() {
    let world = World::start("", &[1]).await;
    let (entry, kept) = world.submit(10, open(&world).await, code(b'5', 1)).await;
    let (client, seals) = (world.client(10).await, world.seals(10));
    world.gate.next(Fate::Waits);
    tokio::select! {
        done = seals.entrust(&client, &kept, entry) => panic!("{done:?}"),
        () = world.gate.waiting.notified() => {}
    }
    entrust(world, &kept, entry).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hotkey_hands_in_is_entered_although_it_hung_up() {
    let world = World::start("", &[1]).await;
    let id = open(&world).await;
    let stranger = world.stranger().await;
    let entries = async || {
        let query = SubmissionQuery { count: 10, ..SubmissionQuery::default() };
        stranger.submissions(&query).await.unwrap().submissions.len()
    };
    let before = entries().await;
    let secret = schnorrkel::MiniSecretKey::from_bytes(&Hash::of(b"hotkey").0).unwrap();
    let pair = secret.expand_to_keypair(schnorrkel::ExpansionMode::Ed25519);
    let body = format!("{{\"competition_id\":\"{id}\",\"file_extension\":\".wasm\",\"raw_code\":\"7\"}}");
    let now = stranger.now();
    let asked = reqwest::Client::new()
        .post(format!("{}/v1/submissions", world.url()))
        .header(epistula::TIMESTAMP, now.0.to_string())
        .header(epistula::SIGNED_BY, epistula::to_ss58(&pair.public.to_bytes()))
        .header(epistula::SIGNATURE, epistula::sign(&pair, body.as_bytes(), now, ""))
        .body(body);
    world.gate.next(Fate::Waits);
    tokio::select! {
        done = asked.send() => panic!("{done:?}"),
        () = world.gate.waiting.notified() => {}
    }
    // The host has noticed: nothing but the question for its metrics is under way.
    within(async { while world.metric("requests_in_flight").await > 1 {} }).await;
    world.gate.open.notify_one();
    within(async { while entries().await == before {} }).await;
}
