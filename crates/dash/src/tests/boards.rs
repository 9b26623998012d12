//! The board with its Pareto front, announcements, and what happened.

use super::*;

fn row(rank: u32, id: u64, raw: f64, ratio: Option<f64>) -> Value {
    json!({
        "rank": rank, "submission_id": id, "entrant": key(0xa0 + rank as u8), "version": 3,
        "role": if id == 7 { "baseline" } else { "challenger" }, "title": "rows from rows", "score": raw / 6.0,
        "raw_score": raw, "compression_ratio": ratio, "similarity": ratio.map(|_| 0.9931),
        "task_time_s": ratio.map(|_| 0.5), "bytes_per_s": ratio.map_or(0, |_| 123_400_000), "echo_of": null,
        "submitted_at": "2026-11-20T09:30:00Z", "daily_percent": 0.125, "submissions_count": 4,
        "join_date": "2026-11-18T09:30:00Z"
    })
}

fn point(id: u64, ratio: f64) -> Value {
    json!({ "submission_id": id, "entrant": key(0xa1), "compression_ratio": ratio, "bytes_per_s": if id == 41 { 123_400_000 } else { 260_000_000 }, "similarity": 0.9931 })
}

fn board(dash: &Dash, rows: &[Value], pareto: &[Value], start: u64, total: u64) -> Answer {
    let standing = dash.board.as_ref().unwrap();
    let board =
        json!({ "round_number": 9, "rows": rows, "pareto": pareto, "pagination": page(rows, start, total) });
    let board = Box::new(serde_json::from_value(board).unwrap());
    Answer::Board { competition: standing.competition.clone(), start, board }
}

fn wish(start: u64) -> Wish {
    Wish::Board { competition: key(1), start }
}

fn standing() -> Dash {
    let mut dash = opened();
    assert_eq!(dash.key(Key::Char('b')), [wish(0)]);
    let rows = [row(1, 41, 4.2, Some(4.2222)), row(2, 42, -3.5, Some(2.5)), row(3, 7, 1.31, Some(1.31))];
    let answer = board(&dash, &rows, &[point(41, 4.2222), point(88, 3.125)], 0, 3);
    dash.answer(answer);
    dash
}

#[test]
fn the_board_says_who_stands_where_and_who_is_on_the_front() {
    let mut dash = standing();
    insta::assert_snapshot!("board", picture(&dash, 80, 24));
    insta::assert_snapshot!("board_wide", picture(&dash, 130, 14));
    // Rows and points are one list: the last is a point that is no row.
    dash.key(Key::End);
    assert_eq!(dash.key(Key::Enter), [Wish::Submission { id: 88 }]);
    // Back to the board, then to the competition.
    assert_eq!(dash.key(Key::Escape), [wish(0)]);
    assert_eq!(dash.screen, Screen::Board);
    assert!(matches!(&dash.key(Key::Escape)[..], [Wish::Competition { .. }, Wish::Submissions(_)]));
    assert_eq!(dash.screen, Screen::Competition);
    // From the list of competitions it goes back there.
    let mut dash = home();
    assert_eq!(dash.key(Key::Char('b')), [wish(0)]);
    assert!(picture(&dash, 80, 24).contains("board of matrix-compression"));
    assert_eq!(dash.key(Key::Escape), [Wish::Competitions { completed: false, start: 0 }]);
    assert_eq!(dash.screen, Screen::Home);
}

#[test]
fn a_board_of_programs_has_no_front_and_pages_are_turned() {
    let mut dash = standing();
    let rows: Vec<Value> = (0..50).map(|rank| row(rank + 1, u64::from(rank) + 100, 0.5, None)).collect();
    let answer = board(&dash, &rows, &[], 0, 51);
    dash.answer(answer);
    let shown = picture(&dash, 80, 24);
    assert!(
        !shown.contains("Pareto") && shown.contains("page 1 of 2") && shown.contains("          –"),
        "{shown}"
    );
    dash.key(Key::End);
    assert!(picture(&dash, 80, 24).contains("  149 "), "the selected row is in sight");
    assert_eq!(dash.key(Key::Char('n')), [wish(50)]);
    // A late answer to the page that was left changes nothing.
    let late = board(&dash, &rows, &[], 0, 51);
    dash.answer(late);
    assert_eq!(dash.refresh(), [wish(50)]);
    let answer = board(&dash, &[row(51, 160, 0.1, None)], &[], 50, 51);
    dash.answer(answer);
    assert_eq!(dash.key(Key::Enter), [Wish::Submission { id: 160 }]);
}

fn notes(texts: &[(&str, &str)]) -> api::model::Notes {
    let note = |(at, text): &(&str, &str)| json!({ "at": at, "from": key(9), "text": text });
    serde_json::from_value(json!({ "notes": texts.iter().map(note).collect::<Vec<_>>() })).unwrap()
}

#[test]
fn announcements_are_read_in_full() {
    let mut dash = opened();
    assert_eq!(dash.key(Key::Char('a')), [Wish::News { competition: Some(key(1)) }]);
    let long = format!("{}the end", "inputs change ".repeat(150));
    let own = notes(&[
        ("2026-11-21T10:00:00Z", "Round 11 draws from\nanother pool.\u{7}"),
        ("2026-11-19T08:00:00Z", &long),
    ]);
    let arena = notes(&[("2026-11-20T12:00:00Z", "The host moves on Friday.")]);
    // What another screen asked for is passed over.
    dash.answer(Answer::News { competition: None, own: notes(&[]), arena: arena.clone() });
    assert!(!picture(&dash, 80, 24).contains("Friday"));
    dash.answer(Answer::News { competition: Some(key(1)), own, arena: arena.clone() });
    insta::assert_snapshot!("news", picture(&dash, 80, 24));
    dash.key(Key::End);
    assert!(picture(&dash, 80, 24).contains("the end"), "{}", picture(&dash, 80, 24));
    // A refresh asks for what is below, and for them.
    assert_eq!(dash.refresh().last(), Some(&Wish::News { competition: Some(key(1)) }));
    assert_eq!(dash.key(Key::Escape), []);
    assert_eq!(dash.screen, Screen::Competition);
    let mut dash = home();
    assert_eq!(dash.key(Key::Char('a')), [Wish::News { competition: None }]);
    dash.answer(Answer::News { competition: None, own: notes(&[]), arena });
    assert!(picture(&dash, 80, 24).contains("The host moves on Friday."));
    dash.answer(Answer::News { competition: None, own: notes(&[]), arena: notes(&[]) });
    assert!(picture(&dash, 80, 24).contains("nothing was announced"));
}

#[test]
fn the_first_screen_s_log_says_what_happened() {
    let mut dash = home();
    assert_eq!(dash.key(Key::Char('l')), []);
    assert!(picture(&dash, 80, 24).contains("nothing yet"));
    let event = json!({ "id": "9.1", "kind": "settled", "at": "2026-11-21T11:58:03Z", "competition_id": key(1),
        "round_number": 9, "submission_id": 42, "key": key(0xab) });
    dash.happened(&serde_json::from_value(event).unwrap());
    let event = json!({ "id": "9.2", "kind": "round_advanced", "at": "2026-11-21T11:59:00Z",
        "competition_id": key(8), "round_number": 3, "text": "evaluating" });
    dash.happened(&serde_json::from_value(event).unwrap());
    let event = json!({ "id": "9.3", "kind": "round_completed", "at": "2026-11-21T11:59:30Z",
        "competition_id": key(2), "round_number": 4, "submission_id": 77 });
    dash.happened(&serde_json::from_value(event).unwrap());
    dash.answer(Answer::Failed("no answer from the host".to_owned()));
    insta::assert_snapshot!("happened", picture(&dash, 80, 12));
    for _ in 0..1000 {
        dash.answer(Answer::Failed("again".to_owned()));
    }
    assert_eq!(dash.happened.len(), 500);
}

#[test]
fn any_size_of_boards_and_texts_is_drawn() {
    let mut news = opened();
    news.key(Key::Char('a'));
    news.answer(Answer::News {
        competition: Some(key(1)),
        own: notes(&[("2026-11-21T10:00:00Z", "one")]),
        arena: notes(&[]),
    });
    for mut dash in [standing(), news] {
        for (width, height) in [(1, 1), (5, 3), (20, 5), (40, 10), (300, 100)] {
            dash.resize(width, height);
            dash.key(Key::PageDown);
            picture(&dash, width, height);
        }
    }
}
