//! Dates and time zones without a clock and without a system's database: a zone is its POSIX rule, written in the spec.
//!
//! A database of zones changes with its version, and two nodes would open a round at different times. The rule
//! (`CET-1CEST,M3.5.0,M10.5.0/3`, IEEE 1003.1 "TZ") is part of the spec, so everybody computes the same instants.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use wire::Millis;

/// Seconds of a day without a change of the clock.
pub const DAY_S: i64 = 86_400;

/// Days since 1970-01-01 of a date of the Gregorian calendar (H. Hinnant, "chrono-compatible low-level date algorithms").
pub fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = i64::from((month + 9) % 12);
    let day_of_year = (153 * shifted + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month (1 to 12) and day (1 to 31) of a number of days since 1970-01-01.
pub fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month + 2) / 5 + 1) as u32;
    let month = if month < 10 { month + 3 } else { month - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Text is not a moment, a time of day or a zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct CalendarError {
    /// What should stand there.
    pub expected: &'static str,
}

fn digits(text: &str, count: usize) -> Option<i64> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// A point in time that reads and prints as `2026-01-13T11:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Millis);

impl FromStr for Moment {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, CalendarError> {
        let error = CalendarError { expected: "a time in UTC from 1970 on, like 2026-01-13T11:00:00Z" };
        let parse = || {
            let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
            let mut parts = date.split('-');
            let year = digits(parts.next()?, 4)?;
            let month = digits(parts.next()?, 2).filter(|month| (1..=12).contains(month))? as u32;
            let day = digits(parts.next()?, 2)? as u32;
            let days = days_from_civil(year, month, day);
            let real = parts.next().is_none() && civil_from_days(days) == (year, month, day);
            let seconds = days * DAY_S + time_of_day(time, 3)?;
            (real && seconds >= 0).then_some(Self(Millis(seconds as u64 * 1000)))
        };
        parse().ok_or(error)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = (self.0.0 / 1000) as i64;
        let (year, month, day) = civil_from_days(seconds.div_euclid(DAY_S));
        let rest = seconds.rem_euclid(DAY_S);
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `HH:MM` or `HH:MM:SS` with exactly `parts` parts, in seconds.
fn time_of_day(text: &str, parts: usize) -> Option<i64> {
    let fields: Vec<&str> = text.split(':').collect();
    if fields.len() != parts {
        return None;
    }
    let bounds = [24, 60, 60];
    fields.iter().zip(bounds).enumerate().try_fold(0, |sum, (index, (field, bound))| {
        let value = digits(field, 2).filter(|value| *value < bound)?;
        Some(sum + value * [3600, 60, 1][index])
    })
}

/// A time of day that reads and prints as `11:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeOfDay {
    /// Seconds since midnight by the clock on the wall.
    pub seconds: u32,
}

impl FromStr for TimeOfDay {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, CalendarError> {
        let seconds = time_of_day(text, 2).ok_or(CalendarError { expected: "a time of day, like 11:00" })?;
        Ok(Self { seconds: seconds as u32 })
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.seconds / 3600, self.seconds / 60 % 60)
    }
}

impl Serialize for TimeOfDay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A time zone by its POSIX rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    text: String,
    /// Seconds east of Greenwich.
    standard: i64,
    summer: Option<Summer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Summer {
    offset: i64,
    from: Change,
    to: Change,
}

/// `Mm.w.d/time`: the w-th (5: last) weekday d (0: Sunday) of month m.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    month: u32,
    week: u32,
    weekday: i64,
    time: i64,
}

impl Change {
    /// Seconds since 1970 on the clock of the wall at which it happens.
    fn local(self, year: i64) -> i64 {
        let first = days_from_civil(year, self.month, 1);
        // 1970-01-01 was a Thursday.
        let weekday_of_first = (first + 4).rem_euclid(7);
        let mut day = first + (self.weekday - weekday_of_first).rem_euclid(7) + 7 * i64::from(self.week - 1);
        let next = if self.month == 12 { (year + 1, 1) } else { (year, self.month + 1) };
        if day >= days_from_civil(next.0, next.1, 1) {
            day -= 7;
        }
        day * DAY_S + self.time
    }
}

impl Zone {
    /// Seconds east of Greenwich at an instant (seconds since 1970, UTC).
    pub fn offset_at(&self, utc: i64) -> i64 {
        let Some(summer) = self.summer else { return self.standard };
        let (year, _, _) = civil_from_days((utc + self.standard).div_euclid(DAY_S));
        let from = summer.from.local(year) - self.standard;
        let to = summer.to.local(year) - summer.offset;
        let is_summer = if from < to { (from..to).contains(&utc) } else { !(to..from).contains(&utc) };
        if is_summer { summer.offset } else { self.standard }
    }

    /// Instant of a time on the wall (both in seconds since 1970). A time that comes twice means the first; a time that
    /// the clock skips means as long after the change as it was meant to be.
    pub fn instant(&self, local: i64) -> i64 {
        let offsets = [self.standard, self.summer.map_or(self.standard, |summer| summer.offset)];
        let real = offsets.iter().map(|offset| (local - offset, *offset));
        let first = real.filter(|(utc, offset)| self.offset_at(*utc) == *offset).map(|(utc, _)| utc).min();
        first.unwrap_or_else(|| local - offsets[0].min(offsets[1]))
    }

    /// The clock on the wall at an instant, seconds since 1970.
    pub fn local(&self, utc: i64) -> i64 {
        utc + self.offset_at(utc)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Zone {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, CalendarError> {
        let expected = "a POSIX time zone, like UTC0 or CET-1CEST,M3.5.0,M10.5.0/3";
        parse_zone(text).ok_or(CalendarError { expected })
    }
}

fn parse_zone(text: &str) -> Option<Zone> {
    let mut rest = text;
    take_name(&mut rest)?;
    let standard = -take_offset(&mut rest, 24)?;
    if rest.is_empty() {
        return Some(Zone { text: text.to_owned(), standard, summer: None });
    }
    take_name(&mut rest)?;
    let offset = if rest.starts_with(',') { standard + 3600 } else { -take_offset(&mut rest, 24)? };
    let (from, to) = rest.strip_prefix(',')?.split_once(',')?;
    let summer = Summer { offset, from: parse_change(from)?, to: parse_change(to)? };
    (offset != standard).then(|| Zone { text: text.to_owned(), standard, summer: Some(summer) })
}

/// At least three letters, or anything simple between `<` and `>`.
fn take_name(rest: &mut &str) -> Option<()> {
    let (name, after) = if let Some(quoted) = rest.strip_prefix('<') {
        quoted.split_once('>')?
    } else {
        rest.split_at(rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len()))
    };
    let good = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-".contains(&byte));
    (name.len() >= 3 && good).then(|| *rest = after)
}

/// `[+-]h[h][:mm[:ss]]`, in seconds.
fn take_offset(rest: &mut &str, hours_max: i64) -> Option<i64> {
    let (sign, body) = match rest.as_bytes().first()? {
        b'-' => (-1, &rest[1..]),
        b'+' => (1, &rest[1..]),
        _ => (1, *rest),
    };
    let end = body.find(|c: char| !c.is_ascii_digit() && c != ':').unwrap_or(body.len());
    let (number, after) = body.split_at(end);
    let mut seconds = 0;
    let mut unit = 3600;
    for (index, field) in number.split(':').enumerate() {
        let wide = if index == 0 { (1..=3).contains(&field.len()) } else { field.len() == 2 };
        let value = digits(field, field.len()).filter(|_| wide && index < 3)?;
        let bound = if index == 0 { hours_max } else { 59 };
        (value <= bound).then_some(())?;
        seconds += value * unit;
        unit /= 60;
    }
    *rest = after;
    Some(sign * seconds)
}

fn parse_change(text: &str) -> Option<Change> {
    let (day, time) = text.split_once('/').unwrap_or((text, "2"));
    let mut parts = day.strip_prefix('M')?.split('.');
    let mut number = |low: i64, high: i64| {
        let part = parts.next()?;
        digits(part, part.len()).filter(|value| part.len() <= 2 && (low..=high).contains(value))
    };
    let (month, week, weekday) = (number(1, 12)?, number(1, 5)?, number(0, 6)?);
    let mut rest = time;
    let time = take_offset(&mut rest, 167)?;
    let whole = parts.next().is_none() && rest.is_empty();
    whole.then_some(Change { month: month as u32, week: week as u32, weekday, time })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
    const NEW_YORK: &str = "EST5EDT,M3.2.0,M11.1.0";
    const SYDNEY: &str = "AEST-10AEDT,M10.1.0,M4.1.0/3";

    fn at(text: &str) -> i64 {
        text.parse::<Moment>().unwrap().0.0 as i64 / 1000
    }

    #[test]
    fn moments_read_and_print() {
        for text in ["1970-01-01T00:00:00Z", "2000-02-29T23:59:59Z", "2026-11-21T03:22:55Z"] {
            assert_eq!(text.parse::<Moment>().unwrap().to_string(), text);
        }
        assert_eq!(at("2026-01-13T00:00:00Z"), 1_768_262_400);
        for bad in [
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01",
            "",
            "1969-12-31T23:59:59Z",
        ] {
            bad.parse::<Moment>().unwrap_err();
        }
    }

    #[test]
    fn summer_begins_and_ends_to_the_second() {
        let berlin: Zone = BERLIN.parse().unwrap();
        for (instant, offset) in [
            ("2026-03-29T00:59:59Z", 3600),
            ("2026-03-29T01:00:00Z", 7200),
            ("2026-10-25T00:59:59Z", 7200),
            ("2026-10-25T01:00:00Z", 3600),
        ] {
            assert_eq!(berlin.offset_at(at(instant)), offset, "{instant}");
        }
        let new_york: Zone = NEW_YORK.parse().unwrap();
        assert_eq!(new_york.offset_at(at("2026-03-08T06:59:59Z")), -5 * 3600);
        assert_eq!(new_york.offset_at(at("2026-03-08T07:00:00Z")), -4 * 3600);
        assert_eq!(new_york.offset_at(at("2026-11-01T06:00:00Z")), -5 * 3600);
        let sydney: Zone = SYDNEY.parse().unwrap();
        assert_eq!(sydney.offset_at(at("2026-01-01T00:00:00Z")), 11 * 3600);
        assert_eq!(sydney.offset_at(at("2026-07-01T00:00:00Z")), 10 * 3600);
        assert_eq!(sydney.offset_at(at("2026-12-31T23:00:00Z")), 11 * 3600);
        let india: Zone = "IST-5:30".parse().unwrap();
        assert_eq!(india.offset_at(0), 19_800);
        let fixed: Zone = "<+03>-3".parse().unwrap();
        assert_eq!(fixed.offset_at(0), 10_800);
    }

    #[test]
    fn a_skipped_hour_is_moved_and_a_double_hour_means_the_first() {
        let berlin: Zone = BERLIN.parse().unwrap();
        let wall = |text: &str| at(text);
        assert_eq!(berlin.instant(wall("2026-03-29T02:30:00Z")), at("2026-03-29T01:30:00Z"));
        assert_eq!(berlin.instant(wall("2026-10-25T02:30:00Z")), at("2026-10-25T00:30:00Z"));
        assert_eq!(berlin.instant(wall("2026-07-01T12:00:00Z")), at("2026-07-01T10:00:00Z"));
    }

    #[test]
    fn nonsense_is_no_zone() {
        for bad in [
            "",
            "CE-1",
            "CET",
            "CET-25",
            "CET-1CEST",
            "CET-1CEST,M3.5.0",
            "CET-1CEST,M13.5.0,M10.5.0",
            "CET-1CEST,M3.6.0,M10.5.0",
            "CET-1CEST-1,M3.5.0,M10.5.0",
            "CET-1:60",
            "CET-1x",
            "Europe/Berlin",
            "<>-1",
            "CET-1CEST,J60,J300",
        ] {
            assert!(bad.parse::<Zone>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn dates_come_back(days in -1_000_000_i64..1_000_000) {
            let (year, month, day) = civil_from_days(days);
            prop_assert_eq!(days_from_civil(year, month, day), days);
        }

        #[test]
        fn what_the_wall_shows_leads_back(utc in 0_i64..8_000_000_000, zone in prop::sample::select(vec![BERLIN, NEW_YORK, SYDNEY, "UTC0"])) {
            let zone: Zone = zone.parse().unwrap();
            let again = zone.instant(zone.local(utc));
            // In the double hour the first is meant.
            prop_assert!(again == utc || (again < utc && zone.local(again) == zone.local(utc)));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<Zone>();
            let _ = text.parse::<Moment>();
            let _ = text.parse::<TimeOfDay>();
        }
    }
}
