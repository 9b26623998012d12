//! One submission: what it is, its numbers, its files, and the file that is read.

use api::model::{FileRow, SubmissionDetail};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};
use wire::Millis;

use super::{Look, cut, field, framed};
use crate::Scene;
use crate::files::{Entry, Open};
use crate::format::{bytes, figure, moment, score, short, state, until};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>, look: Look) {
    let Some(entry) = &scene.dash.entry else { return };
    let Some(found) = &entry.found else {
        let block = framed(format!(" submission {} ", entry.id), look);
        frame.render_widget(Paragraph::new("…").block(block), area);
        return;
    };
    let [left, right] = Layout::horizontal([Constraint::Length(42), Constraint::Min(20)]).areas(area);
    let rows = found.files.len().clamp(1, 8) as u16 + 2;
    let [about, files] = Layout::vertical([Constraint::Min(6), Constraint::Length(rows)]).areas(left);
    draw_about(frame, about, found, scene.now, look);
    draw_files(frame, files, entry, look);
    match &entry.open {
        Some(open) => draw_file(frame, right, open, look),
        None => draw_numbers(frame, right, found, look),
    }
}

fn draw_about(frame: &mut Frame<'_>, area: Rect, found: &SubmissionDetail, now: Millis, look: Look) {
    let row = &found.submission;
    let hidden = |value: String| if row.revealed { value } else { "after the round".to_owned() };
    let mut lines = vec![
        field("competition", row.competition.clone(), look),
        field("round", format!("{} ({})", row.round_number, found.round_state), look),
        field("key", short(&row.entrant), look),
        field(
            "version",
            if row.version == 0 { "automatic".to_owned() } else { row.version.to_string() },
            look,
        ),
        field("state", state(&row.state), look),
        field("raw score", hidden(score(row.raw_score)), look),
        field("score", hidden(score(row.score)), look),
        field("rank", hidden(row.rank.map_or("–".to_owned(), |rank| rank.to_string())), look),
        field("submitted", moment(row.submitted_at), look),
    ];
    if let Some(at) = row.eval_at {
        lines.push(field("judged", moment(at), look));
    }
    if let Some(error) = &row.eval_error {
        lines.push(field("failed", error.clone(), look));
    }
    let code = match (row.code_revealed, row.reveal_at) {
        (true, _) => "shown".to_owned(),
        (false, Some(at)) => format!("shown {}", until(now, at)),
        (false, None) => "hidden".to_owned(),
    };
    lines.push(field(
        "code",
        format!("{code}, {}", found.code_bytes.map_or("sealed".to_owned(), bytes)),
        look,
    ));
    if !found.parents.is_empty() {
        let line: Vec<String> = found.lineage.iter().map(|id| format!("#{id}")).collect();
        lines.push(field("lineage", line.join(" ← "), look));
    }
    if let Some(of) = found.copy_of.or(found.echo_of) {
        lines.push(field("repeats", format!("#{of}"), look));
    }
    if found.entrusted {
        lines.push(field("seal", "kept by the host", look));
    }
    let mark = if row.top_score { " ★" } else { "" };
    let block = framed(format!(" submission {}{mark} ", row.id), look);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}

fn draw_files(frame: &mut Frame<'_>, area: Rect, entry: &Entry, look: Look) {
    let block = framed(" files ".to_owned(), look);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let height = usize::from(inner.height);
    let first = entry.row.saturating_sub(height.saturating_sub(1));
    let line = |(index, file): (usize, &FileRow)| {
        let size = match (file.revealed, file.bytes) {
            (false, _) => "hidden".to_owned(),
            (true, Some(len)) => bytes(len),
            (true, None) => String::new(),
        };
        let line = Line::from(format!("{} {size:>10}", cut(&file.name, 27)));
        match () {
            () if index == entry.row => line.style(look.selected),
            () if !file.revealed => line.style(look.quiet),
            () => line,
        }
    };
    let lines: Vec<Line<'_>> = entry.files().iter().enumerate().skip(first).take(height).map(line).collect();
    frame.render_widget(Paragraph::new(lines), inner);
}

fn draw_numbers(frame: &mut Frame<'_>, area: Rect, found: &SubmissionDetail, look: Look) {
    let mut lines = Vec::new();
    if found.summary.is_empty() {
        let words = if found.submission.revealed {
            "nothing was measured"
        } else {
            "shown when the round is completed"
        };
        lines.push(Line::from(Span::styled(words, look.quiet)));
    } else {
        lines.push(Line::from(Span::styled(
            format!("{:<20} {:>16} {:>16}", "", "this", "baseline"),
            look.quiet,
        )));
    }
    for metric in &found.summary {
        let base = metric.baseline_value.map_or("–".to_owned(), |value| figure(value, &metric.unit));
        let this = figure(metric.value, &metric.unit);
        lines.push(Line::from(format!("{} {this:>16} {base:>16}", cut(&metric.label, 20))));
    }
    for judgement in &found.judgements {
        let what = match &judgement.failure {
            Some(failed) => failed.message.clone(),
            None => "measured".to_owned(),
        };
        lines.push(Line::default());
        lines.push(Line::from(vec![
            Span::styled(format!("judge {} ", short(&judgement.judge)), look.strong),
            Span::from(format!("of {}: {what}", judgement.operator)),
        ]));
        if let Some(seconds) = judgement.wall_task_time_s {
            lines.push(Line::from(format!("  {} an input by its clock", figure(seconds, "s"))));
        }
    }
    frame.render_widget(Paragraph::new(lines).block(framed(" metrics ".to_owned(), look)), area);
}

fn draw_file(frame: &mut Frame<'_>, area: Rect, open: &Open, look: Look) {
    let place =
        if open.lines.is_empty() { String::new() } else { format!(" {} of {}", open.top + 1, open.total) };
    let block = framed(format!(" {}{place} ", open.name), look);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    if open.binary {
        frame.render_widget(Paragraph::new("not text: d downloads it").style(look.quiet), inner);
        return;
    }
    let digits = open.total.max(1).ilog10() as usize + 1;
    let shown = open.lines.iter().enumerate().skip(open.top).take(usize::from(inner.height));
    let lines: Vec<Line<'_>> = shown
        .map(|(index, line)| {
            // Control characters of an entry's log must not reach the terminal.
            let plain: String = line.replace('\t', "    ").chars().filter(|c| !c.is_control()).collect();
            Line::from(vec![Span::styled(format!("{:>digits$} ", index + 1), look.quiet), Span::from(plain)])
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), inner);
}
