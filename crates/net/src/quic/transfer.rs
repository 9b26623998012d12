//! Messages over streams: sending and receiving, striped when large.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::future::{join_all, try_join_all};
use iroh::endpoint::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::sync::oneshot;

use super::Shared;
use super::peers::Connected;
use crate::frame::{Body, FrameError, HEAD_BYTES, Head};
use crate::meter::Pace;
use crate::{Message, limits};

/// Code under which a stream is given up.
const ABANDONED: VarInt = VarInt::from_u32(1);

/// Why a transfer did not end.
#[derive(Debug)]
pub(super) enum Broken {
    /// The connection is gone.
    Lost(ConnectionError),
    /// The other side gave this stream up.
    Abandoned,
    /// The other side broke the rules.
    Frame(FrameError),
    /// Too much is being received already.
    Busy,
}

impl From<WriteError> for Broken {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => Self::Lost(error),
            _ => Self::Abandoned,
        }
    }
}

impl From<ReadError> for Broken {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => Self::Lost(error),
            _ => Self::Abandoned,
        }
    }
}

impl From<FrameError> for Broken {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl From<ConnectionError> for Broken {
    fn from(error: ConnectionError) -> Self {
        Self::Lost(error)
    }
}

/// A stream that is reset, not ended, when whoever writes it is dropped half-way.
pub(super) struct Sending {
    stream: SendStream,
    finished: bool,
}

impl Sending {
    pub(super) fn new(stream: SendStream) -> Self {
        Self { stream, finished: false }
    }

    /// Ends the stream.
    pub(super) fn finish(&mut self) -> Result<(), Broken> {
        self.finished = true;
        self.stream.finish().map_err(|_| Broken::Abandoned)
    }

    /// Returns when the other side has stopped reading, or has read everything.
    pub(super) fn stopped(&self) -> impl Future<Output = bool> + Send + use<> {
        let stopped = self.stream.stopped();
        async move { !matches!(stopped.await, Ok(None)) }
    }

    pub(super) async fn write(&mut self, chunks: &mut [Bytes]) -> Result<(), Broken> {
        Ok(self.stream.write_all_chunks(chunks).await?)
    }

    /// Writes `head` and `part`, at the node's pace, and ends the stream.
    async fn write_part(&mut self, head: Bytes, part: Bytes, pace: Option<&Pace>) -> Result<(), Broken> {
        match pace {
            None => self.write(&mut [head, part]).await?,
            Some(pace) => {
                pace.take(head.len()).await;
                self.write(&mut [head]).await?;
                for at in (0..part.len()).step_by(Pace::CHUNK_BYTES) {
                    let chunk = part.slice(at..part.len().min(at + Pace::CHUNK_BYTES));
                    pace.take(chunk.len()).await;
                    self.write(&mut [chunk]).await?;
                }
            }
        }
        self.finish()
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.finished {
            // It fails only if the stream has ended already.
            let _ = self.stream.reset(ABANDONED);
        }
    }
}

/// Sends `head` (which announces `body`), control and payload; the stripes beyond the first on streams of their own.
pub(super) async fn send(
    shared: &Shared,
    connected: &Connected,
    stream: &mut Sending,
    head: &Head,
    body: Body,
    control: &[u8],
    payload: &Bytes,
) -> Result<(), Broken> {
    let pace = shared.pace.as_ref();
    let answer = matches!(head, Head::Answer { .. });
    let mut first = BytesMut::with_capacity(HEAD_BYTES + control.len());
    first.extend_from_slice(&head.encode());
    first.extend_from_slice(control);
    let started = Instant::now();
    let whole = stream.stopped();
    let first = stream.write_part(first.freeze(), payload.slice(body.stripe(0)), pace);
    if body.stripes == 1 {
        first.await?;
        time(shared, connected, payload.len(), started, vec![whole]);
        return Ok(());
    }
    let others = try_join_all((1..body.stripes).map(|index| async move {
        let part = payload.slice(body.stripe(index));
        let head = Head::Stripe { call: body.call, answer, index, len: part.len() as u64 };
        let mut stream = Sending::new(connected.connection.open_uni().await?);
        let whole = stream.stopped();
        stream.write_part(Bytes::copy_from_slice(&head.encode()), part, pace).await?;
        Ok::<_, Broken>(whole)
    }));
    let ((), mut all) = futures_util::future::try_join(first, others).await?;
    all.push(whole);
    time(shared, connected, payload.len(), started, all);
    Ok(())
}

/// Notes how long a payload took, once the other side has all of it: `ends` tell of each of its streams.
fn time(
    shared: &Shared,
    connected: &Connected,
    bytes: usize,
    started: Instant,
    ends: Vec<impl Future<Output = bool> + Send + 'static>,
) {
    if bytes < limits::MEASURED_BYTES {
        return;
    }
    let (meter, closed, peer) = (Arc::clone(&shared.meter), shared.closed.clone(), connected.peer);
    // The last acknowledgement comes a round trip after its byte left.
    let round_trip = connected.round_trip();
    shared.tasks.spawn(async move {
        tokio::select! {
            () = closed.cancelled() => {}
            stopped = join_all(ends) => if stopped.iter().all(|stopped| !stopped) {
                let took = started.elapsed();
                meter.reached(peer, bytes, took.saturating_sub(round_trip.min(took / 2)));
            },
        }
    });
}

/// Reads the head of a stream.
pub(super) async fn read_head(stream: &mut RecvStream) -> Result<Head, Broken> {
    let mut bytes = [0; HEAD_BYTES];
    fill(stream, "head", &mut bytes).await?;
    Ok(Head::decode(&bytes)?)
}

/// Reads the text behind the head of a refusal.
pub(super) async fn read_reason(stream: &mut RecvStream, len: usize) -> Result<String, Broken> {
    let mut bytes = vec![0; len];
    fill(stream, "reason", &mut bytes).await?;
    end(stream).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Receives what `body` announces, behind its head on `stream` and on the stripes' own streams.
pub(super) async fn receive(
    shared: &Shared,
    connected: &Connected,
    stream: &mut RecvStream,
    body: Body,
    answer: bool,
) -> Result<Message, Broken> {
    let kibibytes = body.payload.div_ceil(1024) as u32;
    let _room = shared.receiving.try_acquire_many(kibibytes).map_err(|_| Broken::Busy)?;
    let mut control = vec![0; body.control];
    fill(stream, "control", &mut control).await?;
    let mut payload = BytesMut::zeroed(body.payload as usize);
    if body.stripes == 1 {
        fill(stream, "payload", &mut payload).await?;
        end(stream).await?;
        return Ok(Message { control, payload: payload.freeze() });
    }
    let mut parts: Vec<BytesMut> =
        (0..body.stripes).map(|index| payload.split_to(body.stripe(index).len())).collect();
    let mut slots = parts.iter_mut();
    let first = slots.next().expect("a body has at least one stripe");
    let first = async {
        fill(stream, "payload", first).await?;
        end(stream).await
    };
    let others = try_join_all((1..body.stripes).zip(slots).map(|(index, part)| async move {
        let (len, mut stream) = connected.stripes.claim(Key { call: body.call, answer, index }).await?;
        if len != part.len() as u64 {
            return Err(FrameError::Unexpected("a stripe is not as long as its call says").into());
        }
        fill(&mut stream, "stripe", part).await?;
        end(&mut stream).await
    }));
    futures_util::future::try_join(first, others).await?;
    // The parts lie side by side in one allocation, so joining them copies nothing.
    let payload = parts.into_iter().reduce(|mut whole, part| {
        whole.unsplit(part);
        whole
    });
    Ok(Message { control, payload: payload.unwrap_or_default().freeze() })
}

async fn fill(stream: &mut RecvStream, part: &'static str, buffer: &mut [u8]) -> Result<(), Broken> {
    let mut at = 0;
    while at < buffer.len() {
        match stream.read(&mut buffer[at..]).await? {
            Some(0) | None => {
                let (got, expected) = (at as u64, buffer.len() as u64);
                return Err(FrameError::Truncated { part, got, expected }.into());
            }
            Some(count) => at += count,
        }
    }
    Ok(())
}

async fn end(stream: &mut RecvStream) -> Result<(), Broken> {
    match stream.read(&mut [0]).await? {
        Some(count) if count > 0 => Err(FrameError::Trailing.into()),
        _ => Ok(()),
    }
}

/// Names one stripe on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) call: u64,
    pub(super) answer: bool,
    pub(super) index: u8,
}

/// Where stripes and the calls that they belong to meet, in either order.
#[derive(Default)]
pub(super) struct Stripes {
    slots: Mutex<HashMap<Key, Slot>>,
}

enum Slot {
    Here { len: u64, stream: RecvStream, since: Instant },
    Wanted(oneshot::Sender<(u64, RecvStream)>),
}

impl Stripes {
    fn slots(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a stripe to the call that waits for it, or keeps it until one does.
    pub(super) fn deposit(&self, key: Key, len: u64, stream: RecvStream) -> Result<(), FrameError> {
        let mut slots = self.slots();
        match slots.entry(key) {
            Entry::Vacant(slot) => {
                slot.insert(Slot::Here { len, stream, since: Instant::now() });
                Ok(())
            }
            Entry::Occupied(slot) => match slot.remove() {
                Slot::Here { .. } => Err(FrameError::Unexpected("a stripe came twice")),
                Slot::Wanted(sender) => {
                    // Who waited may have gone meanwhile; then the stream is dropped, which stops it.
                    let _ = sender.send((len, stream));
                    Ok(())
                }
            },
        }
    }

    /// Waits for a stripe. Its end is the end of the connection or of the caller's patience.
    async fn claim(&self, key: Key) -> Result<(u64, RecvStream), Broken> {
        let receiver = {
            let mut slots = self.slots();
            match slots.entry(key) {
                Entry::Vacant(slot) => {
                    let (sender, receiver) = oneshot::channel();
                    slot.insert(Slot::Wanted(sender));
                    receiver
                }
                Entry::Occupied(slot) => match slot.remove() {
                    Slot::Here { len, stream, .. } => return Ok((len, stream)),
                    Slot::Wanted(sender) => {
                        slots.insert(key, Slot::Wanted(sender));
                        return Err(FrameError::Unexpected("a call came twice").into());
                    }
                },
            }
        };
        let _withdraw = Withdraw { stripes: self, key };
        receiver.await.map_err(|_| Broken::Abandoned)
    }

    /// Drops stripes whose call did not come.
    pub(super) fn sweep(&self) {
        self.slots().retain(|_, slot| match slot {
            Slot::Here { since, .. } => since.elapsed() < limits::STRIPE_CLAIM,
            Slot::Wanted(_) => true,
        });
    }

    /// Drops everything: the connection is gone.
    pub(super) fn clear(&self) {
        self.slots().clear();
    }
}

/// Takes the wish for a stripe back when its call is given up.
struct Withdraw<'a> {
    stripes: &'a Stripes,
    key: Key,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        let mut slots = self.stripes.slots();
        if matches!(slots.get(&self.key), Some(Slot::Wanted(_))) {
            slots.remove(&self.key);
        }
    }
}
