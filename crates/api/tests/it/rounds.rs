//! Whole rounds: sealed, opened, judged, shown; gates on the way; a killed host loses nothing that it acknowledged.

use arena::record::{EntryId, Statement};
use shoal_api::ClientError;
use shoal_api::client::SubmissionQuery;
use shoal_api::model::{EntryRole, Filter, Mode};
use wire::Hash;

use super::world::{OWNER, World, code, key, within};

fn gate(error: &ClientError) -> &str {
    match error {
        ClientError::Gated { gate } => &gate.reason,
        other => panic!("not a gate: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_from_seal_to_board() {
    let world = World::start("", &[1, 2]).await;
    let id = world.rounds(2, "matrix", 3, 20, "agree = 2\ntakeover = 2\nmax = 2\nlease_s = 20").await;
    let judges = [world.judge(1, 4).await, world.judge(2, 4).await];
    let (best, kept) = world.submit(10, id, code(b'9', 1)).await;
    let (fair, _) = world.submit(11, id, code(b'3', 2)).await;
    let (bad, _) = world.submit(12, id, code(b'x', 3)).await;
    assert_eq!(world.seals(10).all().unwrap(), [kept]);

    // Sealed: nobody sees code or results, not even the host has the code.
    let (own, stranger) = (world.client(10).await, world.stranger().await);
    let error = stranger.code(best, 0, 10).await.unwrap_err();
    assert_eq!(gate(&error), "code_not_revealed");
    let error = stranger.file(best, "metadata.json", 0, 10).await.unwrap_err();
    assert_eq!(gate(&error), "round_not_completed");
    let ClientError::Gated { gate: closed } = error else { unreachable!() };
    assert_eq!(closed.round_state.as_deref(), Some("open"));
    assert!(closed.round_end_at.is_some());
    let error = stranger.round_board("matrix", "current", 0, 10).await.unwrap_err();
    assert_eq!(gate(&error), "round_not_completed");
    let rate = own.rate_limit(&key(10).node_id().to_string()).await.unwrap();
    assert_eq!((rate.limit, rate.used, rate.left), (4, 1, 3));

    let (a, b, c) = (world.open_seals(10), world.open_seals(11), world.open_seals(12));
    tokio::join!(a, b, c);
    world.round_over(id).await;

    let page = stranger.board("matrix", 0, 10).await.unwrap();
    let rows: Vec<(u64, EntryRole)> = page.rows.iter().map(|row| (row.submission_id, row.role)).collect();
    assert_eq!(rows[0], (best, EntryRole::Challenger));
    assert_eq!(rows[1], (fair, EntryRole::Challenger));
    assert_eq!(rows[2].1, EntryRole::Baseline);
    let competition = stranger.competition("matrix").await.unwrap();
    assert_eq!(competition.top.as_ref().unwrap().submission_id, best);
    assert!(competition.score_to_beat.unwrap().raw_score > competition.top.unwrap().raw_score);
    let detail = stranger.submission(bad, false).await.unwrap();
    assert_eq!((detail.submission.state.as_str(), detail.submission.revealed), ("failed", true));
    assert_eq!(detail.submission.eval_error.as_deref(), Some("stopped with an error"));

    // Results and logs are for everybody now, code still is its maker's.
    let detail = stranger.submission(best, true).await.unwrap();
    assert_eq!(detail.judgements.len(), 2);
    assert_eq!(detail.judgements[0].units.len(), 8);
    let ratio = detail.summary.iter().find(|metric| metric.key == "compression_ratio").unwrap();
    assert!(ratio.value > ratio.baseline_value.unwrap());
    let log = detail.files.iter().find(|file| file.name.contains(".log")).unwrap();
    let page = stranger.file(best, &log.name, 1, 1).await.unwrap();
    assert_eq!((page.data.as_str(), page.pagination.next_start_idx), ("line two\n", Some(2)));
    let error = stranger.code(best, 0, 10).await.unwrap_err();
    assert_eq!(gate(&error), "code_not_revealed");
    let ClientError::Gated { gate: closed } = error else { unreachable!() };
    assert!(closed.reveal_at.is_some());
    assert_eq!(own.raw(best, "code.wasm").await.unwrap(), code(b'9', 1));

    let board = stranger.leaderboard(Mode::FirstPlaces, 0, 10).await.unwrap();
    assert_eq!(board.rows[0].entrant, key(10).node_id().to_string());
    let profile = stranger.profile(&key(11).node_id().to_string()).await.unwrap();
    assert_eq!((profile.scored_submissions, profile.competitions.len()), (1, 1));
    // The winner is paid from the round's end on: by the millisecond, booked by the day.
    let winner = key(10).node_id().to_string();
    let paid = within(async {
        loop {
            let found = stranger.profile(&winner).await.unwrap();
            if !found.earnings.is_empty() {
                return found;
            }
        }
    });
    let paid: f64 = paid.await.earnings.iter().map(|day| day.earned_days).sum();
    let competition = stranger.competition("matrix").await.unwrap();
    assert!(paid > 0.0 && competition.total_earned_days >= paid, "{paid} {competition:?}");
    assert!(!competition.daily_earnings.is_empty());
    assert!(detail.capabilities.iter().any(|flag| flag == "baseline_comparison"));
    assert_eq!(ratio.format, "number");
    let query = SubmissionQuery {
        filter: Filter::TopScore,
        competition: Some("matrix".into()),
        count: 5,
        ..SubmissionQuery::default()
    };
    let tops = stranger.submissions(&query).await.unwrap();
    assert_eq!(tops.submissions.iter().map(|row| row.id).collect::<Vec<_>>(), [best]);

    // The log is all that is needed to come to the same end.
    let bytes = stranger.log().await.unwrap();
    let (state, _) =
        arena::verify::file::<arena::State>(&bytes, |_| arena::state::Signatures::Check).unwrap();
    assert_eq!(state.competition(&id).unwrap().champion.unwrap().entry, EntryId(best));
    for judge in judges {
        judge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entrusted_seal_is_opened_by_the_host_even_after_a_kill() {
    let mut world = World::start("", &[1]).await;
    let id = world.competition("trust", 3, 20, "agree = 1\ntakeover = 1\nmax = 1\nlease_s = 20").await;
    let (entry, kept) = world.submit(10, id, code(b'5', 1)).await;
    let client = world.client(10).await;
    // Another code, another salt, another key: none opens the seal.
    let wrong = shoal_api::seals::Kept { salt: Hash::of(b"x").to_string(), ..kept.clone() };
    let error = world.seals(10).entrust(&client, &wrong, entry).await.unwrap_err();
    assert_eq!(error.reason(), Some("bad_request"));
    let thief = world.client(11).await;
    let error = world.seals(10).entrust(&thief, &kept, entry).await.unwrap_err();
    assert_eq!(error.reason(), Some("forbidden"));
    world.seals(10).entrust(&client, &kept, entry).await.unwrap();
    assert!(client.submission(entry, false).await.unwrap().entrusted);
    world.kill().await;
    world.go().await;
    let judge = world.judge(1, 2).await;
    world.round_over(id).await;
    let row = world.stranger().await.submission(entry, false).await.unwrap();
    assert_eq!(row.submission.state, "scored");
    assert!(!row.entrusted);
    judge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_a_kill() {
    let mut world = World::start("rate_entries = 1000", &[]).await;
    let id = world.competition("kills", 600, 20, "lease_s = 20").await;
    let mut known: Vec<(u64, Hash)> = Vec::new();
    for round in 0..4_u8 {
        // Several write at once while the host is cut off in the middle.
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..4_u8 {
            let client = world.client(20 + writer).await;
            tasks.spawn(async move {
                let mut done = Vec::new();
                for index in 0..50_u8 {
                    let seal = Hash::of(&[round, writer, index]);
                    let form = arena::spec::Form::Component;
                    let statement =
                        Statement::Submit { competition: id, seal, form, parents: Vec::new(), receipt: None };
                    // Without tries: what is not answered may or may not be there.
                    match tokio::time::timeout(std::time::Duration::from_secs(5), client.state(&statement))
                        .await
                    {
                        Ok(Ok(answer)) => done.push((answer.submission_id.unwrap(), seal)),
                        _ => break,
                    }
                }
                done
            });
        }
        let seen = world.client(OWNER).await;
        let mut events = seen.events(None, None, None);
        events.open().await.unwrap();
        for _ in 0..=(round * 20) {
            within(events.next()).await.unwrap();
        }
        world.kill().await;
        world.go().await;
        for done in within(tasks.join_all()).await {
            known.extend(done);
        }
    }
    assert!(known.len() > 20, "only {} were acknowledged", known.len());
    let client = world.stranger().await;
    for (entry, seal) in &known {
        assert_eq!(client.submission_of_seal(seal).await.unwrap().id, *entry);
    }
    world.stop().await;
}
