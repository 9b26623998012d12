//! Lists: every page once, no row twice, filters and order; what is out of bounds is said.

use std::collections::BTreeSet;

use arena::record::Statement;
use arena::spec::Form;
use shoal_api::ClientError;
use shoal_api::client::{CompetitionQuery, SubmissionQuery};
use shoal_api::model::{Filter, PaymentEntry, Sort};
use wire::Hash;

use super::world::{OWNER, World, key};

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_every_row_once() {
    let world = World::start("rate_entries = 1000", &[]).await;
    let id = world.competition("pages", 600, 20, "lease_s = 20").await;
    world.competition("other", 600, 20, "lease_s = 20").await;
    for seed in 10..13 {
        let client = world.client(seed).await;
        let submit = |n: u8| Statement::Submit {
            competition: id,
            seal: Hash::of(&[seed, n]),
            form: Form::Component,
            parents: Vec::new(),
            receipt: None,
        };
        let all: Vec<Statement> = (0..15).map(submit).collect();
        for answer in client.state_all(&all).await.unwrap() {
            answer.unwrap();
        }
    }
    let client = world.client(10).await;
    for sort in [Sort::Score, Sort::Time] {
        let mut seen = Vec::new();
        let mut start = 0;
        loop {
            let query = SubmissionQuery {
                competition: Some("pages".into()),
                sort,
                start,
                count: 7,
                ..SubmissionQuery::default()
            };
            let page = client.submissions(&query).await.unwrap();
            assert_eq!(page.pagination.total, 45);
            seen.extend(page.submissions.iter().map(|row| row.id));
            start += page.pagination.count;
            if !page.pagination.has_more {
                break;
            }
        }
        assert_eq!(seen.len(), 45);
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 45);
        assert_eq!(seen.is_sorted(), sort == Sort::Score, "unjudged: by entry, or newest first");
    }
    let mine = SubmissionQuery {
        competition: Some("pages".into()),
        filter: Filter::Mine,
        count: 200,
        ..SubmissionQuery::default()
    };
    let page = client.submissions(&mine).await.unwrap();
    assert_eq!(page.submissions.len(), 15);
    assert!(page.submissions.iter().all(|row| row.entrant == key(10).node_id().to_string()));
    let whole = key(12).node_id().to_string();
    let part = SubmissionQuery {
        entrant: Some(whole[5..20].to_uppercase()),
        count: 4,
        ..SubmissionQuery::default()
    };
    let page = client.submissions(&part).await.unwrap();
    assert_eq!((page.pagination.total, page.submissions.len()), (15, 4));
    assert!(page.submissions.iter().all(|row| row.entrant == whole));

    let stranger = world.stranger().await;
    for bad in [
        mine,
        SubmissionQuery { entrant: Some("zz".into()), count: 1, ..SubmissionQuery::default() },
        SubmissionQuery { round: Some(0), count: 1, ..SubmissionQuery::default() },
        SubmissionQuery { competition: Some("nowhere".into()), count: 1, ..SubmissionQuery::default() },
    ] {
        assert!(matches!(stranger.submissions(&bad).await, Err(ClientError::Refused { .. })), "{bad:?}");
    }
    let query = CompetitionQuery { start: 1, count: 1, ..CompetitionQuery::default() };
    let page = stranger.competitions(&query).await.unwrap();
    assert_eq!((page.competitions.len(), page.pagination.total, page.pagination.has_more), (1, 2, false));
    let found = stranger.competition(&id.to_string()[..10]).await.unwrap();
    assert_eq!((found.name.as_str(), found.total_submissions, found.active_entrants), ("pages", 45, 3));
    assert_eq!(stranger.rounds("pages", 0, 5).await.unwrap().rounds.len(), 1);
    let owner = world.client(OWNER).await;
    assert!(!owner.competition(&id.to_string()).await.unwrap().ending);
    owner.state(&Statement::End { competition: id }).await.unwrap();
    assert!(owner.competition(&id.to_string()).await.unwrap().ending);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_receipt_is_found_until_it_is_used() {
    let world = World::start("", &[1]).await;
    let (owner, payer) = (world.client(OWNER).await, key(10).node_id().to_string());
    for (number, amount) in [(1_u8, 5), (2, 9)] {
        let receipt = Hash([number; 32]).to_string();
        owner.pay(&PaymentEntry { receipt, payer: payer.clone(), amount }).await.unwrap();
    }
    let found = world.stranger().await.receipts(&payer).await.unwrap().receipts;
    assert_eq!(found.iter().map(|row| row.amount).collect::<Vec<_>>(), [9, 5]);
    assert_eq!(found[0].receipt, Hash([2; 32]).to_string());
    let none = world.stranger().await.receipts(&key(11).node_id().to_string()).await.unwrap();
    assert!(none.receipts.is_empty());
}
