//! Settings of iroh and its QUIC.

use std::net::SocketAddr;
use std::sync::Arc;

use iroh::endpoint::{MtuDiscoveryConfig, QuicTransportConfig, VarInt, presets};
use iroh::{Endpoint, RelayConfig, RelayMap, RelayMode, RelayUrl, SecretKey};
use noq_proto::congestion::{Bbr3Config, CubicConfig};

use super::{ALPN, BindError, Congestion, EndpointOptions};
use crate::limits;

/// Largest datagram tried unless told otherwise, bytes.
pub(super) const DATAGRAM_BYTES: u16 = 1452;

/// Unidirectional streams that a peer may hold open: all stripes of all its calls and answers in flight. With fewer,
/// stripes of one call could keep out those of another that everyone waits for.
const UNI_STREAMS: usize =
    (limits::STRIPES as usize - 1) * (limits::CALLS_PER_PEER + limits::SERVED_PER_PEER);

pub(super) async fn bind(options: &EndpointOptions, relays: Vec<RelayUrl>) -> Result<Endpoint, BindError> {
    let relay_mode = if relays.is_empty() {
        RelayMode::Disabled
    } else {
        // Without address discovery over QUIC: it needs a certificate that a relay inside an orchestrator lacks.
        RelayMode::Custom(relays.into_iter().map(|url| RelayConfig::new(url, None)).collect::<RelayMap>())
    };
    let mut builder = Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&options.key.to_bytes()))
        .alpns(vec![ALPN.to_vec()])
        .relay_mode(relay_mode)
        .clear_address_lookup()
        .transport_config(transport(options))
        .clear_ip_transports();
    if options.bind.is_empty() {
        return Err(BindError::Nothing);
    }
    let failed = |reason: String| failed(&options.bind, reason);
    for address in &options.bind {
        builder = builder.bind_addr(*address).map_err(|error| failed(format!("{error:#}")))?;
    }
    builder.bind().await.map_err(|error| failed(format!("{error:#}")))
}

fn failed(bind: &[SocketAddr], reason: String) -> BindError {
    let lower = reason.to_lowercase();
    if lower.contains("in use") || lower.contains("os error 98") {
        BindError::InUse(bind.to_vec())
    } else {
        BindError::Transport { bind: bind.to_vec(), reason }
    }
}

fn transport(options: &EndpointOptions) -> QuicTransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(options.datagram_bytes);
    let builder = QuicTransportConfig::builder()
        .max_concurrent_bidi_streams(VarInt::from_u32(limits::SERVED_PER_PEER as u32))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS as u32))
        .receive_window(VarInt::from_u32(limits::CONNECTION_WINDOW_BYTES))
        .max_idle_timeout(Some(limits::IDLE.try_into().expect("seconds fit a variable-length integer")))
        .keep_alive_interval(limits::KEEP_ALIVE)
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(mtu));
    match options.controller() {
        Congestion::Cubic => builder.congestion_controller_factory(Arc::new(CubicConfig::default())),
        Congestion::Bbr3 => builder.congestion_controller_factory(Arc::new(Bbr3Config::default())),
    }
    .build()
}
