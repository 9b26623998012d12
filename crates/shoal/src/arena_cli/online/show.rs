//! What verbs print: JSON as the API gives it, or text for people.

mod boards;

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;
use api::model::{
    About, Competition, CompetitionPage, EntryRole, Failed, FileKind, JudgementView, Limits, Notes,
    Pagination, PointsAnswer, Profile, Receipts, RoundPage, SubmissionDetail, SubmissionPage, Time,
};
use data_encoding::BASE64;
use serde::Serialize;
use wire::Millis;

pub(super) use self::boards::{board, global, judges, weights};

/// Characters of a title in a row.
const TITLE_CHARS: usize = 40;

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

/// A span of seconds in its two largest units, without what is nought.
fn span(seconds: f64) -> String {
    let s = seconds.round() as u64;
    let (large, small) = match s {
        0..60 => return format!("{s} s"),
        60..3600 => ((60, "min"), (1, "s")),
        3600..86_400 => ((3600, "h"), (60, "min")),
        _ => ((86_400, "d"), (3600, "h")),
    };
    let rest = s % large.0 / small.0;
    let rest = if rest == 0 { String::new() } else { format!(" {rest} {}", small.1) };
    format!("{} {}{rest}", s / large.0, large.1)
}

pub(super) fn competitions(page: &CompetitionPage, now: Millis, json: bool) -> Result<String> {
    if json {
        return as_json(page);
    }
    let mut text = format!(
        "{:<10} {:<28} {:<10} {:>6} {:>14} {:>8} opens\n",
        "id", "name", "state", "round", "top raw", "entries"
    );
    for row in &page.competitions {
        let round = row.curr_round.as_ref().map_or("–".to_owned(), |round| round.round_number.to_string());
        let top = number(row.top.as_ref().map(|top| top.raw_score));
        // Of those that take entries already `show` says when the next round opens.
        let opens = match row.state.as_str() {
            "pending" => format!("{} ({})", whole_seconds(row.start_at), left(now, row.start_at)),
            _ => "–".to_owned(),
        };
        _ = writeln!(
            text,
            "{:<10} {:<28} {:<10} {round:>6} {top:>14} {:>8} {opens}",
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
    let ending = if found.ending { ", ends with the round that is open" } else { "" };
    let mut text = format!("{} ({}{ending})\n{}\n", found.name, found.state, found.title);
    let mut row = |label: &str, value: String| _ = writeln!(text, "{label:<14} {value}");
    row("id", found.id.clone());
    row("kind", found.kind.clone());
    let lower = if found.score_direction == "lower_is_better" { "; lower is better" } else { "" };
    row("rule", format!("{}: {}{lower}", found.rule, found.formula));
    let test = match found.takeover_alpha_percent {
        0.0 => String::new(),
        alpha => format!(", paired test at {alpha} %"),
    };
    row("takeover", format!("{} % over the top{test}", found.takeover_percent));
    row("admitted", format!("{}, up to {} bytes", found.forms.join(", "), found.bytes_max));
    if found.by_registration {
        let you = match found.may_enter {
            Some(true) => ", yours among them",
            Some(false) => ", yours is not: ask the opener to register it",
            None => "",
        };
        row("registered", format!("{} keys{you}", found.registered));
        row("opener", found.opener.clone());
    }
    row("inputs", found.items.to_string());
    row("limits", limits(found));
    if !found.prepare.is_empty() {
        row("prepared by", found.prepare.join(" "));
    }
    if found.fee > 0 {
        row("price", format!("{} {} an entry", found.fee, found.fee_currency));
        if !found.pay_to.is_empty() {
            row("paid to", found.pay_to.clone());
        }
    }
    row("entries", format!("{} of {} keys", found.total_submissions, found.active_entrants));
    if let Some(name) = &found.baseline {
        let failed =
            if found.baseline_valid == Some(false) { ": it failed in the newest judged round" } else { "" };
        row("baseline", format!("{name}, raw {}{failed}", number(found.baseline_raw_score)));
    }
    match &found.top {
        Some(top) => row(
            "leads",
            format!(
                "submission {} of {}, raw {}, since {} ({} ago)",
                top.submission_id,
                short(&top.entrant),
                top.raw_score,
                whole_seconds(top.since),
                top.since.age(now)
            ),
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
    // Without a share of the arena's rewards nobody is paid anything.
    for payee in found.payees.iter().filter(|_| found.weight_percent > 0.0) {
        let raised = match payee.raised_percent {
            0.0 => String::new(),
            raised => format!("; it has raised the bar by {raised:.2} %"),
        };
        row(
            "paid",
            format!("{} {:.2} % of what is not burned{raised}", short(&payee.entrant), payee.share_percent),
        );
    }
    for bounty in &found.bounties {
        let state = match (&bounty.entrant, bounty.rounds_left) {
            (None, _) => "open".to_owned(),
            (Some(entrant), 0) => format!("{} reached it, paid in full", short(entrant)),
            (Some(entrant), left) => format!("{} reached it, rounds left: {left}", short(entrant)),
        };
        let share = format!("{:.2} % of what is not burned", bounty.share_percent);
        row("bounty", format!("raw {}: {share} for {} rounds; {state}", bounty.raw_score, bounty.rounds));
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
    let (round, delay) = (span(found.round_length_in_days * 86_400.0), span(found.code_delay_s as f64));
    row("rounds", format!("of {round}; code is shown {delay} after one"));
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

/// A competition's canonical spec.
pub(super) fn spec(text: &str, json: bool) -> String {
    if json { serde_json::json!({ "spec": text }).to_string() } else { text.trim_end().to_owned() }
}

/// A whole file as JSON: its text, or base64 of what is no text.
pub(super) fn raw(name: &str, bytes: &[u8]) -> String {
    let content = match std::str::from_utf8(bytes) {
        Ok(text) => ("text", text.to_owned()),
        Err(_) => ("base64", BASE64.encode(bytes)),
    };
    serde_json::json!({ "file": dash::file_name(name, bytes), "bytes": bytes.len(), content.0: content.1 })
        .to_string()
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

pub(super) fn submissions(page: &SubmissionPage, now: Millis, json: bool) -> Result<String> {
    if json {
        return as_json(page);
    }
    let mut text = format!(
        "{:>7} {:>5} {:<8} {:>4} {:>14} {:>10} {:>4} {:<10} {:<4} {:<4} {:>6} {:<20} title\n",
        "id", "round", "key", "ver", "raw score", "score", "rank", "state", "code", "log", "age", "submitted"
    );
    for row in &page.submissions {
        let mark = if row.top_score { "*" } else { " " };
        let rank = row.rank.map_or("–".to_owned(), |rank| rank.to_string());
        _ = writeln!(
            text,
            "{:>7} {:>5} {:<8} {:>4} {:>14} {:>9}{mark} {rank:>4} {:<10} {:<4} {:<4} {:>6} {:<20} {}",
            row.id,
            row.round_number,
            short(&row.entrant),
            version(row.role, row.version),
            number(row.raw_score),
            number(row.score),
            row.state,
            yes(row.code_revealed),
            yes(row.revealed),
            row.submitted_at.age(now),
            whole_seconds(row.submitted_at),
            cut(&row.title)
        );
    }
    foot(&mut text, page.pagination);
    Ok(text)
}

/// Whether a thing is shown to whoever asked.
fn yes(shown: bool) -> &'static str {
    if shown { "yes" } else { "no" }
}

/// The maker's counter, or what an automatic entry is.
fn version(role: EntryRole, version: u32) -> String {
    match role {
        EntryRole::Baseline => "base".to_owned(),
        EntryRole::Incumbent => "auto".to_owned(),
        EntryRole::Challenger => version.to_string(),
    }
}

/// A time without parts of seconds.
fn whole_seconds(at: Time) -> String {
    arena::calendar::Moment(at.0).to_string()
}

/// A title for a row.
fn cut(title: &str) -> String {
    if title.chars().count() <= TITLE_CHARS {
        return title.to_owned();
    }
    title.chars().take(TITLE_CHARS - 1).chain(['…']).collect()
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
    if let Some(at) = row.eval_at {
        let took = row.eval_time_in_seconds.map_or(String::new(), |seconds| format!(", took {seconds:.1} s"));
        line("judged", format!("{at}{took}"));
    }
    let lead = match (row.top_score, row.takeover) {
        (true, _) => Some("leads"),
        (false, true) => Some("led once"),
        (false, false) => None,
    };
    if let Some(lead) = lead {
        line("lead", lead.to_owned());
    }
    for (label, text) in found.about.iter().flat_map(About::said) {
        line(label, text.replace('\n', "\n               "));
    }
    if row.revealed {
        line("raw score", number(row.raw_score));
        line("score", number(row.score));
        line("rank", row.rank.map_or("–".to_owned(), |rank| rank.to_string()));
    } else {
        line("results", format!("shown {}", dash::results_shown(found)));
    }
    if let Some(error) = &row.eval_error {
        line("failed", error.clone());
    }
    match (row.code_revealed, row.reveal_at) {
        // Nobody but its maker has it, and the host cannot show what it does not have.
        _ if found.code_bytes.is_none() => line("code", "sealed".to_owned()),
        (true, _) => line("code", "shown".to_owned()),
        (false, at) => line("code", at.map_or("hidden".to_owned(), |at| format!("hidden until {at}"))),
    }
    for metric in &found.summary {
        let base = metric.baseline_value.map_or(String::new(), |value| format!(" (baseline {value})"));
        line(&metric.key, format!("{} {}{base}", metric.value, metric.unit));
    }
    for judgement in &found.judgements {
        let what = judgement.failure.as_ref().map_or("measured".to_owned(), Failed::words);
        line("judge", format!("{} of {}: {what}", short(&judgement.judge), judgement.operator));
        let machine = judgement.machine.words();
        if !machine.is_empty() {
            line("  took", judgement.usage.words());
            line("  on", machine);
        }
    }
    for file in &found.files {
        let state = match file.kind {
            _ if file.revealed => "",
            FileKind::Code if found.code_bytes.is_none() => " (sealed)",
            _ => " (hidden)",
        };
        line("file", format!("{}{state}", file.name));
    }
    Ok(text.trim_end().to_owned())
}

/// Name of the file of a submission's code.
pub(super) fn code_name(found: &SubmissionDetail) -> String {
    let code = found.files.iter().find(|file| file.kind == FileKind::Code);
    code.map_or("code.wasm".to_owned(), |file| file.name.clone())
}

/// Logs by the names of their files; with JSON also what the judges say of each run.
pub(super) fn logs(logs: &[(String, String)], found: &SubmissionDetail, json: bool) -> Result<String> {
    if json {
        let row = |(name, text): &(String, String)| {
            let is = |judgement: &&JudgementView| *name == format!("judgement-{}.log", judgement.lease);
            let told = found.judgements.iter().find(is);
            serde_json::json!({
                "file": name, "text": text, "judge": told.map(|told| &told.judge),
                "failure": told.map(|told| &told.failure), "usage": told.map(|told| &told.usage),
                "machine": told.map(|told| &told.machine),
            })
        };
        return as_json(&logs.iter().map(row).collect::<Vec<_>>());
    }
    let shown: Vec<String> =
        logs.iter().map(|(name, text)| format!("== {name}\n{}", text.trim_end())).collect();
    Ok(if shown.is_empty() { "no judgement yet".to_owned() } else { shown.join("\n") })
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
