//! Whole rounds: sealed, opened, judged, shown; gates on the way; a killed host loses nothing that it acknowledged.

use std::sync::Arc;

use arena::calendar::Moment;
use arena::record::{EntryId, Statement, entry_seal};
use arena::spec::{CompetitionSpec, Form};
use arena::state::Signatures;
use shoal_api::ClientError;
use shoal_api::client::SubmissionQuery;
use shoal_api::model::{BoardEntry, EntryRole, Filter, LeaderRow, Mode};
use shoal_api::seals::{Kept, Opened};
use wire::{Hash, Millis};

use super::world::{BrokenJudge, OWNER, World, code, key, within};

fn gate(error: &ClientError) -> &str {
    match error {
        ClientError::Gated { gate } => &gate.reason,
        other => panic!("not a gate: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_from_seal_to_board() {
    let mut world = World::start("", &[1, 2]).await;
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
    let found = stranger.competition("matrix").await.unwrap();
    assert_eq!((found.score_scale.as_str(), found.baseline_valid), ("raw", None));
    assert!((found.round_length_in_days - 43.0 / 86_400.0).abs() < 1e-12, "{found:?}");
    let row = own.submission(best, false).await.unwrap().submission;
    assert_eq!((row.eval_at, row.eval_time_in_seconds), (None, None));
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
    assert_eq!(page.rows[0].submissions_count, Some(1));
    assert!(page.rows[0].join_date.is_some() && page.rows[2].submissions_count == Some(0), "{page:?}");
    let competition = stranger.competition("matrix").await.unwrap();
    assert_eq!(competition.top.as_ref().unwrap().submission_id, best);
    assert!(competition.score_to_beat.unwrap().raw_score > competition.top.unwrap().raw_score);
    let leader = key(10).node_id().to_string();
    let [bounty] = &competition.bounties[..] else { panic!("{:?}", competition.bounties) };
    assert_eq!(
        (bounty.entrant.as_ref(), bounty.rounds_left, bounty.share_percent),
        (Some(&leader), 10, 10.0)
    );
    let [payee] = &competition.payees[..] else { panic!("{:?}", competition.payees) };
    assert_eq!((&payee.entrant, payee.share_percent), (&leader, 100.0));
    let detail = stranger.submission(bad, false).await.unwrap();
    assert_eq!((detail.submission.state.as_str(), detail.submission.revealed), ("rejected", true));
    assert_eq!(detail.submission.eval_error.as_deref(), Some("asks for something that is forbidden"));
    let failed = detail.judgements[0].failure.as_ref().unwrap();
    assert_eq!(
        (failed.kind.as_str(), failed.reason.as_str()),
        ("Forbidden", "solution.py:3: imports ctypes")
    );
    assert!(detail.summary.is_empty());

    // Results and logs are for everybody now, code still is its maker's.
    let detail = stranger.submission(best, true).await.unwrap();
    assert_eq!(detail.judgements.len(), 2);
    let took = detail.submission.eval_time_in_seconds.unwrap();
    assert!((0.0..60.0).contains(&took), "{took}");
    let found = stranger.competition("matrix").await.unwrap();
    assert_eq!(found.baseline_valid, Some(true));
    assert_eq!(found.active_entrants, 3, "whose baseline it is did not enter");
    assert!(found.updated_at >= detail.submission.eval_at.unwrap(), "{found:?}");
    // The same entry by round, key and version, as clients of Apex ask for it; the gate is the same.
    let maker = key(10).node_id().to_string();
    let page = own.code_of_version("matrix", 0, &maker, 1).await.unwrap();
    assert_eq!((page.submission_id, page.version, page.page.is_binary), (best, 1, true));
    assert_eq!(page.page.download_url, format!("/v1/submissions/{best}/raw/code.wasm"));
    let error = stranger.code_of_version("matrix", 0, &maker, 1).await.unwrap_err();
    assert_eq!(gate(&error), "code_not_revealed");
    let error = own.code_of_version("matrix", 0, &maker, 2).await.unwrap_err();
    assert!(error.to_string().contains("version 2"), "{error}");
    let points = stranger.scores("matrix").await.unwrap().points;
    assert_eq!((points[0].submission_id, points[0].version), (best, 1));
    let units = &detail.judgements[0].units;
    assert_eq!(units.len(), 8);
    assert_eq!((units[3].id.as_str(), units[3].kind.as_str(), units[3].index), ("input-3", "instance", 3));
    assert!(units.iter().all(|unit| unit.outcome == "lossy" || unit.outcome == "exact"), "{units:?}");
    assert!(detail.capabilities.iter().any(|flag| flag == "outcome_breakdown"), "{:?}", detail.capabilities);
    let ratio = detail.summary.iter().find(|metric| metric.key == "compression_ratio").unwrap();
    assert!(ratio.value > ratio.baseline_value.unwrap());
    // What the judges tell besides: the evaluator's metrics, what the entry took, and where.
    let rows = detail.summary.iter().find(|metric| metric.key == "rows_per_s").unwrap();
    assert_eq!((rows.value, rows.unit.as_str(), rows.label.as_str()), (2.5, "1/s", "rows per s"));
    assert_eq!((rows.baseline_value, rows.direction.as_str()), (Some(2.5), "neutral"));
    let backward = detail.summary.iter().find(|metric| metric.key == "ratio_backward").unwrap();
    assert_eq!((backward.value, backward.baseline_value), (4.5, Some(4.5)));
    assert_eq!(backward.label, "Compression ratio, gradients");
    assert_eq!(backward.direction, "higher_is_better");
    let told = &detail.judgements[1];
    assert_eq!((told.usage.cpu_s, told.usage.memory_peak_bytes, told.usage.fuel), (1.5, 3 << 20, 7));
    assert_eq!((told.machine.cores, told.machine.cpu_model.as_str()), (3, "Test CPU"));
    assert_eq!(told.metrics[0].value, 2.5);
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
    let board = stranger.board(&id.to_string(), 0, 10).await.unwrap();
    let daily = |row: &BoardEntry| row.daily_percent.unwrap();
    // A tenth of the arena, of which nine tenths are burned now, and a tenth of the rest in ten days: 0.95 % of this day's.
    assert!((0.94..=0.951).contains(&daily(&board.rows[0])), "{:?}", board.rows[0]);
    assert!(board.rows[1..].iter().all(|row| daily(row) == 0.0), "{board:?}");
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
    // A host that comes back says of every key what it said before.
    let before = stranger.leaderboard(Mode::MeanScore, 0, 10).await.unwrap();
    world.stop().await;
    world.go().await;
    let after = stranger.leaderboard(Mode::MeanScore, 0, 10).await.unwrap();
    let told =
        |row: &LeaderRow| (row.entrant.clone(), row.rank, row.mean_score, row.mean_place, row.first_places);
    assert_eq!(
        after.rows.iter().map(told).collect::<Vec<_>>(),
        before.rows.iter().map(told).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_seals_the_hash_of_anothers_code_does_not_get_the_code() {
    let world = World::start("", &[1]).await;
    let first = world.competition("first", 2, 20, "lease_s = 20").await;
    let second = world.competition("second", 7, 20, "lease_s = 20").await;
    let judge = world.judge(1, 1).await;
    let secret = code(b'7', 1);
    let (hash, bytes) = (Hash::of(&secret), secret.len() as u64);
    let (victim, _) = world.submit(10, first, secret.clone()).await;
    world.open_seals(10).await;
    // Opened: the hash stands in the log, the code is its maker's for an hour yet.
    let (maker, thief) = (world.client(10).await, world.client(11).await);
    assert_eq!(maker.code(victim, 0, 10).await.unwrap().submission_id, victim);
    let salt = Hash::of(b"any");
    let seal = entry_seal(&second, &key(11).node_id(), Form::Component, &hash, bytes, &salt);
    let submit = Statement::Submit {
        competition: second,
        seal,
        form: Form::Component,
        parents: Vec::new(),
        receipt: None,
    };
    let copy = thief.state(&submit).await.unwrap().submission_id.unwrap();
    let name = second.to_string();
    let mut events = thief.events(Some(&name), None, Some(0));
    within(async { while events.next().await.unwrap().text.as_deref() != Some("opening") {} }).await;
    let unseal = Statement::Unseal { entry: EntryId(copy), code: hash, bytes, salt };
    let error = thief.state(&unseal).await.unwrap_err();
    assert!(error.to_string().contains("upload the code of entry"), "{error}");
    assert_eq!(thief.code(copy, 0, 10).await.unwrap_err().reason(), Some("not_found"));
    // Who has the bytes may enter them, whoever else did.
    let target = format!("/v1/submissions/{copy}/code?salt={salt}");
    thief.upload(&target, secret).await.unwrap();
    let opened = thief.state(&unseal).await;
    assert!(
        opened.is_ok() || opened.is_err_and(|error| matches!(error.reason(), Some("refused" | "repeated")))
    );
    assert_eq!(thief.code(copy, 0, 10).await.unwrap().submission_id, copy);
    // A competition that names it as its baseline opens it no sooner, though everybody may read other baselines.
    let start = Moment(Millis(thief.now().0 + 3000 - 60_000));
    let spec = format!(
        "name = \"third\"\nkind = \"codec\"\n[schedule]\nstart = \"{start}\"\nevery_s = 60\nopening_s = 10\njudging_s = 20\n\
         [inputs]\nitems = 8\n[baseline]\nname = \"stolen\"\ncode = \"{hash}\"\nbytes = {bytes}\n"
    );
    let spec = CompetitionSpec::parse(&spec).unwrap();
    thief.state(&Statement::Open { spec: spec.canonical() }).await.unwrap();
    world.submit(12, spec.id(), code(b'4', 1)).await;
    world.open_seals(12).await;
    let stranger = world.stranger().await;
    let mut baselines = Vec::new();
    for competition in [second, spec.id()] {
        let (name, query) =
            (competition.to_string(), SubmissionQuery { count: 50, ..SubmissionQuery::default() });
        let query = SubmissionQuery { competition: Some(name.clone()), ..query };
        let mut events = stranger.events(Some(&name), None, Some(0));
        let found = within(async {
            loop {
                let rows = stranger.submissions(&query).await.unwrap().submissions;
                if let Some(row) = rows.into_iter().find(|row| row.role == EntryRole::Baseline) {
                    return row;
                }
                events.next().await.unwrap();
            }
        });
        baselines.push(found.await);
    }
    let [plain, stolen] = &baselines[..] else { unreachable!() };
    assert!(plain.code_revealed && !stolen.code_revealed);
    stranger.code(plain.id, 0, 10).await.unwrap();
    assert_eq!(gate(&stranger.code(stolen.id, 0, 10).await.unwrap_err()), "code_not_revealed");
    assert_eq!(gate(&thief.raw(stolen.id, "code.wasm").await.unwrap_err()), "code_not_revealed");
    let files = stranger.submission(stolen.id, false).await.unwrap().files;
    assert!(files.iter().all(|file| file.name != "code.wasm" || !file.revealed), "{files:?}");
    assert_eq!(stranger.blob(&hash).await.unwrap_err().reason(), Some("not_found"));
    judge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_that_the_host_does_not_know_yet_is_kept() {
    let world = World::start("", &[]).await;
    let id = world.competition("slow", 600, 20, "lease_s = 20").await;
    let (entry, kept) = world.submit(10, id, code(b'5', 1)).await;
    let (client, seals) = (world.client(10).await, world.seals(10));
    assert_eq!(seals.open(&client, &kept).await.unwrap(), Opened::Waits { entry });
    // Another process has kept it, and its statement is on the way: who looks meanwhile leaves it alone.
    let path = seals.folder().join(format!("{}.json", kept.seal));
    let coming = Kept { seal: Hash::of(b"coming").to_string(), ..kept.clone() };
    let other = path.with_file_name(format!("{}.json", coming.seal));
    std::fs::write(&other, serde_json::to_string(&coming).unwrap()).unwrap();
    assert_eq!(seals.open(&client, &coming).await.unwrap(), Opened::Unknown);
    assert!(other.exists());
    // It never came.
    let old = std::time::SystemTime::now() - 2 * shoal_api::limits::SEAL_UNSETTLED;
    std::fs::File::options().write(true).open(&other).unwrap().set_modified(old).unwrap();
    assert_eq!(seals.open(&client, &coming).await.unwrap(), Opened::Unknown);
    assert!(!other.exists() && path.exists());
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

/// Leases last for twenty minutes, the test does not: what the one judge gives back the other gets at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_judge_whose_machine_fails_gives_its_leases_back() {
    let mut world = World::start("", &[1, 2]).await;
    let id = world.competition("matrix", 3, 1500, "agree = 1\ntakeover = 1\nmax = 2\nlease_s = 1200").await;
    let judges = [world.judge_with(1, 1, Arc::new(BrokenJudge)).await, world.judge(2, 1).await];
    let mut made = Vec::new();
    for seed in 10..14 {
        made.push(world.submit(seed, id, code(b'0' + seed % 10, u64::from(seed))).await.0);
    }
    let (a, b, c, d) =
        (world.open_seals(10), world.open_seals(11), world.open_seals(12), world.open_seals(13));
    tokio::join!(a, b, c, d);
    world.round_over(id).await;
    let stranger = world.stranger().await;
    for entry in made {
        assert_eq!(stranger.submission(entry, false).await.unwrap().submission.state, "scored");
    }
    let bytes = stranger.log().await.unwrap();
    let (state, _) = arena::verify::file::<arena::State>(&bytes, |_| Signatures::Trust).unwrap();
    let broken = &state.judges()[&key(1).node_id()];
    assert!(broken.expired > 0 && broken.leased == broken.expired, "{broken:?}");
    for judge in judges {
        judge.stop().await;
    }
    world.stop().await;
}
