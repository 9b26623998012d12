//! Files as they are read: to the end of long lines, past a failed page, and in colours.

use ratatui::style::{Color, Modifier};

use super::*;

fn answer(name: &str, data: &str, start: u64, total: u64, next: Option<u64>) -> Answer {
    let end = start + data.lines().count() as u64;
    let page = json!({ "name": name, "data": data, "is_binary": false, "download_url": "",
        "pagination": { "start_idx": start, "end_idx": end, "lines": total, "next_start_idx": next } });
    Answer::File(42, serde_json::from_value(page).unwrap())
}

#[test]
fn after_a_failed_page_the_rest_is_asked_for_again() {
    let mut dash = detailed();
    dash.answer(file(0, 500, 1200));
    let rest = [Wish::File { id: 42, name: "judgement-7.log".to_owned(), start: 500 }];
    assert_eq!(dash.key(Key::End), rest);
    assert_eq!(dash.key(Key::Up), [], "asked for once");
    dash.answer(Answer::Failed("no answer from the host".to_owned()));
    assert_eq!(dash.key(Key::Down), rest);
    // Both answers come in the end: the second adds nothing.
    dash.answer(file(500, 500, 1200));
    dash.answer(file(500, 500, 1200));
    dash.key(Key::End);
    assert!(picture(&dash, 100, 24).contains("1000 line 999"), "{}", picture(&dash, 100, 24));
    // A page of a file that was closed opens nothing.
    dash.key(Key::Enter);
    dash.answer(file(1000, 200, 1200));
    assert!(dash.entry.as_ref().unwrap().open.is_none());
}

#[test]
fn a_long_line_is_read_to_its_end() {
    let marks: Vec<String> = (0..600).map(|mark| format!("<{mark:04}>")).collect();
    let data = format!("first\n{}\nlast\n", marks.concat());
    for (width, height) in [(80, 24), (109, 9), (140, 30), (33, 7)] {
        for step in [Key::Down, Key::PageDown] {
            let mut dash = detailed();
            dash.resize(width, height);
            dash.answer(answer("judgement-7.log", &data, 0, 3, None));
            let mut seen = String::new();
            for _ in 0..150 {
                let shown = picture(&dash, width, height);
                let edge = |c: char| !(c.is_ascii_digit() || c == '<' || c == '>');
                // Rows of the file: what stands between the right-most pair of borders, behind the line's number.
                for row in shown.lines() {
                    let inner = row.trim_matches('"').trim_end().trim_end_matches('│');
                    let text = inner.rsplit('│').next().unwrap_or("").get(2..).unwrap_or("");
                    seen.push_str(text.trim_matches(edge));
                }
                dash.key(step);
            }
            for mark in &marks {
                assert!(seen.contains(mark), "{mark} is out of sight at {width} × {height} by {step:?}");
            }
            assert!(picture(&dash, width, height).contains("3 last"), "{}", picture(&dash, width, height));
        }
    }
}

#[test]
fn sources_and_json_have_colours() {
    let mut dash = detailed();
    let source = "import zlib  # plain\nx = \"\"\"one\ntwo 3\"\"\" + 'y' * 42\n";
    dash.answer(answer("code.py", source, 0, 3, None));
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(frame, &Scene { dash: &dash, now: now() })).unwrap();
    let buffer = terminal.backend().buffer();
    // Border, number, blank: text begins in the fourth column, in the third row.
    let cell = |line: u16, column: u16| &buffer[(3 + column, 2 + line)];
    assert_eq!((cell(0, 0).symbol(), cell(0, 0).modifier), ("i", Modifier::BOLD));
    assert_eq!((cell(0, 7).symbol(), cell(0, 7).modifier), ("z", Modifier::empty()));
    assert!(cell(0, 13).modifier.contains(Modifier::ITALIC | Modifier::DIM));
    assert_eq!((cell(1, 4).fg, cell(2, 0).fg), (Color::Green, Color::Green), "over two lines");
    assert_eq!((cell(2, 9).symbol(), cell(2, 9).fg), ("+", Color::Reset));
    assert_eq!((cell(2, 17).symbol(), cell(2, 17).fg), ("4", Color::Magenta));
    // What is cut by the row's end keeps its colour in the next one.
    let long = format!("{{\"name\": \"{}\", \"n\": 1}}\n", "a".repeat(100));
    dash.answer(answer("metadata.json", &long, 0, 1, None));
    terminal.draw(|frame| draw(frame, &Scene { dash: &dash, now: now() })).unwrap();
    let buffer = terminal.backend().buffer();
    assert_eq!(
        (buffer[(4, 2)].fg, buffer[(14, 2)].fg, buffer[(3, 3)].fg),
        (Color::Blue, Color::Green, Color::Green)
    );
}

#[test]
fn what_its_maker_waits_for_is_said() {
    let mut dash = detailed();
    let found = dash.entry.as_mut().and_then(|entry| entry.found.as_mut()).unwrap();
    (found.submission.revealed, found.submission.code_revealed) = (false, true);
    (found.summary, found.judgements, found.code_bytes) = (Vec::new(), Vec::new(), None);
    let shown = picture(&dash, 110, 24);
    assert!(shown.contains("once judges have settled it") && shown.contains("code        sealed"), "{shown}");
    let found = dash.entry.as_mut().and_then(|entry| entry.found.as_mut()).unwrap();
    found.submission.code_revealed = false;
    let shown = picture(&dash, 110, 24);
    assert!(shown.contains("when the round is completed") && !shown.contains("settled it"), "{shown}");
}

#[test]
fn an_archive_is_named_by_its_first_bytes() {
    assert_eq!(file_name("code.py", b"PK\x03\x04more"), "code.zip");
    assert_eq!(file_name("code.bin", b"PK\x03\x04more"), "code.zip");
    assert_eq!(file_name("code.bin", b"\x7fELF"), "code.bin");
    assert_eq!(file_name("judgement-7.log", b"PK\x03\x04more"), "judgement-7.log");
    assert_eq!(proposed_path(42, file_name("code.py", b"PK\x03\x04")), "submissions/42-code.zip");
}
