//! What verbs print: JSON as the API gives it, or text for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;
use api::model::{
    Board, Competition, CompetitionPage, EntryRole, FileKind, GlobalBoard, Limits, Notes, Pagination,
    PointsAnswer, Profile, Receipts, RoundPage, SubmissionDetail, SubmissionPage, Time,
};
use serde::Serialize;
use wire::Millis;

fn as_json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string(value)?)
}

fn short(key: &str) -> String {
    key.chars().take(8).collect()
}

fn number(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.6}"))
}

fn foot(text: &mut String, page: Pagination) {
    let end = page.start_idx + page.count;
    let more = if page.has_more { "; more with --page" } else { "" };
    let first = (page.start_idx + 1).min(end);
    _ = write!(text, "{first} to {end} of {}{more}", page.total);
}

fn left(now: Millis, at: Time) -> String {
    if at.0 <= now {
        return "now".to_owned();
    }
    let s = at.0.since(now).0 / 1000;
    match s {
        0..3600 => format!("in {} min {} s", s / 60, s % 60),
        3600..86_400 => format!("in {} h {} min", s / 3600, s / 60 % 60),
        _ => format!("in {} d {} h", s / 86_400, s / 3600 % 24),
    }
}

pub(super) fn competitions(page: &CompetitionPage, json: bool) -> Result<String> {
    if json {
        return as_json(page);
    }
    let mut text = format!(
        "{:<10} {:<28} {:<10} {:>6} {:>14} {:>8}\n",
        "id", "name", "state", "round", "top raw", "entries"
    );
    for row in &page.competitions {
        let round = row.curr_round.as_ref().map_or("–".to_owned(), |round| round.round_number.to_string());
        let top = number(row.top.as_ref().map(|top| top.raw_score));
        _ = writeln!(
            text,
            "{:<10} {:<28} {:<10} {round:>6} {top:>14} {:>8}",
            row.id.chars().take(10).collect::<String>(),
            row.name,
            row.state,
            row.total_submissions
        );
    }
    foot(&mut text, page.pagination);
    Ok(text)
}

pub(super) fn competition(
    found: &Competition,
    rounds: &RoundPage,
    now: Millis,
    json: bool,
) -> Result<String> {
    if json {
        return as_json(found);
    }
    let mut text = format!("{} ({})\n{}\n", found.name, found.state, found.title);
    let mut row = |label: &str, value: String| _ = writeln!(text, "{label:<14} {value}");
    row("id", found.id.clone());
    row("kind", found.kind.clone());
    row("rule", format!("{}: {}", found.rule, found.formula));
    let test = match found.takeover_alpha_percent {
        0.0 => String::new(),
        alpha => format!(", paired test at {alpha} %"),
    };
    row("takeover", format!("{} % over the top{test}", found.takeover_percent));
    row("admitted", format!("{}, up to {} bytes", found.forms.join(", "), found.bytes_max));
    row("inputs", found.items.to_string());
    row("limits", limits(found));
    if found.fee > 0 {
        row("price", format!("{} {} an entry", found.fee, found.fee_currency));
    }
    row("entries", format!("{} of {} keys", found.total_submissions, found.active_entrants));
    if let Some(name) = &found.baseline {
        row("baseline", format!("{name}, raw {}", number(found.baseline_raw_score)));
    }
    match &found.top {
        Some(top) => row(
            "leads",
            format!("submission {} of {}, raw {}", top.submission_id, short(&top.entrant), top.raw_score),
        ),
        None => row("leads", "nobody yet".to_owned()),
    }
    if let Some(beat) = found.score_to_beat {
        let from = if beat.provisional { ", measured on" } else { " on" };
        row("score to beat", format!("raw {}{from} round {}", beat.raw_score, beat.round_number));
    }
    if found.weight_percent > 0.0 {
        row(
            "rewards",
            format!(
                "{:.3} % of the arena's, {:.2} % burned; {:.6} days of the arena's so far",
                found.emissions_percent, found.burn_percent, found.total_earned_days
            ),
        );
    }
    if let Some(samples) = &found.samples {
        row("samples", format!("{samples}: shoal arena samples -c {} -o FOLDER", found.name));
    }
    if found.template.is_some() {
        row("template", format!("shoal arena get {} template -o FILE", found.name));
    }
    if !found.sponsor.is_empty() {
        row("sponsor", [&found.sponsor[..], &found.sponsor_url].join(" ").trim_end().to_owned());
    }
    if !found.doc_url.is_empty() {
        row("page", found.doc_url.clone());
    }
    if let Some(next) = found.next_round_at {
        row("next round", format!("opens {next} ({})", left(now, next)));
    }
    for round in &rounds.rounds {
        let when = match round.state.as_str() {
            "open" => format!("closes {} ({})", round.end_at, left(now, round.end_at)),
            "completed" | "void" => format!("closed {}", round.end_at),
            _ => format!("{} of {} judged", round.judged, round.to_judge),
        };
        row(
            &format!("round {}", round.round_number),
            format!("{}, {} entries, {when}", round.state, round.entries),
        );
    }
    if let Some(note) = &found.note {
        row("news", format!("{} {}", note.at, note.text));
    }
    Ok(text.trim_end().to_owned())
}

/// What an entry may use while it runs.
fn limits(found: &Competition) -> String {
    let Limits { memory_bytes, fuel, call_s, startup_s, cpu_milli, processes, disk_bytes } = found.limits;
    let mib = |bytes: u64| bytes >> 20;
    let mut text = format!("{} MiB of memory, {call_s} s a call", mib(memory_bytes));
    if found.forms.iter().any(|form| form == "component") {
        _ = write!(text, "; components {:.3} G fuel a call", fuel as f64 / 1e9);
    }
    if found.forms.iter().any(|form| form != "component") {
        let cores = f64::from(cpu_milli) / 1000.0;
        _ = write!(
            text,
            "; programs {cores} cores, {processes} processes, {} MiB of disk, {startup_s} s to start",
            mib(disk_bytes)
        );
    }
    text
}

/// The best of each judged round.
pub(super) fn history(found: &PointsAnswer, json: bool) -> Result<String> {
    if json {
        return as_json(found);
    }
    if found.points.is_empty() {
        return Ok("no round was judged yet".to_owned());
    }
    let mut text = format!(
        "{:>5} {:<24} {:>7} {:<8} {:>14} {:>10}\n",
        "round", "completed", "id", "key", "raw score", "score"
    );
    for point in &found.points {
        _ = writeln!(
            text,
            "{:>5} {:<24} {:>7} {:<8} {:>14} {:>10}",
            point.round_number,
            point.date.to_string(),
            point.submission_id,
            short(&point.entrant),
            number(Some(point.raw_score)),
            number(Some(point.score))
        );
    }
    Ok(text.trim_end().to_owned())
}

/// Announcements.
pub(super) fn notes(found: &Notes, json: bool) -> Result<String> {
    if json {
        return as_json(found);
    }
    let rows: Vec<String> =
        found.notes.iter().map(|note| format!("{} {} {}", note.at, short(&note.from), note.text)).collect();
    Ok(if rows.is_empty() { "nothing was announced".to_owned() } else { rows.join("\n") })
}

/// Payments that no entry has used yet.
pub(super) fn receipts(found: &Receipts, json: bool) -> Result<String> {
    if json {
        return as_json(found);
    }
    let rows: Vec<String> =
        found.receipts.iter().map(|row| format!("{} {:>12}", row.receipt, row.amount)).collect();
    Ok(if rows.is_empty() { "no payment is left".to_owned() } else { rows.join("\n") })
}

/// A competition's page in Markdown: its own words, its rule, its spec with every limit.
pub(super) fn page(found: &Competition, spec: &str, json: bool) -> String {
    let Competition { name, title, description, rule, formula, doc_url, .. } = found;
    if json {
        return serde_json::json!({
            "name": name, "title": title, "description": description, "rule": rule, "formula": formula,
            "doc_url": doc_url, "spec": spec,
        })
        .to_string();
    }
    let mut text = format!("# {name}: {title}\n\n{}\n\n## Rule\n\n`{rule}`: {formula}\n", description.trim());
    if !doc_url.is_empty() {
        _ = write!(text, "\nMore: {doc_url}\n");
    }
    _ = write!(text, "\n## Spec\n\n```toml\n{}\n```", spec.trim_end());
    text
}

pub(super) fn submissions(page: &SubmissionPage, json: bool) -> Result<String> {
    if json {
        return as_json(page);
    }
    let mut text = format!(
        "{:>7} {:>5} {:<8} {:>4} {:>14} {:>10} {:>4} {:<10} {:<4} {}\n",
        "id", "round", "key", "ver", "raw score", "score", "rank", "state", "code", "submitted"
    );
    for row in &page.submissions {
        let mark = if row.top_score { "*" } else { " " };
        let rank = row.rank.map_or("–".to_owned(), |rank| rank.to_string());
        _ = writeln!(
            text,
            "{:>7} {:>5} {:<8} {:>4} {:>14} {:>9}{mark} {rank:>4} {:<10} {:<4} {}",
            row.id,
            row.round_number,
            short(&row.entrant),
            row.version,
            number(row.raw_score),
            number(row.score),
            row.state,
            if row.code_revealed { "yes" } else { "no" },
            row.submitted_at
        );
    }
    foot(&mut text, page.pagination);
    Ok(text)
}

pub(super) fn submission(found: &SubmissionDetail, json: bool) -> Result<String> {
    if json {
        return as_json(found);
    }
    let row = &found.submission;
    let mut text = format!("submission {} ({})\n", row.id, row.state);
    let mut line = |label: &str, value: String| _ = writeln!(text, "{label:<14} {value}");
    line("competition", format!("{} round {} ({})", row.competition, row.round_number, found.round_state));
    line("entrant", row.entrant.clone());
    let version = match row.role {
        EntryRole::Baseline => "the baseline".to_owned(),
        EntryRole::Incumbent => "automatic".to_owned(),
        EntryRole::Challenger => row.version.to_string(),
    };
    line("version", version);
    line("submitted", row.submitted_at.to_string());
    if row.revealed {
        line("raw score", number(row.raw_score));
        line("score", number(row.score));
        line("rank", row.rank.map_or("–".to_owned(), |rank| rank.to_string()));
    } else {
        line("results", "shown when the round is completed".to_owned());
    }
    if let Some(error) = &row.eval_error {
        line("failed", error.clone());
    }
    match (row.code_revealed, row.reveal_at) {
        (true, _) => line("code", "shown".to_owned()),
        (false, at) => line("code", at.map_or("hidden".to_owned(), |at| format!("hidden until {at}"))),
    }
    for metric in &found.summary {
        let base = metric.baseline_value.map_or(String::new(), |value| format!(" (baseline {value})"));
        line(&metric.key, format!("{} {}{base}", metric.value, metric.unit));
    }
    for judgement in &found.judgements {
        let what = judgement.failure.as_ref().map_or("measured", |failed| &failed.message);
        line("judge", format!("{} of {}: {what}", short(&judgement.judge), judgement.operator));
    }
    for file in &found.files {
        let state = if file.revealed { "" } else { " (hidden)" };
        line("file", format!("{}{state}", file.name));
    }
    Ok(text.trim_end().to_owned())
}

/// Name of the file of a submission's code.
pub(super) fn code_name(found: &SubmissionDetail) -> String {
    let code = found.files.iter().find(|file| file.kind == FileKind::Code);
    code.map_or("code.wasm".to_owned(), |file| file.name.clone())
}

pub(super) fn logs(logs: &[(String, String)], json: bool) -> Result<String> {
    if json {
        let rows: Vec<_> =
            logs.iter().map(|(name, text)| serde_json::json!({ "file": name, "text": text })).collect();
        return as_json(&rows);
    }
    let shown: Vec<String> =
        logs.iter().map(|(name, text)| format!("== {name}\n{}", text.trim_end())).collect();
    Ok(if shown.is_empty() { "no judgement yet".to_owned() } else { shown.join("\n") })
}

pub(super) fn board(found: &Board, json: bool) -> Result<String> {
    if json {
        return as_json(found);
    }
    let round =
        found.round_number.map_or("no round was judged yet".to_owned(), |round| format!("round {round}"));
    let mut text = format!(
        "{round}\n{:>4} {:>7} {:<8} {:>14} {:>10} {:>8} {:>11} {:>10}\n",
        "rank", "id", "key", "raw score", "score", "ratio", "similarity", "time s"
    );
    for row in &found.rows {
        _ = writeln!(
            text,
            "{:>4} {:>7} {:<8} {:>14} {:>10} {:>8} {:>11} {:>10}",
            row.rank,
            row.submission_id,
            short(&row.entrant),
            number(Some(row.raw_score)),
            number(Some(row.score)),
            row.compression_ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.4}")),
            number(row.similarity),
            number(row.task_time_s)
        );
    }
    foot(&mut text, found.pagination);
    if !found.pareto.is_empty() {
        text.push_str("\n\nnothing beats in ratio, speed and fidelity at once:");
        for point in &found.pareto {
            let speed = point.bytes_per_s as f64 / 1e6;
            _ = write!(
                text,
                "\n{:>7} {:<8} ratio {:.4}, {speed:.1} MB/s, similarity {:.6}",
                point.submission_id,
                short(&point.entrant),
                point.compression_ratio,
                point.similarity
            );
        }
    }
    Ok(text)
}

pub(super) fn global(found: &GlobalBoard, json: bool) -> Result<String> {
    if json {
        return as_json(found);
    }
    let mut text = format!(
        "{:>4} {:<8} {:>6} {:>12} {:>8} {:>12} {:>10} {:>10}\n",
        "rank", "key", "firsts", "earned days", "entries", "competitions", "mean", "mean place"
    );
    for row in &found.rows {
        _ = writeln!(
            text,
            "{:>4} {:<8} {:>6} {:>12.6} {:>8} {:>12} {:>10} {:>10}",
            row.rank,
            short(&row.entrant),
            row.first_places,
            row.earned_days,
            row.total_submissions,
            row.competitions_entered,
            number(row.mean_score),
            row.mean_place.map_or("–".to_owned(), |place| format!("{place:.2}"))
        );
    }
    foot(&mut text, found.pagination);
    Ok(text)
}

pub(super) fn profile(found: &Profile, json: bool) -> Result<String> {
    if json {
        return as_json(found);
    }
    let leader = &found.leader;
    let mut text = format!("{}\n", leader.entrant);
    let mut line = |label: &str, value: String| _ = writeln!(text, "{label:<14} {value}");
    line("rank", leader.rank.to_string());
    line("earned", format!("{:.6} days of the arena's rewards", leader.earned_days));
    line("firsts", leader.first_places.to_string());
    line("entries", format!("{}, {} scored", leader.total_submissions, found.scored_submissions));
    line("best score", number(found.best_score));
    let rate = &found.rate_limit;
    let more = match (rate.left, rate.used) {
        (0, _) => format!(", the next free at {}", rate.next_free_at),
        (_, 0) => String::new(),
        _ => format!(", all again at {}", rate.all_free_at),
    };
    line("left", format!("{} of {} entries{more}", rate.left, rate.limit));
    for row in &found.competitions {
        let leads = if row.leads { ", leads" } else { "" };
        line("competition", format!("{}: {} entries{leads}", row.name, row.submissions));
    }
    let mut days: BTreeMap<&str, (u32, f64)> = BTreeMap::new();
    for day in &found.activity {
        days.entry(&day.date).or_default().0 = day.count;
    }
    for day in &found.earnings {
        days.entry(&day.date).or_default().1 = day.earned_days;
    }
    for (date, (entries, earned)) in days {
        let bar = "▪".repeat(entries.min(20) as usize);
        line(date, format!("{bar:<20} {entries:>3} entries, earned {earned:.6}"));
    }
    Ok(text.trim_end().to_owned())
}
