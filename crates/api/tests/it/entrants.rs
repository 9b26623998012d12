//! Who may enter, and what an entry says of itself.

use arena::about::About;
use arena::calendar::Moment;
use arena::record::{EntryId, Statement};
use arena::spec::{CompetitionId, CompetitionSpec, Form};
use bytes::Bytes;
use shoal_api::ClientError;
use shoal_api::client::SubmissionQuery;
use shoal_api::model::EventKind;
use shoal_api::seals::Entry;
use wire::Millis;

use super::world::{OWNER, World, code, key, within};

/// A competition whose round is open for an hour.
async fn open(world: &World, rules: &str) -> CompetitionId {
    let client = world.client(OWNER).await;
    let start = Moment(Millis(client.now().0 - 1000));
    let text = format!(
        "name = \"matrix\"\nkind = \"codec\"\n[schedule]\nstart = \"{start}\"\nevery_s = 3600\nopening_s = 10\n\
         judging_s = 60\nrounds = 1\n[submission]\n{rules}"
    );
    let spec = CompetitionSpec::parse(&text).unwrap();
    client.state(&Statement::Open { spec: spec.canonical() }).await.unwrap();
    spec.id()
}

fn entry(competition: CompetitionId, code: Bytes) -> Entry {
    Entry { competition, form: Form::Component, code, parents: Vec::new(), receipt: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn registered_keys_enter_and_others_hear_whom_to_ask() {
    let world = World::start("", &[1]).await;
    let id = open(&world, "registered = true\n").await;
    let (client, other, stranger) = (world.client(10).await, world.client(11).await, world.stranger().await);
    let found = client.competition("matrix").await.unwrap();
    assert_eq!((found.by_registration, found.registered, found.may_enter), (true, 0, Some(false)));
    assert_eq!(stranger.competition("matrix").await.unwrap().may_enter, None);
    let refused = world.seals(10).enter(&client, entry(id, code(b'1', 1))).await.unwrap_err();
    let ClientError::Refused { status: 403, problem } = &refused else { panic!("{refused:?}") };
    assert_eq!(problem.reason, "not_registered");
    let next = format!("shoal arena register matrix {}`", key(10).node_id());
    assert!(problem.message.ends_with(&next), "{}", problem.message);
    assert!(world.seals(10).all().unwrap().is_empty(), "nothing is kept of what was refused");
    let mut keys: Vec<_> =
        (10..15).map(|seed| key(seed).node_id()).filter(|id| *id != key(11).node_id()).collect();
    let register = Statement::Register { competition: id, keys: keys.clone(), enter: true };
    client.state(&register).await.unwrap_err();
    let mut events = stranger.events(Some("matrix"), None, None);
    events.open().await.unwrap();
    world.client(OWNER).await.state(&register).await.unwrap();
    let told = within(events.next()).await.unwrap();
    assert_eq!((told.kind, told.text.as_deref()), (EventKind::Registered, Some("4 keys may enter")));
    assert_eq!(told.key, Some(key(OWNER).node_id().to_string()));
    let again = world.client(OWNER).await.state(&register).await.unwrap_err();
    assert_eq!(again.reason(), Some("repeated"));
    assert_eq!(client.competition("matrix").await.unwrap().may_enter, Some(true));
    world.seals(10).enter(&client, entry(id, code(b'1', 1))).await.unwrap();
    world.seals(11).enter(&other, entry(id, code(b'1', 2))).await.unwrap_err();
    keys.sort_unstable();
    let first = stranger.registered("matrix", 0, 3).await.unwrap();
    let rest = stranger.registered("matrix", 3, 3).await.unwrap();
    assert!(first.pagination.has_more && !rest.pagination.has_more);
    let listed: Vec<String> = [first.keys, rest.keys].concat();
    assert_eq!(listed, keys.iter().map(ToString::to_string).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_entry_says_of_itself_is_shown_everywhere() {
    let world = World::start("", &[1]).await;
    let id = open(&world, "").await;
    let (client, stranger) = (world.client(10).await, world.stranger().await);
    let (answer, _) = world.seals(10).enter(&client, entry(id, code(b'1', 1))).await.unwrap();
    let number = answer.submission_id.unwrap();
    let said = stranger.submission(number, false).await.unwrap();
    assert_eq!((said.about, said.submission.title.as_str()), (None, ""));
    let about = About {
        title: "rows from rows".into(),
        note: "one\ntwo".into(),
        licence: "MIT".into(),
        ..About::default()
    };
    let say = |about: About| Statement::Describe { entry: EntryId(number), about };
    world.client(11).await.state(&say(about.clone())).await.unwrap_err();
    let link = say(About { link: "nowhere".into(), ..about.clone() });
    let refused = client.state(&link).await.unwrap_err();
    assert!(refused.to_string().contains("https://"), "{refused}");
    let mut events = stranger.events(None, Some(number), None);
    events.open().await.unwrap();
    let before = stranger.competition("matrix").await.unwrap().updated_at;
    client.state(&say(about)).await.unwrap();
    let told = within(events.next()).await.unwrap();
    assert_eq!((told.kind, told.text.as_deref()), (EventKind::Described, Some("rows from rows")));
    assert_eq!((told.submission_id, told.key), (Some(number), Some(key(10).node_id().to_string())));
    assert!(stranger.competition("matrix").await.unwrap().updated_at > before);
    let shown = stranger.submission(number, false).await.unwrap();
    let words = shown.about.unwrap();
    assert_eq!(
        (words.title.as_str(), words.note.as_str(), words.licence.as_str()),
        ("rows from rows", "one\ntwo", "MIT")
    );
    let list =
        stranger.submissions(&SubmissionQuery { count: 10, ..SubmissionQuery::default() }).await.unwrap();
    assert_eq!(list.submissions[0].title, "rows from rows");
}
