//! Event streams: in order, without gaps, from where another broke off.

use arena::record::Statement;
use shoal_api::model::EventKind;

use super::world::{OWNER, World, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_where_it_broke() {
    let mut world = World::start("", &[]).await;
    let id = world.competition("events", 600, 20, "lease_s = 20").await;
    let owner = world.client(OWNER).await;
    let say = async |owner: &shoal_api::Client, text: &str| {
        let statement = Statement::Announce { competition: Some(id), text: text.into() };
        owner.state(&statement).await.unwrap();
    };
    let watcher = world.stranger().await;
    let name = id.to_string();
    let mut events = watcher.events(Some(&name), None, None);
    events.open().await.unwrap();
    say(&owner, "one").await;
    say(&owner, "two").await;
    let first = within(events.next()).await.unwrap();
    assert_eq!((first.kind, first.text.as_deref()), (EventKind::Announced, Some("one")));
    // The host dies, comes back and tells more; the stream opens again behind what it had told.
    world.kill().await;
    world.go().await;
    say(world.client(OWNER).await.as_ref(), "three").await;
    let mut rest = Vec::new();
    within(async {
        while rest.len() < 2 {
            match events.next().await {
                Ok(event) => rest.push(event.text.unwrap()),
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
        }
    })
    .await;
    assert_eq!(rest, ["two", "three"]);
    // From the beginning: the competition, its round, the announcements.
    let mut all = watcher.events(None, None, Some(0));
    let mut kinds = Vec::new();
    for _ in 0..5 {
        kinds.push(within(all.next()).await.unwrap().kind);
    }
    let said = EventKind::Announced;
    assert_eq!(kinds, [EventKind::CompetitionOpened, EventKind::RoundOpened, said, said, said]);
}
