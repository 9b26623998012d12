//! Event streams as a client reads them.

use bytes::BytesMut;
use reqwest::Method;

use super::{Client, ClientError, unreachable};
use crate::limits;
use crate::model::Event;

/// Events as they happen. Goes on behind the last event when the connection breaks.
#[derive(Debug)]
pub struct EventStream<'a> {
    client: &'a Client,
    target: String,
    answer: Option<reqwest::Response>,
    buffer: BytesMut,
    last: Option<String>,
}

impl Client {
    /// Events of the arena, of a competition, of an entry; from a block on, or from now.
    pub fn events(
        &self,
        competition: Option<&str>,
        submission: Option<u64>,
        from: Option<u64>,
    ) -> EventStream<'_> {
        let competition = competition.map(|name| format!("competition={name}"));
        let parameters = competition
            .into_iter()
            .chain(submission.map(|id| format!("submission={id}")))
            .chain(from.map(|block| format!("from={block}")));
        let query = parameters.collect::<Vec<_>>().join("&");
        let joint = if query.is_empty() { "" } else { "?" };
        let target = format!("/v1/events{joint}{query}");
        EventStream { client: self, target, answer: None, buffer: BytesMut::new(), last: None }
    }
}

impl EventStream<'_> {
    /// Opens the stream, so that nothing that happens from now on is missed.
    ///
    /// # Errors
    /// The host refused or is away.
    pub async fn open(&mut self) -> Result<(), ClientError> {
        if self.answer.is_some() {
            return Ok(());
        }
        let url = self.client.url(&self.target)?;
        let mut asked = self.client.http.get(url.clone());
        if let Some(header) = self.client.header(&Method::GET, &url, b"") {
            asked = asked.header(reqwest::header::AUTHORIZATION, header);
        }
        if let Some(last) = &self.last {
            asked = asked.header("last-event-id", last);
        }
        let sent = tokio::time::timeout(limits::REQUEST_TIMEOUT, asked.send()).await;
        let reason = || ClientError::Unreachable {
            address: self.client.address().to_owned(),
            reason: "no answer in time".to_owned(),
        };
        let answer = sent.map_err(|_| reason())?.map_err(|error| unreachable(&self.client.base, &error))?;
        if !answer.status().is_success() {
            return Err(self.client.failure(answer).await);
        }
        self.buffer.clear();
        self.answer = Some(answer);
        Ok(())
    }

    /// The next event.
    ///
    /// # Errors
    /// The host refused or is away, or the stream broke; the next call opens it again where it broke.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        self.open().await?;
        loop {
            if let Some(event) = self.buffered()? {
                self.last = Some(event.id.clone());
                return Ok(event);
            }
            let Some(answer) = &mut self.answer else { return Err(self.broken("closed")) };
            // A silent stream shows a sign of life now and then.
            let chunk = tokio::time::timeout(limits::STREAM_HEARTBEAT * 3, answer.chunk()).await;
            match chunk {
                Ok(Ok(Some(chunk))) => self.buffer.extend_from_slice(&chunk),
                Ok(Ok(None)) => return Err(self.broken("the host ended it")),
                Ok(Err(error)) => return Err(self.broken(&error.to_string())),
                Err(_) => return Err(self.broken("no sign of life")),
            }
            if self.buffer.len() > limits::EVENT_BYTES {
                return Err(self.broken("an event over the limit"));
            }
        }
    }

    fn broken(&mut self, reason: &str) -> ClientError {
        self.answer = None;
        ClientError::Broken { address: self.client.address().to_owned(), reason: reason.to_owned() }
    }

    /// The next whole event in the buffer.
    fn buffered(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") else { return Ok(None) };
            let message = self.buffer.split_to(end + 2);
            let text = String::from_utf8_lossy(&message);
            let data: String =
                text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim).collect();
            if data.is_empty() {
                continue; // a sign of life
            }
            return serde_json::from_str(&data).map(Some).map_err(|error| ClientError::Malformed {
                address: self.client.address().to_owned(),
                reason: error.to_string(),
            });
        }
    }
}
