//! The serving side: accepts connections, and answers the calls that come over them.

use std::sync::Arc;

use iroh::endpoint::{Incoming, RecvStream, SendStream};
use tokio::task::JoinSet;
use wire::NodeId;

use super::Shared;
use super::peers::Connected;
use super::transfer::{self, Broken, Key, Sending};
use crate::frame::{Body, FrameError, Head, stripes_for};
use crate::{Message, Refusal, limits, link};

/// Accepts connections until the link is closed.
pub(super) async fn accept(shared: Arc<Shared>) {
    let closed = shared.closed.clone();
    let accepting = async {
        while let Some(incoming) = shared.endpoint.accept().await {
            if shared.peers.is_full() {
                tracing::warn!("refusing a connection: {} are open", limits::CONNECTIONS);
                incoming.refuse();
                continue;
            }
            shared.tasks.spawn(greet(Arc::clone(&shared), incoming));
        }
    };
    tokio::select! {
        () = closed.cancelled() => {}
        () = accepting => {}
    }
}

async fn greet(shared: Arc<Shared>, incoming: Incoming) {
    let handshake = async {
        let accepting = incoming.accept().map_err(|error| error.to_string())?;
        accepting.await.map_err(|error| format!("{error:#}"))
    };
    let connection = tokio::select! {
        () = shared.closed.cancelled() => return,
        connection = tokio::time::timeout(limits::HANDSHAKE, handshake) => connection,
    };
    match connection {
        Ok(Ok(connection)) => {
            let peer = NodeId(*connection.remote_id().as_bytes());
            let connected = Connected::new(peer, connection);
            shared.peers.add(&connected);
            run(shared, connected).await;
        }
        Ok(Err(error)) => tracing::debug!(error, "a handshake failed"),
        Err(_) => tracing::debug!("a handshake took too long"),
    }
}

/// Serves a connection until it ends, then takes it off the list.
pub(super) async fn run(shared: Arc<Shared>, connected: Arc<Connected>) {
    let mut tasks = JoinSet::new();
    tasks.spawn(say_hello(Arc::clone(&connected), shared.life));
    let mut sweep = tokio::time::interval(limits::STRIPE_CLAIM);
    loop {
        tokio::select! {
            () = shared.closed.cancelled() => break,
            stream = connected.connection.accept_bi() => match stream {
                Ok((send, receive)) => {
                    tasks.spawn(serve(Arc::clone(&shared), Arc::clone(&connected), send, receive));
                }
                Err(_) => break,
            },
            stream = connected.connection.accept_uni() => match stream {
                Ok(stream) => {
                    tasks.spawn(take_one_way(Arc::clone(&shared), Arc::clone(&connected), stream));
                }
                Err(_) => break,
            },
            Some(ended) = tasks.join_next() => if let Err(error) = ended && error.is_panic() {
                tracing::error!(peer = connected.peer.short(), "a handler panicked; its caller hears of it");
            },
            _ = sweep.tick() => connected.stripes.sweep(),
        }
    }
    if let Some(reason) = connected.connection.close_reason() {
        tracing::debug!(peer = connected.peer.short(), %reason, "connection ended");
    }
    connected.stripes.clear();
    shared.peers.remove(&connected);
}

async fn say_hello(connected: Arc<Connected>, life: u64) {
    let said = async {
        let mut send = Sending::new(connected.connection.open_uni().await?);
        send.write(&mut [Head::Hello { life }.encode().to_vec().into()]).await?;
        send.finish()
    };
    if let Ok(Err(error)) = tokio::time::timeout(limits::HEAD, said).await {
        tracing::debug!(peer = connected.peer.short(), ?error, "a hello did not arrive");
    }
}

async fn take_one_way(shared: Arc<Shared>, connected: Arc<Connected>, mut stream: RecvStream) {
    let arrival = async {
        match transfer::read_head(&mut stream).await? {
            Head::Stripe { call, answer, index, len } => {
                Ok(connected.stripes.deposit(Key { call, answer, index }, len, stream)?)
            }
            Head::Hello { life } => {
                shared.peers.heard(&connected, life);
                Ok(())
            }
            _ => Err(FrameError::Unexpected("a call's head on a stripe's stream").into()),
        }
    };
    match tokio::time::timeout(limits::HEAD, arrival).await {
        Ok(Err(Broken::Frame(error))) => connected.refuse(&error),
        Err(_) => tracing::debug!(peer = connected.peer.short(), "a stream without a head"),
        Ok(_) => {}
    }
}

/// Answers one call.
async fn serve(shared: Arc<Shared>, connected: Arc<Connected>, send: SendStream, mut receive: RecvStream) {
    let mut send = Sending::new(send);
    let outcome = async {
        let head = tokio::time::timeout(limits::HEAD, transfer::read_head(&mut receive));
        let (body, deadline) = match head.await {
            Err(_) => return Err(Broken::Abandoned),
            Ok(head) => match head? {
                Head::Request { body, deadline } => (body, deadline.min(limits::DEADLINE)),
                _ => return Err(FrameError::Unexpected("not a request at the head of a call").into()),
            },
        };
        let Ok(_turn) = shared.served.try_acquire() else { return Err(Broken::Busy) };
        let gone = send.stopped();
        let work = tokio::time::timeout(deadline, answer(&shared, &connected, &mut receive, body, &mut send));
        tokio::select! {
            worked = work => worked.unwrap_or(Ok(Some(late()))),
            true = gone => Err(Broken::Abandoned),
        }
    };
    let refusal = match outcome.await {
        Ok(None) | Err(Broken::Lost(_) | Broken::Abandoned) => return,
        Ok(Some(refusal)) if refusal.code == Refusal::FOREIGN => {
            tracing::debug!(peer = connected.peer.short(), reason = refusal.reason, "closing the connection");
            return connected.close(refusal.code, link::cut(&refusal.reason));
        }
        Ok(Some(refusal)) => refusal,
        Err(Broken::Busy) => Refusal::new(Refusal::BUSY, "too much in work already: try again later"),
        Err(Broken::Frame(error)) => return connected.refuse(&error),
    };
    let reason = link::cut(&refusal.reason).to_owned();
    let head = Head::Refusal { code: refusal.code, reason: reason.len() };
    let mut chunks = [head.encode().to_vec().into(), reason.into()];
    let refused = async {
        send.write(&mut chunks).await?;
        send.finish()
    };
    if let Ok(Err(error)) = tokio::time::timeout(limits::HEAD, refused).await {
        tracing::debug!(peer = connected.peer.short(), ?error, "a refusal did not arrive");
    }
}

fn late() -> Refusal {
    Refusal::new(Refusal::TOO_LATE, "the call's deadline passed before its answer was ready")
}

/// Receives a request, has it handled, and sends the answer; a refusal is returned and not sent yet.
async fn answer(
    shared: &Shared,
    connected: &Connected,
    receive: &mut RecvStream,
    body: Body,
    send: &mut Sending,
) -> Result<Option<Refusal>, Broken> {
    let message = transfer::receive(shared, connected, receive, body, false).await?;
    shared.meter.received(connected.peer, message.control.len(), message.payload.len());
    let Message { control, payload } = match shared.handler.handle(connected.peer, message).await {
        Ok(message) => message,
        Err(refusal) => return Ok(Some(refusal)),
    };
    let message = Message { control, payload };
    if let Err(error) = link::check_size(&message) {
        return Ok(Some(Refusal::new(Refusal::TOO_LARGE, format!("the answer does not fit: {error}"))));
    }
    let Message { control, payload } = message;
    let stripes = stripes_for(payload.len(), shared.stripes);
    let body = Body { call: body.call, control: control.len(), payload: payload.len() as u64, stripes };
    transfer::send(shared, connected, send, &Head::Answer { body }, body, &control, &payload).await?;
    shared.meter.sent(connected.peer, control.len(), payload.len());
    Ok(None)
}
