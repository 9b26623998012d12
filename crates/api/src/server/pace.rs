//! An upload that moves on, or ends: whoever vanished holds nothing for long.

use std::time::Duration;

use axum::body::BodyDataStream;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::Instant;

use super::problem::ApiError;
use crate::limits;

/// How fast an upload must come: so many bytes in every span.
#[derive(Debug)]
pub(crate) struct Pace {
    span: Duration,
    least: u64,
    until: Instant,
    end: Instant,
    came: u64,
}

impl Pace {
    pub(crate) fn new(span: Duration, least: u64) -> Self {
        let now = Instant::now();
        Self { span, least, until: now + span, end: now + span * limits::UPLOAD_SPANS as u32, came: 0 }
    }

    /// The next part of an upload; none at its end.
    ///
    /// # Errors
    /// It was cut off, or stands still.
    pub(crate) async fn next(&mut self, parts: &mut BodyDataStream) -> Result<Option<Bytes>, ApiError> {
        let part = tokio::time::timeout_at(self.until.min(self.end), parts.next()).await;
        let part = part.map_err(|_| ApiError::Stalled { seconds: self.span.as_secs() })?.transpose();
        let part = part.map_err(|_| ApiError::BadRequest("the upload was cut off".into()))?;
        self.came += part.as_ref().map_or(0, |part| part.len() as u64);
        if self.came >= self.least {
            (self.until, self.came) = (Instant::now() + self.span, 0);
        }
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::stream;

    use super::*;

    const SPAN: Duration = Duration::from_millis(50);

    /// Parts of a size, each after a pause; then nothing more ever comes.
    fn dripping(size: usize, pause: Duration, count: u32) -> BodyDataStream {
        let parts = stream::unfold(0, move |sent| async move {
            if sent == count {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(pause).await;
            Some((Ok::<_, std::io::Error>(Bytes::from(vec![0; size])), sent + 1))
        });
        Body::from_stream(parts).into_data_stream()
    }

    #[tokio::test]
    async fn who_stands_still_or_drips_is_given_up_and_who_moves_on_is_not() {
        let mut pace = Pace::new(SPAN, 1000);
        let mut still = dripping(1, SPAN, 0);
        assert!(matches!(pace.next(&mut still).await, Err(ApiError::Stalled { .. })));

        let mut pace = Pace::new(SPAN, 1000);
        let mut drips = dripping(1, SPAN / 10, 1000);
        let mut parts = 0;
        let error = loop {
            match pace.next(&mut drips).await {
                Ok(_) => parts += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ApiError::Stalled { .. }) && parts < 20, "{error} after {parts} parts");

        // Twenty parts take longer than a span, and each moves it on.
        let mut pace = Pace::new(SPAN * 20, 1000);
        let mut moves = dripping(1000, SPAN * 2, 20);
        for _ in 0..20 {
            assert_eq!(pace.next(&mut moves).await.unwrap().map(|part| part.len()), Some(1000));
        }
        let mut ends = Body::from("whole").into_data_stream();
        assert_eq!(pace.next(&mut ends).await.unwrap(), Some(Bytes::from_static(b"whole")));
        assert_eq!(pace.next(&mut ends).await.unwrap(), None);
    }
}
