//! Times as JSON shows them.

use std::fmt;
use std::str::FromStr;

use arena::calendar::{CalendarError, Moment};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;
use wire::Millis;

/// Milliseconds since 1970, written `2026-01-13T11:00:00.250Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct Time(pub Millis);

impl Time {
    /// How long ago it was, in the largest unit: `59 s`, `3 min`, `2 h`, `5 d`.
    pub fn age(self, now: Millis) -> String {
        let s = now.since(self.0).0 / 1000;
        match s {
            0..60 => format!("{s} s"),
            60..3600 => format!("{} min", s / 60),
            3600..86_400 => format!("{} h", s / 3600),
            _ => format!("{} d", s / 86_400),
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = Moment(self.0).to_string();
        write!(f, "{}.{:03}Z", whole.trim_end_matches('Z'), self.0.0 % 1000)
    }
}

impl FromStr for Time {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, CalendarError> {
        let (whole, fraction) = match text.trim_end_matches('Z').split_once('.') {
            Some((whole, fraction)) => (format!("{whole}Z"), fraction),
            None => (text.to_owned(), "0"),
        };
        let moment: Moment = whole.parse()?;
        let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
        let expected = "a time in UTC, like 2026-01-13T11:00:00.250Z";
        let ms: u64 = digits.parse().map_err(|_| CalendarError { expected })?;
        Ok(Self(Millis(moment.0.0 + ms)))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        let time = Time(Millis(1_768_302_000_250));
        assert_eq!(time.to_string(), "2026-01-13T11:00:00.250Z");
        assert_eq!("2026-01-13T11:00:00.250Z".parse::<Time>().unwrap(), time);
        assert_eq!("2026-01-13T11:00:00Z".parse::<Time>().unwrap().0.0, 1_768_302_000_000);
        for bad in ["", "yesterday", "2026-01-13T11:00:00.xZ", "2026-13-13T11:00:00Z"] {
            assert!(bad.parse::<Time>().is_err(), "{bad}");
        }
        assert_eq!(Time(Millis(0)).age(Millis(90_000_000)), "1 d");
        assert_eq!(Time(Millis(90_000)).age(Millis(0)), "0 s", "clocks differ");
    }
}
