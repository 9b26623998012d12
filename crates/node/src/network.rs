//! How a node that joins with a ticket is on the network.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use net::{BindError, Congestion, EndpointOptions, Handler, Link as _, QuicLink, Ticket};
use wire::SigningKey;

use crate::limits;

/// Its sockets, and how it sends.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// Sockets to listen on; empty: all interfaces, a free port.
    pub bind: Vec<SocketAddr>,
    /// Most bytes sent per second.
    pub upload: Option<NonZeroU64>,
    /// How sending adapts to the path; none: by the sockets.
    pub congestion: Option<Congestion>,
}

impl Network {
    /// Opens an endpoint that knows the orchestrator of `ticket`, and waits for its relay if there is one.
    pub(crate) async fn join(
        self,
        key: SigningKey,
        ticket: &Ticket,
        handler: Arc<dyn Handler>,
    ) -> Result<QuicLink, BindError> {
        let mut endpoint = EndpointOptions::new(key);
        if !self.bind.is_empty() {
            endpoint.bind = self.bind;
        }
        endpoint.upload_limit = self.upload;
        endpoint.congestion = self.congestion;
        endpoint.relays = ticket.address.relay().map(str::to_owned).into_iter().collect();
        let relayed = !endpoint.relays.is_empty();
        let link = QuicLink::bind(endpoint, handler).await?;
        link.learn(ticket.node, ticket.address.clone());
        if relayed {
            link.reached_relay(limits::RELAY_START).await;
        }
        Ok(link)
    }
}
