//! DNS names that stand for nodes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most bytes of a DNS name, and of one of its labels.
const MAX_HOST: usize = 253;
const MAX_LABEL: usize = 63;

/// A DNS name and the port that the nodes at all of its addresses listen on, such as that of a Kubernetes headless service.
///
/// ```
/// use pombo::{DnsName, DnsNameError};
/// let orders: DnsName = "orders.prod.svc:7662".parse()?;
/// assert_eq!((orders.host(), orders.port()), ("orders.prod.svc", 7662));
/// assert_eq!("orders".parse::<DnsName>(), Err(DnsNameError::NoPort { text: "orders".to_owned() }));
/// # Ok::<(), DnsNameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DnsName {
    host: String,
    port: u16,
}

/// Why a text is no DNS name with a port. [`DnsName`] has an example.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DnsNameError {
    /// There is no colon with a port behind it.
    #[error("\"{text}\" has no port: write it as NAME:PORT, such as orders.prod.svc:7662")]
    NoPort {
        /// The whole text.
        text: String,
    },
    /// What stands behind the colon is no port.
    #[error("\"{port}\" is no port: write a number from 1 to 65535 after the colon")]
    BadPort {
        /// What stands there.
        port: String,
    },
    /// What stands before the colon is no host name.
    #[error("\"{host}\" is no host name: labels of A-Z a-z 0-9 - _ with dots between them")]
    BadHost {
        /// What stands there.
        host: String,
    },
    /// It is an address, which needs no looking up.
    #[error("\"{host}\" is an address and no name: give it as a peer, {multiaddr}")]
    Address {
        /// What stands there.
        host: String,
        /// How a peer at that address is written.
        multiaddr: String,
    },
}

impl DnsName {
    /// What is looked up.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Where the nodes listen, TCP and QUIC alike.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for DnsName {
    type Err = DnsNameError;

    fn from_str(text: &str) -> Result<Self, DnsNameError> {
        if let Ok(address) = text.parse::<std::net::SocketAddr>() {
            let (family, port) = (if address.is_ipv4() { "ip4" } else { "ip6" }, address.port());
            let host = address.ip().to_string();
            return Err(DnsNameError::Address { multiaddr: format!("/{family}/{host}/tcp/{port}"), host });
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| DnsNameError::NoPort { text: text.to_owned() })?;
        let number = port.parse().ok().filter(|number| *number > 0 && !port.starts_with('+'));
        let port = number.ok_or_else(|| DnsNameError::BadPort { port: port.to_owned() })?;
        if !is_host(host) {
            return Err(DnsNameError::BadHost { host: host.to_owned() });
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

/// Whether this can be looked up. Underscores are no part of host names by the letter, and found in many.
pub(crate) fn is_host(text: &str) -> bool {
    // A dot at the end keeps the system from appending its search domains.
    let labels = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let dashed = label.starts_with('-') || label.ends_with('-');
        (1..=MAX_LABEL).contains(&label.len()) && !dashed && label.bytes().all(allowed)
    };
    // The system takes "10.1" and even "1" for addresses.
    let numeric = labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    labels.len() <= MAX_HOST && !numeric && labels.split('.').all(is_label)
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl TryFrom<String> for DnsName {
    type Error = DnsNameError;

    fn try_from(text: String) -> Result<Self, DnsNameError> {
        text.parse()
    }
}

impl From<DnsName> for String {
    fn from(name: DnsName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_they_are_read() {
        for text in
            ["a:1", "orders.prod.svc.cluster.local:7662", "my_app.:65535", "xn--bcher-kva.example:80", "0x.a1:5"]
        {
            assert_eq!(text.parse::<DnsName>().map(|name| name.to_string()), Ok(text.to_owned()));
        }
        let json = serde_json::from_str::<DnsName>("\"a:0\"").unwrap_err().to_string();
        assert!(json.contains("65535"), "{json}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_remedy() {
        let said = |text: &str| text.parse::<DnsName>().unwrap_err().to_string();
        for text in ["", "orders", "orders.svc"] {
            assert!(said(text).contains("NAME:PORT"), "{text}: {}", said(text));
        }
        for text in ["orders:", "orders:0", "orders:65536", "orders:-1", "orders:+1", "orders:http"] {
            assert!(said(text).contains("is no port"), "{text}: {}", said(text));
        }
        let long = format!("{}:1", "a".repeat(64));
        let longer = format!("{}a:1", "a.".repeat(127));
        for text in [":1", ".:1", "a..b:1", "-a:1", "a-:1", "bücher:1", "a b:1", "/dns/a:1", "10.1:1", "1:1", "a:b:1"]
        {
            assert!(said(text).contains("is no host name"), "{text}: {}", said(text));
        }
        assert!(said(&long).contains("is no host name") && said(&longer).contains("is no host name"));
        assert!(said("10.0.0.1:80").ends_with("/ip4/10.0.0.1/tcp/80"));
        assert!(said("[::1]:80").ends_with("/ip6/::1/tcp/80"));
    }
}
