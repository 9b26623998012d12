//! One competition: what it is, its round with countdown, who leads, its submissions.

use api::model::{Competition, Filter, Sort, Submission};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Wrap};
use wire::Millis;

use super::{Look, cut, field, framed, header};
use crate::detail::One;
use crate::format::{bar, bytes, moment, part, score, short, state, until, version};
use crate::{PAGE, Scene};

/// Columns of a row with what every terminal has room for, and those from which on there is more.
const NARROW: usize = 73;
const WIDE: usize = 98;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>, look: Look) {
    let Some(one) = &scene.dash.one else { return };
    // Where there is room, long lines of what it is may wrap.
    let height = if area.height >= 28 { 12 } else { 9 };
    let [top, list] = Layout::vertical([Constraint::Length(height), Constraint::Min(4)]).areas(area);
    let [about, round] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(top);
    draw_about(frame, about, one, look);
    draw_round(frame, round, one, scene.now, look);
    draw_list(frame, list, one, scene.now, look);
}

fn draw_about(frame: &mut Frame<'_>, area: Rect, one: &One, look: Look) {
    let found = &one.competition;
    let takeover = match found.takeover_alpha_percent {
        0.0 => format!("{} % better", found.takeover_percent),
        alpha => format!("{} % better, sure to {alpha} %", found.takeover_percent),
    };
    let lines = vec![
        field("state", format!("{}{}", state(&found.state), registration(found)), look),
        field("rule", found.rule.clone(), look),
        field("takeover", takeover, look),
        field("entries", format!("{} of {} keys", found.total_submissions, found.active_entrants), look),
        field(
            "baseline",
            format!(
                "{} {}",
                found.baseline.clone().unwrap_or_else(|| "none".to_owned()),
                score(found.baseline_raw_score)
            ),
            look,
        ),
        field("admitted", format!("{} {}", forms(&found.forms), bytes(found.bytes_max)), look),
        match &found.note {
            Some(note) => field("news", note.text.replace('\n', " "), look),
            None => field("about", found.title.clone(), look),
        },
    ];
    let block = framed(format!(" {} ", found.name), look);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}

/// Whether the viewer's key may enter, where that is not for everybody.
fn registration(found: &Competition) -> &'static str {
    match (found.by_registration, found.may_enter) {
        (false, _) => "",
        (true, Some(true)) => ", you may enter",
        (true, Some(false)) => ", not registered",
        (true, None) => ", by registration",
    }
}

/// Forms in few letters.
fn forms(forms: &[String]) -> String {
    let short = |form: &String| match form.as_str() {
        "component" => "wasm".to_owned(),
        other => other.to_owned(),
    };
    forms.iter().map(short).collect::<Vec<_>>().join("/")
}

fn draw_round(frame: &mut Frame<'_>, area: Rect, one: &One, now: Millis, look: Look) {
    let found = &one.competition;
    let mut lines = Vec::new();
    match &found.curr_round {
        None => lines.push(field(
            "round",
            found.next_round_at.map_or("none".to_owned(), |at| format!("opens {}", until(now, at))),
            look,
        )),
        Some(round) => {
            let passed = part(now, round.start_at, round.end_at);
            let words = format!("{} {}", round.round_number, state(&round.state));
            // What is left of the line.
            let taken = 2 + 12 + words.chars().count() + " ".len() + " 100 %".len();
            let bar = bar(passed, usize::from(area.width).saturating_sub(taken).clamp(4, 20));
            lines.push(field("round", format!("{words} {bar} {:.0} %", passed * 100.0), look));
            lines.push(match (round.state.as_str(), round.until) {
                ("open", _) => field("closes", until(now, round.end_at), look),
                (_, Some(at)) if round.to_judge > 0 => field(
                    "judged",
                    format!("{} of {}, until {}", round.judged, round.to_judge, until(now, at)),
                    look,
                ),
                (_, Some(at)) => field("until", until(now, at), look),
                (_, None) => field("closed", moment(round.end_at), look),
            });
        }
    }
    // Rounds overlap: one is judged while the next is open.
    let judged = one.rounds.iter().find(|round| {
        round.state == "evaluating"
            && found.curr_round.as_ref().is_none_or(|now| now.round_number != round.round_number)
    });
    if let Some(round) = judged {
        let words = format!("round {}: {} of {}", round.round_number, round.judged, round.to_judge);
        lines.push(field("judging", words, look));
    }
    match &found.top {
        None => lines.push(field("leads", "nobody yet", look)),
        Some(top) => {
            let words =
                format!("{} {} (#{})", short(&top.entrant), score(Some(top.raw_score)), top.submission_id);
            lines.push(field("leads", words, look));
            lines.push(field("since", until(now, top.since), look));
        }
    }
    let beat = found.score_to_beat.map_or("not known yet".to_owned(), |beat| {
        let from = if beat.provisional { format!(", on round {}", beat.round_number) } else { String::new() };
        format!("{}{from}", score(Some(beat.raw_score)))
    });
    lines.push(field("to beat", beat, look));
    if found.weight_percent > 0.0 {
        let words = format!("{:.2} %, {:.1} % burned", found.emissions_percent, found.burn_percent);
        lines.push(field("rewards", words, look));
    }
    if let Some(open) = found.bounties.iter().find(|bounty| bounty.entrant.is_none()) {
        let words = format!("{:.1} % at {}", open.share_percent, score(Some(open.raw_score)));
        lines.push(field("bounty", words, look));
    }
    let block = framed(" round ".to_owned(), look);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}

fn draw_list(frame: &mut Frame<'_>, area: Rect, one: &One, now: Millis, look: Look) {
    let which = match (one.filter, one.needle()) {
        (Filter::Mine, _) => "mine".to_owned(),
        (Filter::TopScore, _) => "took the lead".to_owned(),
        (Filter::All, "") => "all".to_owned(),
        (Filter::All, part) => format!("keys with {part}"),
    };
    let order = if one.sort == Sort::Score { "by score" } else { "by time" };
    let (total, page, pages) = one.pagination.map_or((0, 1, 1), |found| {
        let pages = found.total.div_ceil(u64::from(PAGE)).max(1);
        (found.total, found.start_idx / u64::from(PAGE) + 1, pages)
    });
    let title = format!(" submissions: {which}, {order} ({total}, page {page} of {pages}) ");
    let block = framed(title, look);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [head, rows] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(inner);
    let width = usize::from(inner.width);
    let mut columns = format!(
        "{:>6} {:>4} {:<8} {:>4} {:>11} {:>10} {:<12} {:>7} {:<4}",
        "id", "rnd", "key", "ver", "raw score", "score", "state", "age", "sees"
    );
    if width >= WIDE {
        columns.push_str(" submitted        title");
    }
    frame.render_widget(header(columns, look), head);
    let height = usize::from(rows.height);
    let first = one.row.saturating_sub(height.saturating_sub(1));
    let lines = one.rows.iter().enumerate().skip(first).take(height).map(|(index, found)| {
        let line = Line::from(row(found, now, width));
        if index == one.row { line.style(look.selected) } else { line }
    });
    let lines: Vec<Line<'_>> = lines.collect();
    if lines.is_empty() {
        frame.render_widget(Paragraph::new("none").style(look.quiet), rows);
    } else {
        frame.render_widget(Paragraph::new(lines), rows);
    }
}

fn row(found: &Submission, now: Millis, width: usize) -> String {
    let mark = match (found.top_score, found.takeover) {
        (true, _) => "★",
        (false, true) => "☆",
        (false, false) => " ",
    };
    let sees = [(found.code_revealed, 'c'), (found.revealed, 'l')]
        .map(|(shown, sign)| if shown { sign } else { '·' });
    let row = format!(
        "{:>6} {:>4} {:<8} {:>4} {:>11} {:>9}{mark} {} {:>7} {:<4}",
        found.id,
        found.round_number,
        short(&found.entrant),
        version(found.role, found.version),
        score(found.raw_score),
        score(found.score),
        cut(&state(&found.state), 12),
        found.submitted_at.age(now),
        String::from_iter(sees),
    );
    if width < WIDE {
        return row;
    }
    let title = cut(&found.title, width.saturating_sub(NARROW + 18));
    format!("{row} {:<16} {title}", moment(found.submitted_at))
}
