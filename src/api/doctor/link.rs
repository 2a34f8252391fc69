//! Two nodes on loopback, in a mesh of their own, that link up and talk.

use std::time::Duration;

use futures::StreamExt;
use libp2p::Multiaddr;
use tokio::time::{Instant, timeout};

use crate::api::Node;
use crate::config::Config;
use crate::error::StartError;
use crate::net::access::MeshAccess;
use crate::net::doctor::{Finding, Probe, one_is_vital};
use crate::net::{self, doctor};
use crate::topic::{Service, Topic};

const HELLO: Topic<String> = Topic::new("doctor.hello");
const ECHO: Service<String, String> = Service::new("doctor.echo");
/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A way between two nodes: its name, and where to listen, in IPv4 and, on a host without that, IPv6.
type Way = (&'static str, [&'static str; 2]);

const TCP: Way = ("TCP", ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"]);
const QUIC: Way = ("QUIC", ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip6/::1/udp/0/quic-v1"]);

/// How long things took.
struct Times {
    link: Duration,
    message: Duration,
    request: Duration,
}

/// Tries each transport. A node gets by with one.
pub(super) async fn probe() -> Vec<Finding> {
    let (tcp, quic) =
        tokio::join!(over(TCP), async { if cfg!(feature = "quic") { Some(over(QUIC).await) } else { None } });
    one_is_vital([tcp].into_iter().chain(quic).collect())
}

async fn over((name, addresses): Way) -> Finding {
    match talk(addresses).await {
        Ok(Times { link, message, request }) => {
            let [link, message, request] = [link, message, request].map(|time| time.as_secs_f64() * 1000.0);
            let detail = format!("linked in {link:.1} ms, a message took {message:.1} ms, a request {request:.1} ms");
            Finding::works(Probe::Link, name, detail)
        }
        Err(why) => {
            let remedy = "see that loopback is up (ip address show lo), and that no firewall stands on it";
            Finding::fails(Probe::Link, name, format!("two nodes on loopback do not talk: {why}")).remedy(remedy)
        }
    }
}

async fn talk(addresses: [&str; 2]) -> Result<Times, String> {
    let access = doctor::secret_mesh().map_err(|error| error.to_string())?;
    let (provider, listen) = provider(&access, addresses).await?;
    let answering = provider.serve(ECHO).with(|text| async { Ok(text) }).await;
    let _answering = answering.map_err(|error| error.to_string())?;

    let start = Instant::now();
    let config = Config { listen: vec![listen], peers: provider.addresses(), ..alone() };
    let asker = net::start_in(access, config).await.map_err(|error| error.to_string())?;
    in_time("a link", asker.ready(1)).await?.map_err(|error| error.to_string())?;
    let link = start.elapsed();

    let mut hellos =
        in_time("a subscription", asker.subscribe(HELLO).into_future()).await?.map_err(|e| e.to_string())?;
    let mut message = Duration::ZERO;
    // The first waits until the subscription is known at the other node.
    for text in ["first", "second"] {
        let start = Instant::now();
        let publish = provider.publish(HELLO, &text.to_owned()).min_peers(1).timeout(PATIENCE);
        publish.await.map_err(|error| error.to_string())?;
        let arrived = in_time("a message", hellos.next()).await?.ok_or("the subscription ended")?;
        if *arrived.map_err(|error| error.to_string())? != text {
            return Err("another message arrived than was sent".to_owned());
        }
        message = start.elapsed();
    }
    let start = Instant::now();
    let reply = asker.request(ECHO, &"echo".to_owned()).timeout(PATIENCE).await.map_err(|error| error.to_string())?;
    if *reply != "echo" {
        return Err("another answer arrived than was sent".to_owned());
    }
    Ok(Times { link, message, request: start.elapsed() })
}

/// A node that listens at the first of these addresses that there is.
async fn provider(access: &MeshAccess, addresses: [&str; 2]) -> Result<(Node, Multiaddr), String> {
    let mut reason = String::new();
    for address in addresses {
        let listen: Multiaddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
        match net::start_in(access.clone(), Config { listen: vec![listen.clone()], ..alone() }).await {
            Ok(node) => return Ok((node, listen)),
            Err(error @ StartError::Listen { .. }) => reason = error.to_string(),
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(reason)
}

/// A node that looks for nobody.
fn alone() -> Config {
    Config { mdns: false, local: false, ..Config::default() }
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> Result<T, String> {
    let late = |_| format!("{what} did not come within {} s", PATIENCE.as_secs());
    timeout(PATIENCE, work).await.map_err(late)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::doctor::Verdict;

    #[tokio::test]
    async fn a_transport_that_cannot_be_opened_is_told() {
        // Addresses for documentation: no interface has them.
        let found = over(("TCP", ["/ip4/192.0.2.1/tcp/0", "/ip6/2001:db8::1/tcp/0"])).await;
        assert!(found.verdict == Verdict::Fails && found.remedy.is_some(), "{found:?}");
        assert!(found.detail.contains("no interface has that address"), "{found:?}");
    }
}
