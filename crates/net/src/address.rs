//! Where a peer can be found: direct addresses and a relay.

use std::fmt;
use std::net::SocketAddr;

use iroh::RelayUrl;
use serde::{Deserialize, Serialize};

use crate::limits;

/// Addresses of one peer. It decodes only within the limits, so a peer cannot hand over a thousand of them.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Plain", into = "Plain")]
pub struct PeerAddress {
    direct: Vec<SocketAddr>,
    relay: Option<RelayUrl>,
}

/// Why addresses are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// More than the limit.
    #[error("{0} direct addresses, at most {limit} are allowed", limit = limits::DIRECT_ADDRESSES)]
    TooMany(usize),
    /// Longer than the limit.
    #[error("relay URL of {0} bytes, at most {limit} are allowed", limit = limits::RELAY_URL_BYTES)]
    LongUrl(usize),
    /// Not a URL.
    #[error("relay URL {url:?}: {reason}; expected http://HOST:PORT")]
    Url {
        /// As given.
        url: String,
        /// Parser's complaint.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Plain {
    direct: Vec<SocketAddr>,
    relay: Option<String>,
}

impl PeerAddress {
    /// From direct addresses and the URL of a relay through which the peer is reached when none of them works.
    pub fn new(direct: Vec<SocketAddr>, relay: Option<&str>) -> Result<Self, AddressError> {
        if direct.len() > limits::DIRECT_ADDRESSES {
            return Err(AddressError::TooMany(direct.len()));
        }
        Ok(Self { direct, relay: relay.map(parse_relay_url).transpose()? })
    }

    /// Addresses of the peer's own sockets.
    pub fn direct(&self) -> &[SocketAddr] {
        &self.direct
    }

    /// Relay that the peer is connected to.
    pub fn relay(&self) -> Option<&str> {
        self.relay.as_ref().map(|url| url.as_str())
    }

    /// Whether there is nowhere to go.
    pub fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.relay.is_none()
    }

    pub(crate) fn relay_url(&self) -> Option<&RelayUrl> {
        self.relay.as_ref()
    }

    /// From the transport's own list; what is over the limit falls off.
    pub(crate) fn from_parts(mut direct: Vec<SocketAddr>, relay: Option<RelayUrl>) -> Self {
        direct.truncate(limits::DIRECT_ADDRESSES);
        let relay = relay.filter(|url| url.as_str().len() <= limits::RELAY_URL_BYTES);
        Self { direct, relay }
    }
}

pub(crate) fn parse_relay_url(url: &str) -> Result<RelayUrl, AddressError> {
    if url.len() > limits::RELAY_URL_BYTES {
        return Err(AddressError::LongUrl(url.len()));
    }
    let refuse = |reason: String| AddressError::Url { url: url.to_owned(), reason };
    let parsed: RelayUrl = url.parse().map_err(|error| refuse(format!("{error}")))?;
    // The parser may write characters out longer; what is kept must decode again.
    if parsed.as_str().len() > limits::RELAY_URL_BYTES {
        return Err(AddressError::LongUrl(parsed.as_str().len()));
    }
    match (parsed.scheme(), parsed.host_str()) {
        ("http" | "https", Some(_)) => Ok(parsed),
        ("http" | "https", None) => Err(refuse("no host".into())),
        (scheme, _) => Err(refuse(format!("scheme {scheme} is not http or https"))),
    }
}

impl TryFrom<Plain> for PeerAddress {
    type Error = AddressError;
    fn try_from(plain: Plain) -> Result<Self, AddressError> {
        Self::new(plain.direct, plain.relay.as_deref())
    }
}

impl From<PeerAddress> for Plain {
    fn from(address: PeerAddress) -> Self {
        Self { direct: address.direct, relay: address.relay.map(|url| url.as_str().to_owned()) }
    }
}

impl fmt::Debug for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.direct.iter().map(ToString::to_string).collect();
        parts.extend(self.relay().map(|url| format!("relay {url}")));
        if parts.is_empty() { f.write_str("no address") } else { f.write_str(&parts.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip_and_keep_their_limits() {
        let direct: Vec<SocketAddr> = vec!["127.0.0.1:4".parse().unwrap(), "[::1]:5".parse().unwrap()];
        let address = PeerAddress::new(direct.clone(), Some("http://10.0.0.1:3340")).unwrap();
        let bytes = wire::to_bytes(&address);
        assert_eq!(wire::from_bytes::<PeerAddress>(&bytes).unwrap(), address);
        assert_eq!(address.to_string(), "127.0.0.1:4, [::1]:5, relay http://10.0.0.1:3340/");

        let many = Plain { direct: vec![direct[0]; limits::DIRECT_ADDRESSES + 1], relay: None };
        assert!(wire::from_bytes::<PeerAddress>(&wire::to_bytes(&many)).is_err());
        for bad in ["", "10.0.0.1:80", "ftp://host", "http://", &format!("http://{}", "x".repeat(400))] {
            let plain = Plain { direct: Vec::new(), relay: Some(bad.to_owned()) };
            assert!(wire::from_bytes::<PeerAddress>(&wire::to_bytes(&plain)).is_err(), "{bad}");
        }
    }
}
