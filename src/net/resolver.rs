//! The resolver: looks names up when the mesh asks for it, as the system does.
//!
//! The system's own resolver heeds the hosts file, search domains and whatever else the host is set up with, in containers
//! too, and costs no dependency; libp2p's DNS transport brings a second resolver that knows half of that, and would hide from
//! the mesh how many addresses there are.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use libp2p::Multiaddr;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::mesh::event::{Input, NameId};

/// A name that the mesh wants looked up.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) name: NameId,
    pub(crate) host: String,
}

/// Answers until the driver is gone. Names do not wait for each other.
pub(crate) async fn run(mut questions: mpsc::Receiver<Question>, answers: mpsc::Sender<Input>) {
    let mut looking = FuturesUnordered::new();
    let mut failing = BTreeSet::new();
    loop {
        let (Question { name, host }, found) = tokio::select! {
            question = questions.recv() => match question {
                Some(question) => {
                    looking.push(answered(question));
                    continue;
                }
                None => return,
            },
            Some(answer) = looking.next() => answer,
        };
        let ips = match found {
            Ok(ips) => {
                if failing.remove(&name) {
                    info!(name = host, addresses = ips.len(), "the name can be looked up again");
                }
                Some(ips)
            }
            Err(error) => {
                // Once, and not every ten seconds: it goes on being asked for.
                if failing.insert(name) {
                    warn!(name = host, %error, "cannot look the name up; it is asked for again every 10 s");
                }
                None
            }
        };
        if answers.send(Input::Resolved { name, ips }).await.is_err() {
            return;
        }
    }
}

async fn answered(question: Question) -> (Question, io::Result<Vec<Multiaddr>>) {
    let found = look_up(&question.host).await;
    (question, found)
}

/// All addresses of a host, IPv4 and IPv6.
///
/// In a thread of its own: the system gives up only after half a minute if its name servers do not answer, and a program that
/// ends would have to wait for a thread of tokio's. The mesh asks for a name again only after the answer, so there is at
/// most one such thread for each.
pub(super) async fn look_up(host: &str) -> io::Result<Vec<Multiaddr>> {
    let (answer, answered) = oneshot::channel();
    let host = host.to_owned();
    std::thread::Builder::new().name("pombo-dns".to_owned()).spawn(move || {
        let found = (host.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect());
        // Nobody waits any more when the node has ended.
        let _ = answer.send(found);
    })?;
    let found: BTreeSet<IpAddr> = answered.await.map_err(io::Error::other)??;
    Ok(found.into_iter().map(Multiaddr::from).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_the_system_knows_is_found_and_what_it_does_not_is_said_so() {
        let found = timeout(SOON, look_up("localhost")).await.unwrap().unwrap();
        let loopback: Multiaddr = "/ip4/127.0.0.1".parse().unwrap();
        assert!(found.contains(&loopback) || found.contains(&"/ip6/::1".parse().unwrap()), "{found:?}");

        let (questions, asked) = mpsc::channel(2);
        let (told, mut answers) = mpsc::channel(2);
        let answering = async {
            questions.send(Question { name: NameId(3), host: "pombo.invalid".into() }).await.unwrap();
            questions.send(Question { name: NameId(4), host: "localhost".into() }).await.unwrap();
            let mut resolved = Vec::new();
            while resolved.len() < 2 {
                let Some(Input::Resolved { name, ips }) = answers.recv().await else { panic!("no answer") };
                resolved.push((name, ips.is_some()));
            }
            resolved.sort_unstable();
            assert_eq!(resolved, [(NameId(3), false), (NameId(4), true)]);
            drop(questions);
        };
        timeout(SOON, futures::future::join(run(asked, told), answering)).await.expect("it ends with its driver");
    }
}
