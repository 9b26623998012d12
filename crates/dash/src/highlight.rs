//! Parts of a line of Python or JSON: comments, strings, numbers, words of the language.

use std::ops::Range;

/// What a file is written in, as far as it is highlighted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Python,
    Json,
}

/// What a part of a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Comment,
    Text,
    Number,
    Word,
    /// Name of a member of an object.
    Name,
}

const PYTHON: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def",
    "del", "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is",
    "lambda", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];
const JSON: [&str; 3] = ["false", "null", "true"];

impl Language {
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "py" => Some(Self::Python),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Parts of a line, in order; what lies between them is plain. `within` is the quote of a string over several lines,
    /// at the line's start and then at its end.
    pub(crate) fn parts(self, line: &str, within: &mut Option<char>) -> Vec<(Range<usize>, Part)> {
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(c) = line[at..].chars().next() {
            let (rest, start) = (&line[at..], at);
            let triple = within.or_else(|| {
                let quote = (self == Self::Python && matches!(c, '"' | '\'')).then_some(c)?;
                rest.starts_with(&String::from(quote).repeat(3)).then_some(quote)
            });
            if let Some(quote) = triple {
                let body = if within.is_some() { 0 } else { 3 };
                let end = rest[body..].find(&String::from(quote).repeat(3));
                *within = end.is_none().then_some(quote);
                at = end.map_or(line.len(), |end| start + body + end + 3);
                parts.push((start..at, Part::Text));
            } else if c == '#' && self == Self::Python {
                at = line.len();
                parts.push((start..at, Part::Comment));
            } else if c == '"' || (c == '\'' && self == Self::Python) {
                at += quoted(rest, c);
                let name = self == Self::Json && line[at..].trim_start().starts_with(':');
                parts.push((start..at, if name { Part::Name } else { Part::Text }));
            } else if c.is_alphanumeric() || c == '_' {
                let number = c.is_ascii_digit();
                let is = |c: char| c.is_alphanumeric() || c == '_' || (number && c == '.');
                at += rest.find(|c| !is(c)).unwrap_or(rest.len());
                let words = if self == Self::Python { &PYTHON[..] } else { &JSON };
                if number {
                    parts.push((start..at, Part::Number));
                } else if words.contains(&&line[start..at]) {
                    parts.push((start..at, Part::Word));
                }
            } else {
                at += c.len_utf8();
            }
        }
        parts
    }
}

/// Bytes of a string in quotes, or to the end of the line.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = true; // the quote that opens it
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(language: Language, line: &'static str) -> Vec<(&'static str, Part)> {
        let parts = language.parts(line, &mut None);
        parts.into_iter().map(|(range, part)| (&line[range], part)).collect()
    }

    #[test]
    fn python_and_json() {
        assert_eq!(
            parts(Language::Python, r##"def f(x1): return "a\"#" + 'é' + 0x1F  # sum"##),
            [
                ("def", Part::Word),
                ("return", Part::Word),
                (r##""a\"#""##, Part::Text),
                ("'é'", Part::Text),
                ("0x1F", Part::Number),
                ("# sum", Part::Comment),
            ]
        );
        assert_eq!(
            parts(Language::Json, r#"{"name" : "a # b", "n": -1.5e3, "ok": true}"#),
            [
                (r#""name""#, Part::Name),
                (r#""a # b""#, Part::Text),
                (r#""n""#, Part::Name),
                ("1.5e3", Part::Number),
                (r#""ok""#, Part::Name),
                ("true", Part::Word),
            ]
        );
        assert_eq!(parts(Language::Python, "'open \\"), [("'open \\", Part::Text)]);
        assert_eq!(
            (Language::of("code.py"), Language::of("judgement-7.log")),
            (Some(Language::Python), None)
        );
    }

    #[test]
    fn strings_over_several_lines() {
        let mut within = None;
        let line = "x = '''one # no comment";
        assert_eq!(Language::Python.parts(line, &mut within), [(4..line.len(), Part::Text)]);
        assert_eq!(within, Some('\''));
        assert_eq!(Language::Python.parts("if \"\"\" two", &mut within), [(0..10, Part::Text)]);
        assert_eq!(Language::Python.parts("'''; if", &mut within), [(0..3, Part::Text), (5..7, Part::Word)]);
        assert_eq!(within, None);
        assert_eq!(Language::Python.parts("\"\"\"\"\"\" # none", &mut within)[0], (0..6, Part::Text));
        assert_eq!(within, None);
    }
}
