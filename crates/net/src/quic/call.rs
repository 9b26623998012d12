//! The calling side: finds or makes a connection, sends the request, waits for the answer.

use std::sync::Arc;
use std::time::Duration;

use iroh::endpoint::{ConnectionError, RecvStream};
use tokio::time::Instant;
use wire::NodeId;

use super::peers::{Connected, Lane};
use super::transfer::{self, Broken, Sending};
use super::{ALPN, Shared, serve};
use crate::frame::{Body, Head, stripes_for};
use crate::{LinkError, Message, Refusal, limits};

/// Calls `to`; the caller of this keeps the deadline.
pub(super) async fn call(
    shared: &Arc<Shared>,
    to: NodeId,
    message: Message,
    deadline: Duration,
) -> Result<Message, LinkError> {
    let until = Instant::now() + deadline;
    if to == shared.id {
        return shared
            .handler
            .handle(to, message)
            .await
            .map_err(|refusal| LinkError::Refused { peer: to, refusal });
    }
    let lane = shared.peers.lane(&to);
    let _turn = lane.calls.acquire().await.map_err(|_| LinkError::Closed)?;
    let _turn_of_all = shared.calls.acquire().await.map_err(|_| LinkError::Closed)?;
    let (connected, fresh) = connection(shared, to, &lane).await?;
    match exchange(shared, &connected, &message, until).await {
        Err(Ended::Unsent(_)) if !fresh && !shared.closed.is_cancelled() => {
            // The connection died before the request was out: nobody has handled it, so it may go out once more.
            let (connected, _) = connection(shared, to, &lane).await?;
            exchange(shared, &connected, &message, until).await
        }
        other => other,
    }
    .map_err(|ended| ended.error(shared, to))
}

/// An open connection, and whether it was made for this call.
async fn connection(
    shared: &Arc<Shared>,
    to: NodeId,
    lane: &Lane,
) -> Result<(Arc<Connected>, bool), LinkError> {
    if let Some(connected) = shared.peers.newest(&to) {
        return Ok((connected, false));
    }
    let _connecting = lane.connecting.lock().await;
    if let Some(connected) = shared.peers.newest(&to) {
        return Ok((connected, false));
    }
    Ok((connect(shared, to).await?, true))
}

/// Makes a new connection, whether or not there is one: its hello tells a peer that still waits on one with an earlier
/// life of this node.
pub(super) async fn connect_anew(shared: &Arc<Shared>, to: NodeId) -> Result<(), LinkError> {
    let lane = shared.peers.lane(&to);
    let _connecting = lane.connecting.lock().await;
    connect(shared, to).await.map(drop)
}

async fn connect(shared: &Arc<Shared>, to: NodeId) -> Result<Arc<Connected>, LinkError> {
    let address = shared.peers.address(&to).ok_or(LinkError::UnknownPeer(to))?;
    let unreachable = |reason: String| LinkError::Unreachable { peer: to, reason };
    if shared.peers.is_full() {
        return Err(unreachable(format!("{} connections are open already", limits::CONNECTIONS)));
    }
    let connection = tokio::time::timeout(limits::HANDSHAKE, shared.endpoint.connect(address, ALPN))
        .await
        .map_err(|_| unreachable(format!("no answer within {} s", limits::HANDSHAKE.as_secs())))?
        .map_err(|error| unreachable(format!("{error:#}")))?;
    let connected = Connected::new(to, connection);
    shared.peers.add(&connected);
    shared.tasks.spawn(serve::run(Arc::clone(shared), Arc::clone(&connected)));
    Ok(connected)
}

/// Why an exchange has no answer.
enum Ended {
    /// The request did not get out whole.
    Unsent(Broken),
    /// It did; what became of it is not known.
    Sent(Broken),
    /// The peer refused.
    Refused(Refusal),
    /// The peer's answer breaks the rules; its connection was closed.
    Malformed(String),
}

impl Ended {
    fn error(self, shared: &Shared, peer: NodeId) -> LinkError {
        let unreachable = |reason: &str| LinkError::Unreachable { peer, reason: reason.to_owned() };
        let broken = match self {
            Self::Refused(refusal) => return LinkError::Refused { peer, refusal },
            Self::Malformed(reason) => return LinkError::Malformed { peer, reason },
            Self::Unsent(broken) | Self::Sent(broken) => broken,
        };
        match broken {
            Broken::Lost(ConnectionError::ApplicationClosed(close)) => {
                let code = u16::try_from(close.error_code.into_inner()).unwrap_or(0);
                let reason = String::from_utf8_lossy(&close.reason).into_owned();
                if code >= Refusal::LINK {
                    LinkError::Refused { peer, refusal: Refusal { code, reason } }
                } else {
                    unreachable("it closed the connection")
                }
            }
            Broken::Lost(_) if shared.closed.is_cancelled() => LinkError::Closed,
            Broken::Lost(error) => unreachable(&error.to_string()),
            Broken::Abandoned => unreachable("it gave the call up"),
            Broken::Busy => unreachable("this node is receiving too much already: try again later"),
            Broken::Frame(error) => LinkError::Malformed { peer, reason: error.to_string() },
        }
    }
}

async fn exchange(
    shared: &Shared,
    connected: &Connected,
    message: &Message,
    until: Instant,
) -> Result<Message, Ended> {
    let (send, mut receive) =
        connected.connection.open_bi().await.map_err(|error| Ended::Unsent(error.into()))?;
    let mut send = Sending::new(send);
    let body = Body {
        call: connected.next_call(),
        control: message.control.len(),
        payload: message.payload.len() as u64,
        stripes: stripes_for(message.payload.len(), shared.stripes),
    };
    let head = Head::Request { body, deadline: until.saturating_duration_since(Instant::now()) };
    let answer = {
        let sending =
            transfer::send(shared, connected, &mut send, &head, body, &message.control, &message.payload);
        let answer = transfer::read_head(&mut receive);
        tokio::pin!(sending, answer);
        let mut sent = false;
        // A refusal may come before the request is out; then the rest of the request is given up.
        loop {
            tokio::select! {
                result = &mut sending, if !sent => match result {
                    Ok(()) => {
                        sent = true;
                        shared.meter.sent(connected.peer, message.control.len(), message.payload.len());
                    }
                    Err(Broken::Abandoned) => sent = true,
                    Err(broken) => return Err(Ended::Unsent(broken)),
                },
                answer = &mut answer => break answer,
            }
        }
    };
    match answer {
        Ok(head) => take_answer(shared, connected, &mut receive, head, body.call).await,
        Err(broken) => Err(broken),
    }
    .map_err(|broken| match broken {
        Broken::Frame(error) => {
            connected.refuse(&error);
            Ended::Malformed(error.to_string())
        }
        other => Ended::Sent(other),
    })?
    .map_err(Ended::Refused)
}

async fn take_answer(
    shared: &Shared,
    connected: &Connected,
    receive: &mut RecvStream,
    head: Head,
    call: u64,
) -> Result<Result<Message, Refusal>, Broken> {
    use crate::frame::FrameError::Unexpected;
    match head {
        Head::Answer { body } if body.call == call => {
            let message = transfer::receive(shared, connected, receive, body, true).await?;
            shared.meter.received(connected.peer, message.control.len(), message.payload.len());
            Ok(Ok(message))
        }
        Head::Answer { .. } => Err(Unexpected("an answer to another call").into()),
        Head::Refusal { code, reason } => {
            let reason = transfer::read_reason(receive, reason).await?;
            Ok(Err(Refusal { code, reason }))
        }
        _ => Err(Unexpected("not an answer at the head of an answer").into()),
    }
}
