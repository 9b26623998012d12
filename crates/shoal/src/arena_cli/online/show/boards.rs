//! Boards, judges and weights.

use std::fmt::Write;

use anyhow::Result;
use api::model::{Board, GlobalBoard, JudgeRow, Mode, WeightsAnswer};

use super::{as_json, cut, foot, number, short, version, yes};

pub(in crate::arena_cli::online) fn board(found: &Board, json: bool) -> Result<String> {
    if json {
        return as_json(found);
    }
    let round =
        found.round_number.map_or("no round was judged yet".to_owned(), |round| format!("round {round}"));
    let mut text = format!(
        "{round}\n{:>4} {:>7} {:<8} {:>4} {:>14} {:>10} {:>8} {:>11} {:>10} {:>11} title\n",
        "rank", "id", "key", "ver", "raw score", "score", "ratio", "similarity", "time s", "% of a day"
    );
    for row in &found.rows {
        _ = writeln!(
            text,
            "{:>4} {:>7} {:<8} {:>4} {:>14} {:>10} {:>8} {:>11} {:>10} {:>11} {}",
            row.rank,
            row.submission_id,
            short(&row.entrant),
            version(row.role, row.version),
            number(Some(row.raw_score)),
            number(Some(row.score)),
            row.compression_ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.4}")),
            number(row.similarity),
            number(row.task_time_s),
            row.daily_percent.map_or("–".to_owned(), |percent| format!("{percent:.5}")),
            cut(&row.title)
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

pub(in crate::arena_cli::online) fn global(found: &GlobalBoard, json: bool) -> Result<String> {
    if json {
        return as_json(found);
    }
    // What it is sorted by stands on it.
    let (score, place) = match found.mode {
        Mode::MedianScore => ("median", "mean place"),
        Mode::MedianPlace => ("mean", "median place"),
        _ => ("mean", "mean place"),
    };
    let mut text = format!(
        "{:>4} {:<8} {:>6} {:>12} {:>8} {:>12} {score:>10} {place:>12}\n",
        "rank", "key", "firsts", "earned days", "entries", "competitions"
    );
    for row in &found.rows {
        let score = if found.mode == Mode::MedianScore { row.median_score } else { row.mean_score };
        let place = if found.mode == Mode::MedianPlace { row.median_place } else { row.mean_place };
        _ = writeln!(
            text,
            "{:>4} {:<8} {:>6} {:>12.6} {:>8} {:>12} {:>10} {:>12}",
            row.rank,
            short(&row.entrant),
            row.first_places,
            row.earned_days,
            row.total_submissions,
            row.competitions_entered,
            number(score),
            place.map_or("–".to_owned(), |place| format!("{place:.2}"))
        );
    }
    foot(&mut text, found.pagination);
    Ok(text)
}

/// The judges.
pub(in crate::arena_cli::online) fn judges(found: &[JudgeRow], json: bool) -> Result<String> {
    if json {
        return as_json(&found);
    }
    if found.is_empty() {
        return Ok("no judge was admitted: shoal arena admit KEY --operator NAME".to_owned());
    }
    let mut text = format!(
        "{:<8} {:<16} {:<8} {:>7} {:>7} {:>7} {:>7} {:>9} {:>8}\n",
        "key", "operator", "admitted", "leased", "expired", "judged", "agreed", "disagreed", "withheld"
    );
    for row in found {
        _ = writeln!(
            text,
            "{:<8} {:<16} {:<8} {:>7} {:>7} {:>7} {:>7} {:>9} {:>8}",
            short(&row.judge),
            row.operator,
            yes(row.admitted),
            row.leased,
            row.expired,
            row.judged,
            row.agreed,
            row.disagreed,
            row.withheld
        );
    }
    Ok(text.trim_end().to_owned())
}

/// Who gets which share of the arena's rewards now, most first.
pub(in crate::arena_cli::online) fn weights(found: &WeightsAnswer, json: bool) -> Result<String> {
    if json {
        return as_json(found);
    }
    let percent = |ppb: u64| format!("{:>12.7} %", ppb as f64 / 1e7);
    let mut rows: Vec<_> = found.weights.iter().collect();
    rows.sort_by(|a, b| b.weight_ppb.cmp(&a.weight_ppb).then_with(|| a.entrant.cmp(&b.entrant)));
    let mut text = String::new();
    for row in rows {
        _ = writeln!(text, "{} {}", row.entrant, percent(row.weight_ppb));
    }
    _ = write!(text, "{:<64} {}", "burned", percent(found.burned_ppb));
    Ok(text)
}
