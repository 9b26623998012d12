//! The socket: bounded connections, deadlines for the head of a request and for readers, a quiet end.

use std::sync::Arc;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::patient::Patient;
use super::{App, routes};
use crate::host::HostError;
use crate::limits;

/// Serves the arena until `stop`.
pub(crate) async fn listen(
    listener: TcpListener,
    app: Arc<App>,
    stop: CancellationToken,
) -> Result<(), HostError> {
    serve(listener, routes::service(app), limits::CONNECTIONS, stop).await;
    Ok(())
}

/// Serves some routes until `stop`, so many connections at a time.
pub(crate) async fn serve(
    listener: TcpListener,
    service: Router,
    connections_max: usize,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    let mut connections = JoinSet::new();
    loop {
        // A full house does not accept; whoever knocks waits in the system's queue.
        let place = Arc::clone(&places).acquire_owned().await;
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file handles, or a peer that left: the next one may work.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(limits::RETRY_MIN).await;
                continue;
            }
        };
        drop(stream.set_nodelay(true));
        let stream = Patient::new(stream, limits::WRITE_STALL, limits::WRITE_LEAST_BYTES);
        let (service, stop) = (TowerToHyperService::new(service.clone()), stop.clone());
        connections.spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits::HEAD_TIMEOUT)
                .max_buf_size(limits::HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::time::timeout(limits::CLOSE, connection).await.unwrap_or(Ok(()))
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended");
            }
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
    drop(
        tokio::time::timeout(limits::CLOSE, async { while connections.join_next().await.is_some() {} }).await,
    );
}
