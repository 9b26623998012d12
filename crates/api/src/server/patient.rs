//! A stream that gives up on readers who do not read: what waits to be sent must move on.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A stream whose peer must take `least` bytes in every `span` in which something waits for it.
#[derive(Debug)]
pub(crate) struct Patient<S> {
    stream: S,
    span: Duration,
    least: usize,
    /// Runs while the peer is awaited.
    waiting: Option<Pin<Box<Sleep>>>,
    /// Taken since it runs, bytes.
    taken: usize,
}

impl<S> Patient<S> {
    pub(crate) fn new(stream: S, span: Duration, least: usize) -> Self {
        Self { stream, span, least, waiting: None, taken: 0 }
    }

    /// What follows from an attempt to write or to flush; `done` is set if nothing is left to send.
    fn judge<T>(
        &mut self,
        context: &mut Context<'_>,
        attempt: Poll<io::Result<T>>,
        bytes: impl Fn(&T) -> usize,
        done: bool,
    ) -> Poll<io::Result<T>> {
        match &attempt {
            Poll::Pending => {
                let waiting = self
                    .waiting
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + self.span)));
                if waiting.as_mut().poll(context).is_ready() {
                    let words = format!("the peer took {} bytes in {} s", self.taken, self.span.as_secs());
                    return Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, words)));
                }
            }
            Poll::Ready(Ok(value)) => {
                self.taken += bytes(value);
                if done || self.taken >= self.least {
                    self.waiting = None;
                    self.taken = 0;
                }
            }
            Poll::Ready(Err(_)) => {}
        }
        attempt
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, attempt, |taken| *taken, false)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.judge(context, attempt, |taken| *taken, false)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(context, attempt, |()| 0, true)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(context, attempt, |()| 0, true)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SPAN: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_reader_that_stands_still_is_given_up() {
        let (ours, theirs) = tokio::io::duplex(64);
        let mut stream = Patient::new(ours, SPAN, 32);
        let error = stream.write_all(&[0; 4096]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(theirs);
    }

    #[tokio::test]
    async fn a_reader_that_drips_is_given_up_and_one_that_reads_is_not() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut stream = Patient::new(ours, SPAN, 1024);
        let drip = async move {
            let mut byte = [0];
            // One byte at a time, with a pause that is far too long for 1,024 of them.
            while theirs.read_exact(&mut byte).await.is_ok() {
                tokio::time::sleep(SPAN / 10).await;
            }
        };
        let write = async move { stream.write_all(&[0; 4096]).await };
        let (error, ()) = tokio::join!(write, drip);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::TimedOut);

        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut stream = Patient::new(ours, SPAN, 1024);
        let write = async move {
            for _ in 0..3 {
                stream.write_all(&vec![0; 100_000]).await?;
                stream.flush().await?;
                // Silence with nothing to send is no fault of the reader.
                tokio::time::sleep(SPAN * 2).await;
            }
            Ok::<(), io::Error>(())
        };
        let mut all = Vec::new();
        let (written, read) = tokio::join!(write, theirs.read_to_end(&mut all));
        written.unwrap();
        assert_eq!(read.unwrap(), 300_000);
    }
}
