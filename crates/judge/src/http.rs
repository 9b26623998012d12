//! The HTTP contract of Apex's solutions, as a client (arena specs §10.1): `GET /health`, and `POST` with one multipart
//! field `file`, answered by raw bytes.
//!
//! One connection per request. Head, body and time of an answer are bounded before they are believed: what answers here
//! is the entry.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::time::Instant;

use arena::measure::Failure;

use crate::limits;

/// A connection whose reads and writes end at a deadline.
pub(crate) trait Connection: Read + Write {
    /// Sets when reads and writes give up.
    fn deadline(&mut self, at: Instant) -> io::Result<()>;
}

macro_rules! socket {
    ($name:ty) => {
        impl Connection for $name {
            fn deadline(&mut self, at: Instant) -> io::Result<()> {
                let left = at.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                self.set_read_timeout(Some(left))?;
                self.set_write_timeout(Some(left))
            }
        }
    };
}
#[cfg(unix)]
socket!(std::os::unix::net::UnixStream);
socket!(std::net::TcpStream);

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum HttpError {
    /// Nobody answered in time.
    Time,
    /// More than was allowed.
    TooLarge,
    /// Not HTTP, cut off, or another status than 200.
    Answer(String),
}

impl HttpError {
    /// The failure that it is for an entry that was ready before.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Time => Failure::Time,
            Self::TooLarge => Failure::OutputTooLarge,
            Self::Answer(_) => Failure::Output,
        }
    }
}

impl std::fmt::Display for HttpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Time => write!(f, "no answer in time"),
            Self::TooLarge => write!(f, "an answer longer than allowed"),
            Self::Answer(what) => write!(f, "{what}"),
        }
    }
}

/// Separates the parts of a request; nobody knows it before. An evaluator is sent what an entry answered, and an answer that
/// held the boundary could bring parts of its own.
fn boundary() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("shoal-{:016x}{:016x}", random(), random())
}

fn bad(what: impl Into<String>) -> HttpError {
    HttpError::Answer(what.into())
}

fn io_error(error: &io::Error) -> HttpError {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => HttpError::Time,
        _ => bad(format!("the connection broke: {error}")),
    }
}

/// `GET path`; true if the answer is 200.
pub(crate) fn get(connection: &mut impl Connection, path: &str, until: Instant) -> Result<bool, HttpError> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: entry\r\nConnection: close\r\n\r\n");
    send(connection, &[head.as_bytes()], until)?;
    match receive(connection, limits::HTTP_HEAD_BYTES, until) {
        Ok(_) => Ok(true),
        Err(HttpError::Answer(_)) => Ok(false),
        Err(other) => Err(other),
    }
}

/// `POST path` with parts of a form (name, content); the body of the answer, of at most `most` bytes.
pub(crate) fn post(
    connection: &mut impl Connection,
    path: &str,
    parts: &[(&str, &[u8])],
    most: usize,
    until: Instant,
) -> Result<Vec<u8>, HttpError> {
    let boundary = boundary();
    let heads: Vec<String> = parts
        .iter()
        .map(|(name, _)| {
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"data\"\r\nContent-Type: application/octet-stream\r\n\r\n"
            )
        })
        .collect();
    let end = format!("--{boundary}--\r\n");
    let length: usize =
        heads.iter().zip(parts).map(|(head, (_, body))| head.len() + body.len() + 2).sum::<usize>()
            + end.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: entry\r\nConnection: close\r\nContent-Type: multipart/form-data; boundary={boundary}\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut pieces: Vec<&[u8]> = vec![head.as_bytes()];
    for (head, (_, body)) in heads.iter().zip(parts) {
        pieces.extend([head.as_bytes(), body, b"\r\n"]);
    }
    pieces.push(end.as_bytes());
    send(connection, &pieces, until)?;
    receive(connection, most, until)
}

fn send(connection: &mut impl Connection, pieces: &[&[u8]], until: Instant) -> Result<(), HttpError> {
    for piece in pieces {
        for chunk in piece.chunks(1 << 20) {
            connection.deadline(until).map_err(|error| io_error(&error))?;
            connection.write_all(chunk).map_err(|error| io_error(&error))?;
        }
    }
    connection.flush().map_err(|error| io_error(&error))
}

struct Reader<'a, C> {
    connection: &'a mut C,
    until: Instant,
    buffer: Vec<u8>,
    at: usize,
}

impl<C: Connection> Reader<'_, C> {
    /// Reads more into the buffer; false at the end.
    fn fill(&mut self) -> Result<bool, HttpError> {
        self.connection.deadline(self.until).map_err(|error| io_error(&error))?;
        let mut chunk = [0; 16 << 10];
        let read = self.connection.read(&mut chunk).map_err(|error| io_error(&error))?;
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(read > 0)
    }

    /// A line without its end.
    fn line(&mut self) -> Result<String, HttpError> {
        loop {
            let rest = &self.buffer[self.at..];
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&rest[..length]).trim_end_matches('\r').to_owned();
                self.at += length + 1;
                return Ok(line);
            }
            if rest.len() > limits::HTTP_HEAD_BYTES {
                return Err(bad("a line of the head without an end"));
            }
            if !self.fill()? {
                return Err(bad("the answer was cut off in its head"));
            }
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, HttpError> {
        while self.buffer.len() - self.at < length {
            if !self.fill()? {
                return Err(bad(format!(
                    "the answer was cut off after {} of {length} bytes",
                    self.buffer.len() - self.at
                )));
            }
        }
        let taken = self.buffer[self.at..self.at + length].to_vec();
        self.at += length;
        Ok(taken)
    }
}

fn receive(connection: &mut impl Connection, most: usize, until: Instant) -> Result<Vec<u8>, HttpError> {
    let mut reader = Reader { connection, until, buffer: Vec::new(), at: 0 };
    let status = reader.line()?;
    let mut words = status.split(' ');
    let (version, code) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !version.starts_with("HTTP/1.") {
        return Err(bad("the answer is not HTTP"));
    }
    let (mut length, mut chunked, mut head) = (None, false, status.len());
    loop {
        let line = reader.line()?;
        if line.is_empty() {
            break;
        }
        head += line.len();
        if head > limits::HTTP_HEAD_BYTES {
            return Err(bad("a head that is too long"));
        }
        let Some((name, value)) = line.split_once(':') else { return Err(bad("a header without a colon")) };
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "content-length" => {
                let parsed: u64 = value.parse().map_err(|_| bad("a content length that is no number"))?;
                if parsed > most as u64 {
                    return Err(HttpError::TooLarge);
                }
                length = Some(parsed as usize);
            }
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let body = match length {
        _ if chunked => chunks(&mut reader, most)?,
        Some(length) => reader.take(length)?,
        None => rest(&mut reader, most)?,
    };
    if code == "200" { Ok(body) } else { Err(bad(format!("status {code}"))) }
}

fn chunks<C: Connection>(reader: &mut Reader<'_, C>, most: usize) -> Result<Vec<u8>, HttpError> {
    let mut body = Vec::new();
    loop {
        let line = reader.line()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).map_err(|_| bad("a chunk without a size"))?;
        if size > most - body.len() {
            return Err(HttpError::TooLarge);
        }
        if size == 0 {
            return Ok(body);
        }
        body.extend(reader.take(size)?);
        reader.line()?;
        reader.buffer.drain(..reader.at);
        reader.at = 0;
    }
}

fn rest<C: Connection>(reader: &mut Reader<'_, C>, most: usize) -> Result<Vec<u8>, HttpError> {
    loop {
        if reader.buffer.len() - reader.at > most {
            return Err(HttpError::TooLarge);
        }
        if !reader.fill()? {
            return Ok(reader.buffer.split_off(reader.at));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// What a client makes of `answer`; the other side reads the request first and keeps the line open if asked.
    fn against(answer: Vec<u8>, keep_open: bool, most: usize, wait_ms: u64) -> Result<Vec<u8>, HttpError> {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || {
            let mut request = Vec::new();
            let mut chunk = [0; 4096];
            while !request.ends_with(b"--\r\n") {
                let read = theirs.read(&mut chunk).unwrap();
                request.extend_from_slice(&chunk[..read]);
            }
            _ = theirs.write_all(&answer);
            if keep_open {
                // Until the client gives up.
                _ = theirs.read(&mut chunk);
            }
            request
        });
        let found = post(
            &mut ours,
            "/compress",
            &[("file", b"input")],
            most,
            Instant::now() + Duration::from_millis(wait_ms),
        );
        drop(ours);
        let request = String::from_utf8(server.join().unwrap()).unwrap();
        assert!(request.starts_with("POST /compress HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("name=\"file\""), "{request}");
        found
    }

    #[test]
    fn no_boundary_comes_twice() {
        let (one, two) = (boundary(), boundary());
        assert_ne!(one, two);
        assert_eq!(one.len(), 38, "at most 70 characters (RFC 2046 section 5.1.1)");
    }

    #[test]
    fn answers_by_length_by_chunks_and_by_the_end() {
        let ok = |text: &str, open| against(text.as_bytes().to_vec(), open, 100, 5000).unwrap();
        assert_eq!(ok("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcdef", true), b"abcd");
        assert_eq!(
            ok("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", true),
            b"abcd"
        );
        assert_eq!(ok("HTTP/1.0 200 OK\r\n\r\nabcd", false), b"abcd");
    }

    #[test]
    fn slow_partial_and_oversized_answers_have_their_failures() {
        let failure =
            |text: &[u8], open, wait| against(text.to_vec(), open, 100, wait).unwrap_err().failure();
        // Slow: nothing, half a head, half a body, and the line stays open.
        assert_eq!(failure(b"", true, 50), Failure::Time);
        assert_eq!(failure(b"HTTP/1.1 200 OK\r\nconte", true, 50), Failure::Time);
        assert_eq!(failure(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", true, 50), Failure::Time);
        // Partial.
        assert_eq!(failure(b"", false, 5000), Failure::Output);
        assert_eq!(failure(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", false, 5000), Failure::Output);
        assert_eq!(
            failure(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab", false, 5000),
            Failure::Output
        );
        // Oversized, announced or not.
        assert_eq!(
            failure(b"HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n", true, 5000),
            Failure::OutputTooLarge
        );
        assert_eq!(
            failure(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n", true, 5000),
            Failure::Output
        );
        let flood = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 1000]].concat();
        assert_eq!(failure(&flood, true, 5000), Failure::OutputTooLarge);
        let flood = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n";
        assert_eq!(failure(flood, true, 5000), Failure::OutputTooLarge);
        // Nonsense.
        assert_eq!(failure(b"SSH-2.0-OpenSSH\r\n\r\n", false, 5000), Failure::Output);
        assert_eq!(failure(b"HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n", false, 5000), Failure::Output);
        let endless = [b"HTTP/1.1 200 OK\r\n".to_vec(), vec![b'h'; 100_000]].concat();
        assert_eq!(failure(&endless, true, 5000), Failure::Output);
        let headers = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"a: b\r\n".repeat(10_000)].concat();
        assert_eq!(failure(&headers, true, 5000), Failure::Output);
    }
}
