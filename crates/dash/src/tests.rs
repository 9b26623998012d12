//! Pictures of every screen, and the defects that this dashboard must not have (arena specs §12 row 12).

use api::model::{Filter, Gated, Sort};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

use super::*;

mod boards;
mod reading;

const NOW: &str = "2026-11-21T12:00:00.000Z";

fn now() -> Millis {
    NOW.parse::<api::model::Time>().unwrap().0
}

fn picture(dash: &Dash, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, &Scene { dash, now: now() })).unwrap();
    terminal.backend().to_string()
}

fn key(seed: u8) -> String {
    format!("{seed:02x}").repeat(32)
}

fn competition(name: &str, id: u8, raw: f64) -> Value {
    json!({
        "id": key(id), "name": name, "title": "Smaller activations", "description": "", "kind": "codec",
        "state": "active", "opener": key(9), "rule": "shoal-link-1", "formula": "", "score_direction": "higher_is_better",
        "takeover_percent": 0.2, "takeover_alpha_percent": 1.0, "start_at": "2026-11-01T11:00:00Z", "end_at": null,
        "created_at": "2026-10-30T11:00:00Z", "updated_at": "2026-11-21T10:00:00Z",
        "score_scale": "raw", "round_length_in_days": 2.0, "baseline_valid": true, "next_round_at": "2026-11-22T11:00:00Z",
        "curr_round": round(10, "open", "2026-11-20T11:00:00Z", "2026-11-22T11:00:00Z", 0),
        "score_to_beat": { "raw_score": raw * 1.002, "round_number": 9, "provisional": true },
        "top": { "submission_id": 41, "entrant": key(0xab), "score": 0.71, "raw_score": raw, "round_number": 7,
            "since": "2026-11-14T13:00:00Z", "code": key(3) },
        "baseline": "zstd-3", "baseline_score": 0.3, "baseline_raw_score": 1.31, "total_submissions": 137,
        "active_entrants": 21, "total_rounds": 11, "daily_submissions": [], "weight_percent": 5.0,
        "burn_percent": 97.1, "base_burn_percent": 90.0, "emissions_percent": 0.145, "max_emissions_percent": 0.5,
        "total_earned_days": 0.0125, "daily_earnings": [],
        "fee": 0, "fee_currency": "", "bytes_max": 1_048_576, "forms": ["component", "native", "python"], "items": 400,
        "limits": { "memory_bytes": 1_610_612_736_u64, "fuel": 100_000_000_000_u64, "call_s": 60, "startup_s": 60,
            "cpu_milli": 1000, "processes": 64, "disk_bytes": 1_073_741_824 },
        "code_delay_s": 86_400, "doc_url": "", "image_url": "", "sponsor": "", "sponsor_url": "", "samples": null,
        "template": null, "note": null
    })
}

fn round(number: u32, state: &str, start: &str, end: &str, judged: u64) -> Value {
    json!({
        "round_number": number, "state": state, "start_at": start, "end_at": end, "until": end,
        "completed_at": null, "entries": 12, "judged": judged, "to_judge": if judged > 0 { 14 } else { 0 },
        "void": null, "seed": null, "takeover": null, "champion": null, "score_to_beat": null
    })
}

fn submission(id: u64, state: &str, raw: Option<f64>) -> Value {
    json!({
        "id": id, "competition_id": key(1), "competition": "matrix-compression", "round_number": 9, "state": state,
        "entrant": key(0xab), "version": id % 4, "form": "component",
        "role": if id.is_multiple_of(4) { "incumbent" } else { "challenger" },
        "submitted_at": "2026-11-20T09:30:00Z", "eval_at": raw.map(|_| "2026-11-20T12:10:00Z"), "eval_time_in_seconds": raw.map(|_| 12.25),
        "score": raw.map(|raw| raw / 6.0), "raw_score": raw, "rank": raw.map(|_| 3), "top_score": id == 41,
        "takeover": id == 42, "eval_error": (state == "failed").then_some("ran out of fuel"),
        "compression_ratio": null, "similarity": null, "task_time_s": null, "revealed": state != "evaluating",
        "code_revealed": false, "reveal_at": "2026-11-22T09:30:00Z"
    })
}

fn page(rows: &[Value], start: u64, total: u64) -> Value {
    let count = rows.len() as u64;
    json!({ "start_idx": start, "count": count, "total": total, "has_more": start + count < total })
}

fn competitions(rows: &[Value], start: u64, total: u64) -> Answer {
    let pagination = page(rows, start, total);
    Answer::Competitions(
        serde_json::from_value(json!({ "competitions": rows, "pagination": pagination })).unwrap(),
    )
}

fn submissions(dash: &Dash, rows: &[Value], start: u64, total: u64) -> Answer {
    let pagination = page(rows, start, total);
    let page = serde_json::from_value(json!({ "submissions": rows, "pagination": pagination })).unwrap();
    Answer::Submissions(dash.one.as_ref().unwrap().wanted(), page)
}

fn home() -> Dash {
    let (mut dash, wishes) = Dash::new("http://127.0.0.1:7464/");
    assert_eq!(wishes, [Wish::Competitions { completed: false, start: 0 }]);
    let rows = vec![competition("matrix-compression", 1, 4.2), competition("losing-money", 2, -17.25)];
    assert_eq!(dash.answer(competitions(&rows, 0, 2)), []);
    dash
}

fn opened() -> Dash {
    let mut dash = home();
    let wishes = dash.key(Key::Enter);
    assert!(matches!(&wishes[..], [Wish::Competition { .. }, Wish::Submissions(_)]));
    let found = serde_json::from_value(competition("matrix-compression", 1, 4.2)).unwrap();
    let rounds = [
        round(10, "open", "2026-11-20T11:00:00Z", "2026-11-22T11:00:00Z", 0),
        round(9, "evaluating", "2026-11-18T11:00:00Z", "2026-11-20T11:00:00Z", 5),
    ];
    let rounds = json!({ "rounds": rounds, "pagination": page(&rounds, 0, 2) });
    dash.answer(Answer::Competition(Box::new(found), serde_json::from_value(rounds).unwrap()));
    let rows = vec![
        submission(41, "scored", Some(4.2)),
        submission(42, "scored", Some(-3.5)),
        submission(43, "failed", None),
        submission(44, "evaluating", None),
    ];
    let answer = submissions(&dash, &rows, 0, 13);
    dash.answer(answer);
    dash
}

fn detailed() -> Dash {
    let mut dash = opened();
    dash.key(Key::Char('j'));
    assert_eq!(dash.key(Key::Enter), [Wish::Submission { id: 42 }]);
    let mut found = submission(42, "scored", Some(-3.5));
    let more = json!({
        "about": { "title": "rows from rows", "note": "First try.\nNo tables.", "language": "Rust",
            "licence": "Apache-2.0", "link": "" },
        "seal": key(5), "code_hash": key(6), "code_bytes": 48_211, "origin": null, "parents": [41],
        "lineage": [42, 41], "echo_of": null, "copy_of": null, "round_state": "completed",
        "round_end_at": "2026-11-20T11:00:00Z", "schema_version": 1, "entrusted": false, "capabilities": [],
        "summary": [
            { "key": "raw_score", "label": "Raw score", "value": -3.5, "unit": "", "format": "score",
                "direction": "higher_is_better", "baseline_value": 1.31 },
            { "key": "task_time_s", "label": "Time of one input", "value": 0.0125, "unit": "s", "format": "duration_s",
                "direction": "lower_is_better", "baseline_value": null }
        ],
        "judgements": [{ "judge": key(0xcd), "operator": "north", "lease": 7, "failure": null,
            "wall_task_time_s": 0.0131, "over_baseline": null, "inputs": null, "outputs": null, "log": key(8),
            "units": [] }],
        "files": [
            { "kind": "metadata", "name": "metadata.json", "bytes": null, "revealed": true },
            { "kind": "code", "name": "code.wasm", "bytes": 48_211, "revealed": false },
            { "kind": "log", "name": "judgement-7.log", "bytes": 2100, "revealed": true }
        ]
    });
    found.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    dash.answer(Answer::Submission(serde_json::from_value(found).unwrap()));
    dash
}

fn file(start: u64, lines: u64, total: u64) -> Answer {
    let rows: Vec<String> = (start..start + lines).map(|line| format!("line {line}\n")).collect();
    let data = rows.concat();
    let next = (start + lines < total).then_some(start + lines);
    let page = json!({ "name": "judgement-7.log", "data": data, "is_binary": false, "download_url": "",
        "pagination": { "start_idx": start, "end_idx": start + lines, "lines": total, "next_start_idx": next } });
    Answer::File(42, serde_json::from_value(page).unwrap())
}

#[test]
fn pictures() {
    insta::assert_snapshot!("home", picture(&home(), 100, 12));
    insta::assert_snapshot!("home_narrow", picture(&home(), 80, 24));
    insta::assert_snapshot!("competition", picture(&opened(), 100, 24));
    insta::assert_snapshot!("competition_narrow", picture(&opened(), 80, 24));
    insta::assert_snapshot!("submission", picture(&detailed(), 100, 24));
    insta::assert_snapshot!("submission_narrow", picture(&detailed(), 80, 24));
    insta::assert_snapshot!("home_wide", picture(&home(), 120, 12));
    insta::assert_snapshot!("competition_wide", picture(&opened(), 120, 40));
    let mut dash = detailed();
    dash.key(Key::Char('j'));
    dash.key(Key::Char('j'));
    dash.key(Key::Enter);
    dash.answer(file(0, 500, 1200));
    insta::assert_snapshot!("file", picture(&dash, 100, 24));
    dash.key(Key::Char('?'));
    insta::assert_snapshot!("help", picture(&dash, 100, 24));
    let (empty, _) = Dash::new("http://127.0.0.1:7464/");
    insta::assert_snapshot!("empty", picture(&empty, 80, 8));
}

/// No word of a screen is cut or wrapped at 80 × 24 but long names.
#[test]
fn eighty_columns_are_enough() {
    let competition = picture(&opened(), 80, 24);
    for whole in
        ["wasm/native/python 1.0 MB", "│about       Smaller activations", "rewards     0.14 %, 97.1 % burned"]
    {
        assert!(competition.contains(whole), "{whole:?} is not in\n{competition}");
    }
    let submission = picture(&detailed(), 80, 24);
    for whole in
        ["score       -0.58333, raw -3.50000", "shown in 21 h 30 min", "-3.500000 1.310000", "0.012500 s"]
    {
        assert!(submission.contains(whole), "{whole:?} is not in\n{submission}");
    }
}

#[test]
fn what_a_judge_tells_besides_is_shown() {
    let mut dash = detailed();
    let found = dash.entry.as_mut().and_then(|entry| entry.found.as_mut()).unwrap();
    let told = &mut found.judgements[0];
    told.usage.cpu_s = 1.5;
    told.usage.fuel = 2_000_000_000;
    (told.machine.cores, told.machine.cpu_model) = (3, "Test CPU".to_owned());
    let shown = picture(&dash, 160, 30);
    for words in ["1.50 s of processor time", "2.000 G fuel", "3 × Test CPU"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let failure =
        json!({ "kind": "Forbidden", "message": "forbidden", "reason": "solution.py:3: imports ctypes" });
    let found = dash.entry.as_mut().and_then(|entry| entry.found.as_mut()).unwrap();
    found.judgements[0].failure = serde_json::from_value(failure).unwrap();
    assert!(picture(&dash, 160, 30).contains("forbidden: solution.py:3: imports ctypes"));
}

#[test]
fn any_size_is_drawn() {
    for dash in [home(), opened(), detailed()] {
        for (width, height) in [(1, 1), (5, 3), (20, 5), (40, 10), (300, 100)] {
            picture(&dash, width, height);
        }
    }
}

#[test]
fn completed_competitions_are_asked_for_and_pages_beyond_the_first() {
    let mut dash = home();
    assert_eq!(dash.key(Key::Char('c')), [Wish::Competitions { completed: true, start: 0 }]);
    let rows: Vec<Value> = (0..50).map(|n| competition("many", n, 1.0)).collect();
    dash.answer(competitions(&rows, 0, 70));
    assert_eq!(dash.key(Key::Char('n')), [Wish::Competitions { completed: true, start: 50 }]);
    // A refresh stays on its page.
    assert_eq!(dash.key(Key::Char('r')), [Wish::Competitions { completed: true, start: 50 }]);
}

#[test]
fn pages_filters_and_refresh_past_the_first_page() {
    let mut dash = opened();
    let start = |wishes: &[Wish]| match wishes {
        [.., Wish::Submissions(wanted)] => wanted.start,
        other => panic!("{other:?}"),
    };
    assert_eq!(start(&dash.key(Key::Char('n'))), 10);
    let answer = submissions(&dash, &[submission(51, "scored", Some(1.0))], 10, 11);
    dash.answer(answer);
    assert_eq!(start(&dash.key(Key::Char('r'))), 10);
    assert_eq!(dash.key(Key::Char('n')), [], "there is no third page");
    assert_eq!(start(&dash.key(Key::Char('p'))), 0);
    for (key, filter) in [('m', Filter::Mine), ('t', Filter::TopScore), ('t', Filter::All)] {
        match &dash.key(Key::Char(key))[..] {
            [Wish::Submissions(wanted)] => assert_eq!(wanted.filter, filter),
            other => panic!("{other:?}"),
        }
    }
    match &dash.key(Key::Char('s'))[..] {
        [Wish::Submissions(wanted)] => assert_eq!(wanted.sort, Sort::Time),
        other => panic!("{other:?}"),
    }
    // An answer to what is no longer asked for changes nothing.
    let before = format!("{:?}", dash.one);
    let mut old = dash.clone();
    old.key(Key::Char('s'));
    let late = submissions(&old, &[submission(99, "scored", Some(9.0))], 0, 1);
    dash.answer(late);
    assert_eq!(format!("{:?}", dash.one), before);
}

#[test]
fn find_takes_an_id_or_a_part_of_a_key() {
    let mut dash = opened();
    let write = |dash: &mut Dash, text: &str| {
        dash.key(Key::Char('f'));
        // The part that was searched for last stands there.
        for _ in 0..4 {
            dash.key(Key::Backspace);
        }
        for c in text.chars() {
            assert_eq!(dash.key(Key::Char(c)), []);
        }
        dash.key(Key::Enter)
    };
    match &write(&mut dash, "abab")[..] {
        [Wish::Submissions(wanted)] => assert_eq!(wanted.entrant.as_deref(), Some("abab")),
        other => panic!("{other:?}"),
    }
    assert_eq!(write(&mut dash, "42"), [Wish::Submission { id: 42 }]);
    assert!(matches!(&dash.key(Key::Escape)[..], [Wish::Competition { .. }, Wish::Submissions(_)]));
    // Keys of the screen are letters while a line is written.
    dash.key(Key::Char('f'));
    assert_eq!(dash.key(Key::Char('q')), []);
    dash.key(Key::Escape);
    assert_eq!(dash.key(Key::Char('q')), [Wish::Quit]);
}

#[test]
fn a_long_file_is_read_to_its_end() {
    let mut dash = detailed();
    dash.key(Key::Char('j'));
    dash.key(Key::Char('j'));
    let name = "judgement-7.log".to_owned();
    assert_eq!(dash.key(Key::Enter), [Wish::File { id: 42, name: name.clone(), start: 0 }]);
    dash.answer(file(0, 500, 1200));
    assert_eq!(dash.key(Key::End), [Wish::File { id: 42, name: name.clone(), start: 500 }]);
    assert_eq!(dash.key(Key::Down), [], "asked for once");
    dash.answer(file(500, 500, 1200));
    assert_eq!(dash.key(Key::End), [Wish::File { id: 42, name, start: 1000 }]);
    dash.answer(file(1000, 200, 1200));
    assert_eq!(dash.key(Key::End), []);
    assert!(picture(&dash, 100, 24).contains("1200 line 1199"));
}

fn gate(reason: &str, reveal_at: Option<&str>) -> Gated {
    let gate = json!({ "reason": reason, "message": "the code is not shown yet", "round_state": "completed",
        "round_end_at": "2026-11-20T11:00:00Z", "reveal_at": reveal_at });
    serde_json::from_value(gate).unwrap()
}

#[test]
fn what_is_hidden_says_why_and_until_when() {
    let mut dash = detailed();
    dash.key(Key::Char('j'));
    let name = "code.wasm".to_owned();
    assert_eq!(dash.key(Key::Enter), [Wish::File { id: 42, name: name.clone(), start: 0 }]);
    dash.answer(Answer::Gated {
        id: 42,
        name,
        gate: Box::new(gate("code_not_revealed", Some("2026-11-22T09:30:00Z"))),
    });
    insta::assert_snapshot!("gate", picture(&dash, 80, 24));
    // Enter or Escape closes it; the screen stays.
    assert_eq!(dash.key(Key::Enter), []);
    assert!(picture(&dash, 80, 24).contains("Raw score"));
    assert_eq!(dash.screen, Screen::Submission);
}

#[test]
fn logs_are_one_key_away_and_wrap() {
    // From the list: the submission opens with its log.
    let mut dash = opened();
    dash.key(Key::Char('j'));
    assert_eq!(dash.key(Key::Char('l')), [Wish::Submission { id: 42 }]);
    let found = detailed().entry.unwrap().found.unwrap();
    let log = Wish::File { id: 42, name: "judgement-7.log".to_owned(), start: 0 };
    assert_eq!(dash.answer(Answer::Submission(Box::new(found.clone()))), std::slice::from_ref(&log));
    let long = "x".repeat(150);
    let page = json!({ "name": "judgement-7.log", "data": format!("one\n{long}end\n\u{1b}[31mthree\n"), "is_binary": false,
        "download_url": "", "pagination": { "start_idx": 0, "end_idx": 3, "lines": 3, "next_start_idx": null } });
    dash.answer(Answer::File(42, serde_json::from_value(page).unwrap()));
    insta::assert_snapshot!("log", picture(&dash, 80, 12));
    let wide = picture(&dash, 120, 40);
    assert!(wide.contains("submission 42") && wide.contains("3 [31mthree"), "{wide}");
    // One judge: there is no other log. Escape goes back to the numbers, then to the list.
    assert_eq!(dash.key(Key::Char('l')), []);
    assert_eq!(dash.key(Key::Escape), []);
    assert_eq!(dash.screen, Screen::Submission);
    dash.key(Key::Escape);
    assert_eq!(dash.screen, Screen::Competition);
    // Several: the key goes round.
    let mut two = found.clone();
    let mut other = two.files[2].clone();
    other.name = "judgement-9.log".to_owned();
    two.files.push(other);
    let mut dash = detailed();
    dash.answer(Answer::Submission(Box::new(two)));
    assert_eq!(dash.key(Key::Char('l')), std::slice::from_ref(&log));
    dash.answer(file(0, 5, 5));
    assert_eq!(
        dash.key(Key::Char('l')),
        [Wish::File { id: 42, name: "judgement-9.log".to_owned(), start: 0 }]
    );
    // Hidden: the host is asked, and says why.
    let mut hidden = found.clone();
    hidden.submission.revealed = false;
    hidden.files.truncate(2);
    let mut dash = detailed();
    dash.answer(Answer::Submission(Box::new(hidden)));
    assert!(matches!(&dash.key(Key::Char('l'))[..], [Wish::File { id: 42, .. }]));
    dash.answer(Answer::Gated {
        id: 42,
        name: "judgement.log".to_owned(),
        gate: Box::new(gate("round_not_completed", None)),
    });
    assert!(picture(&dash, 80, 24).contains("round_not_completed"));
    // Shown, and nobody judged it.
    let mut none = found;
    none.files.truncate(2);
    let mut dash = detailed();
    dash.answer(Answer::Submission(Box::new(none)));
    assert_eq!(dash.key(Key::Char('l')), []);
    assert!(picture(&dash, 80, 24).contains("no judge has shown a log"));
}

#[test]
fn registration_says_where_the_viewer_s_key_stands() {
    for (may, words) in [
        (json!(true), "● active, you may enter"),
        (json!(false), "● active, not registered"),
        (Value::Null, "● active, by registration"),
    ] {
        let mut dash = opened();
        let mut found = competition("matrix-compression", 1, 4.2);
        found["by_registration"] = json!(true);
        found["may_enter"] = may;
        let rounds = serde_json::from_value(json!({ "rounds": [], "pagination": page(&[], 0, 0) })).unwrap();
        dash.answer(Answer::Competition(Box::new(serde_json::from_value(found).unwrap()), Box::new(rounds)));
        assert!(picture(&dash, 80, 24).contains(words), "{}", picture(&dash, 80, 24));
    }
}

#[test]
fn downloads_ask_before_they_replace() {
    let mut dash = detailed();
    dash.key(Key::Char('d'));
    let wishes = dash.key(Key::Enter);
    let (name, path) = ("metadata.json".to_owned(), "submissions/42-metadata.json".to_owned());
    let wish = |overwrite| Wish::Download { id: 42, name: name.clone(), path: path.clone(), overwrite };
    assert_eq!(wishes, [wish(false)]);
    dash.answer(Answer::Exists { id: 42, name: name.clone(), path: path.clone() });
    insta::assert_snapshot!("confirm", picture(&dash, 80, 24));
    assert_eq!(dash.key(Key::Char('x')), []);
    assert_eq!(dash.key(Key::Char('y')), [wish(true)]);
    dash.answer(Answer::Failed("no answer from the host".to_owned()));
    assert!(picture(&dash, 80, 24).contains("! no answer from the host"));
}
