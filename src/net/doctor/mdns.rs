//! Multicast DNS: asks as a node would, on sockets set up as libp2p's are, and listens for its own question.
//!
//! What comes back has passed this host's firewall both ways, and the interface. That the network passes it on shows only if
//! somebody else answers. A question tells nobody of a node: neighbours answer it as they answer each other's, and that is all.

mod sockets;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, interval, timeout_at};

use self::sockets::{Interface, interfaces};
use super::{Finding, Probe, listed};
use crate::net::files;
use crate::net::holder::Holder;

const PORT: u16 = 5353;
/// How long to listen, if not everything was heard before.
const LISTEN: Duration = Duration::from_secs(2);
/// How long to listen for the answers of others.
const OTHERS: Duration = Duration::from_millis(700);
/// How often to ask: a packet may get lost.
const AGAIN: Duration = Duration::from_millis(400);
/// What libp2p's nodes ask for, as it stands in a packet.
const NAME: &[u8] = b"\x04_p2p\x04_udp\x05local\x00";

/// One family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Ip4,
    Ip6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::Ip4 => "IPv4",
            Self::Ip6 => "IPv6",
        }
    }

    fn has(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::Ip4)
    }

    /// Multicast DNS' group.
    fn group(self) -> SocketAddr {
        match self {
            Self::Ip4 => ([224, 0, 0, 251], PORT).into(),
            Self::Ip6 => ([0xff02, 0, 0, 0, 0, 0, 0, 0xfb], PORT).into(),
        }
    }
}

/// What was seen of one family.
#[derive(Debug)]
struct Seen {
    family: Family,
    /// Those with an address of the family; loopback is none.
    interfaces: Vec<Interface>,
    /// Port 5353 can be listened on.
    port: io::Result<()>,
    ways: Vec<Way>,
    /// Hosts that answered.
    others: BTreeSet<IpAddr>,
}

/// One way out of this host.
#[derive(Debug)]
struct Way {
    /// Which, for people.
    name: String,
    /// Whether the question came back, or why it could not be asked.
    heard: io::Result<bool>,
}

/// Asks in both families at once.
pub(crate) async fn probe(on: bool) -> Vec<Finding> {
    if !on {
        return vec![Finding::not_tried(Probe::Mdns, "", "switched off")];
    }
    let interfaces = match interfaces() {
        Ok(interfaces) => interfaces,
        Err(error) => return vec![Finding::not_tried(Probe::Mdns, "", format!("cannot list interfaces: {error}"))],
    };
    let (four, six) = tokio::join!(ask(Family::Ip4, &interfaces), ask(Family::Ip6, &interfaces));
    vec![judge(&four), judge(&six)]
}

async fn ask(family: Family, interfaces: &[Interface]) -> Seen {
    let own: Vec<_> = interfaces.iter().filter(|interface| family.has(interface.ip)).cloned().collect();
    let mut seen = Seen { family, interfaces: own, port: Ok(()), ways: Vec::new(), others: BTreeSet::new() };
    if seen.interfaces.is_empty() {
        return seen;
    }
    match sockets::receiver(family) {
        Ok(receiver) => listen(&mut seen, &receiver).await,
        Err(error) => seen.port = Err(error),
    }
    seen
}

/// A socket to ask on, and what came of it so far.
struct Asker {
    socket: UdpSocket,
    port: u16,
    /// Of whose answers it is known; in IPv6 the system picks.
    ip: Option<IpAddr>,
    way: usize,
}

async fn listen(seen: &mut Seen, receiver: &UdpSocket) {
    let mut askers = Vec::new();
    for (name, interface) in ways_out(seen.family, &seen.interfaces) {
        let way = seen.ways.len();
        let opened = sockets::asker(seen.family, receiver, interface);
        let heard = opened.and_then(|socket| {
            let port = socket.local_addr()?.port();
            askers.push(Asker { socket, port, ip: interface, way });
            Ok(false)
        });
        seen.ways.push(Way { name, heard });
    }
    let Ok(question) = question() else { return };
    let start = Instant::now();
    let mut again = interval(AGAIN);
    let mut buffer = vec![0; 9_000];
    loop {
        let all_heard = seen.ways.iter().all(|way| !matches!(way.heard, Ok(false)));
        let until = start + if all_heard { OTHERS } else { LISTEN };
        // On a network that is never quiet there is always something to read.
        if Instant::now() >= until {
            return;
        }
        tokio::select! {
            received = timeout_at(until, receiver.recv_from(&mut buffer)) => match received {
                Ok(Ok((length, from))) => seen.note(&askers, &buffer[..length], &question, from),
                Ok(Err(_)) => {}
                Err(_) => return,
            },
            _ = again.tick() => {
                for asker in &askers {
                    let sent = asker.socket.send_to(&question, seen.family.group()).await;
                    let way = &mut seen.ways[asker.way];
                    if let (Err(error), Ok(false)) = (sent, &way.heard) {
                        way.heard = Err(error);
                    }
                }
            }
        }
    }
}

/// In IPv4 each address has a socket. In IPv6 libp2p leaves the interface to the system, and so there is one way.
fn ways_out(family: Family, interfaces: &[Interface]) -> Vec<(String, Option<IpAddr>)> {
    match family {
        Family::Ip4 => interfaces.iter().map(|one| (one.to_string(), Some(one.ip))).collect(),
        Family::Ip6 => vec![("the interface that the system picks".to_owned(), None)],
    }
}

impl Seen {
    fn note(&mut self, askers: &[Asker], packet: &[u8], question: &[u8], from: SocketAddr) {
        let is_own = self.interfaces.iter().any(|interface| interface.ip == from.ip());
        if packet == question && is_own {
            let asked = |asker: &&Asker| asker.port == from.port() && asker.ip.is_none_or(|ip| ip == from.ip());
            if let Some(asker) = askers.iter().find(asked) {
                let way = &mut self.ways[asker.way];
                way.heard = Ok(true);
                if asker.ip.is_none()
                    && let Some(interface) = self.interfaces.iter().find(|interface| interface.ip == from.ip())
                {
                    way.name = interface.to_string();
                }
            }
        } else if is_answer(packet) && !is_own {
            self.others.insert(from.ip());
        }
    }
}

/// As libp2p asks.
fn question() -> io::Result<Vec<u8>> {
    let mut packet = files::random::<2>()?.to_vec();
    // No flags, and one question: who has this name (PTR), in the class IN?
    packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    packet.extend(NAME);
    packet.extend([0, 12, 0, 1]);
    Ok(packet)
}

/// Whether a node of libp2p's answers.
fn is_answer(packet: &[u8]) -> bool {
    packet.get(2).is_some_and(|flags| flags & 0x80 != 0) && packet.windows(NAME.len()).any(|part| part == NAME)
}

const ELSEWHERE: &str = "nodes of one machine find each other without it, and others can be named with --peer or --dns";

fn judge(seen: &Seen) -> Finding {
    let family = seen.family.name();
    let fails = |detail: String| Finding::fails(Probe::Mdns, family, detail);
    if seen.interfaces.is_empty() {
        return fails(format!("no interface but loopback has an address of {family}")).remedy(ELSEWHERE);
    }
    if let Err(error) = &seen.port {
        return port_taken(seen.family, error);
    }
    let mute: Vec<_> = seen.interfaces.iter().filter(|one| !one.multicast).map(|one| one.name.clone()).collect();
    if mute.len() == seen.interfaces.len() {
        let detail = format!("no interface passes multicast: {}", listed(mute.into_iter()));
        return fails(detail).remedy(ELSEWHERE);
    }
    let mute_note =
        if mute.is_empty() { String::new() } else { format!("; no multicast on {}", listed(mute.into_iter())) };
    let heard: Vec<_> =
        seen.ways.iter().filter(|way| matches!(way.heard, Ok(true))).map(|way| way.name.clone()).collect();
    let deaf: Vec<_> = seen.ways.iter().filter_map(why_not).collect();
    if heard.is_empty() {
        let forbids = "let UDP port 5353 in and out, to that group too";
        return fails(format!("{}{mute_note}", listed(deaf.into_iter()))).remedy(format!("{forbids}; {ELSEWHERE}"));
    }
    let others = match seen.others.len() {
        0 => "; no other host answered".to_owned(),
        _ => format!(
            "; answers from {}",
            listed(seen.others.iter().map(ToString::to_string).collect::<Vec<_>>().into_iter())
        ),
    };
    let deaf = if deaf.is_empty() { String::new() } else { format!("; {}", listed(deaf.into_iter())) };
    let heard = listed(heard.into_iter());
    Finding::works(Probe::Mdns, family, format!("a question is heard again on {heard}{deaf}{mute_note}{others}"))
}

fn why_not(way: &Way) -> Option<String> {
    match &way.heard {
        Ok(true) => None,
        Ok(false) => Some(format!("what is sent on {} is not heard again: a firewall may drop it", way.name)),
        Err(error) => Some(format!("nothing can be sent on {}: {error}", way.name)),
    }
}

fn port_taken(family: Family, error: &io::Error) -> Finding {
    let fails = |detail: String| Finding::fails(Probe::Mdns, family.name(), detail);
    if error.kind() == io::ErrorKind::AddrInUse {
        let any: IpAddr = if family == Family::Ip4 { [0; 4].into() } else { [0; 16].into() };
        let holder = Holder::of_port(SocketAddr::new(any, PORT), true);
        let holder = holder.map_or_else(|| "another program".to_owned(), |holder| holder.to_string());
        return fails(format!("{holder} has UDP port {PORT} and does not share it"))
            .remedy(format!("stop it, or let it share the port (SO_REUSEADDR); {ELSEWHERE}"));
    }
    fails(format!("cannot listen on UDP port {PORT}: {error}")).remedy(ELSEWHERE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::doctor::Verdict;

    fn interface(name: &str, multicast: bool) -> Interface {
        Interface { name: name.to_owned(), ip: [10, 0, 0, 1].into(), multicast }
    }

    fn seen(interfaces: Vec<Interface>, ways: Vec<io::Result<bool>>) -> Seen {
        let ways = ways.into_iter().zip(1..).map(|(heard, number)| Way { name: format!("eth{number}"), heard });
        Seen { family: Family::Ip4, interfaces, port: Ok(()), ways: ways.collect(), others: BTreeSet::new() }
    }

    fn error() -> io::Error {
        io::ErrorKind::PermissionDenied.into()
    }

    #[test]
    fn one_interface_on_which_it_is_heard_is_enough() {
        let found = judge(&seen(vec![interface("eth1", true)], vec![Ok(true)]));
        assert_eq!(found.verdict, Verdict::Works);
        assert_eq!(found.detail, "a question is heard again on eth1; no other host answered");

        let mut both = seen(vec![interface("eth1", true), interface("wg0", false)], vec![Ok(true), Ok(false)]);
        both.others.insert([10, 0, 0, 2].into());
        let found = judge(&both);
        assert_eq!(found.verdict, Verdict::Works);
        for said in ["on eth1;", "sent on eth2 is not heard again", "no multicast on wg0", "answers from 10.0.0.2"] {
            assert!(found.detail.contains(said), "{said}: {found:?}");
        }
    }

    #[test]
    fn why_it_does_not_work_is_said() {
        let in_use = || Seen { port: Err(io::ErrorKind::AddrInUse.into()), ..seen(vec![interface("a", true)], vec![]) };
        let one = || vec![interface("eth1", true)];
        for (seen, said) in [
            (seen(vec![], vec![]), "no interface but loopback"),
            (in_use(), "has UDP port 5353 and does not share it"),
            (Seen { port: Err(error()), ..in_use() }, "cannot listen on UDP port 5353"),
            (seen(vec![interface("wg0", false)], vec![Ok(true)]), "no interface passes multicast: wg0"),
            (seen(one(), vec![Ok(false)]), "is not heard again: a firewall may drop it"),
            (seen(one(), vec![Err(error())]), "nothing can be sent on eth1"),
        ] {
            let found = judge(&seen);
            assert!(
                found.verdict == Verdict::Fails && !found.vital && found.detail.contains(said),
                "{said}: {found:?}"
            );
            assert!(found.remedy.as_ref().is_some_and(|remedy| remedy.contains("--peer")), "{found:?}");
        }
    }

    #[test]
    fn only_what_was_asked_here_and_answers_of_others_count() {
        let asked = question().unwrap();
        let mut answer = asked.clone();
        answer[2] = 0x84;
        assert!(is_answer(&answer) && !is_answer(&asked) && !is_answer(&[0, 0, 0x84]) && !is_answer(&[]));

        let mut seen = seen(vec![interface("eth1", true)], vec![Ok(false)]);
        seen.note(&[], &answer, &asked, ([10, 0, 0, 1], 5353).into());
        assert!(seen.others.is_empty(), "a node of this host");
        seen.note(&[], &asked, &asked, ([10, 0, 0, 2], 5353).into());
        assert!(seen.others.is_empty(), "no answer");
        seen.note(&[], &answer, &asked, ([10, 0, 0, 2], 5353).into());
        assert_eq!(seen.others.len(), 1);
        assert!(matches!(seen.ways[0].heard, Ok(false)));
    }
}
