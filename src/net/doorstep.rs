//! Connections that came in and are not through the gate yet: how many there may be, and whose place the next one takes.
//!
//! Anybody can connect and then say nothing, and whoever fills the places must not keep members out. So there is always
//! room for the next: it takes the place of another connection from the host that has most of them, of one by chance. To
//! let the first go would be no better than to refuse the last: a stream of newcomers would leave nobody the time to get
//! through.
//!
//! Must not: know what a connection says, or whether it is a member's.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use futures::future::{AbortHandle, AbortRegistration, Abortable};
use libp2p::core::transport::{DialOpts, ListenerId, TransportEvent};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, Transport, TransportError};

use crate::net::inner;

/// Places for connections over TCP. Each costs a file descriptor and some kilobytes.
pub(crate) const STREAMS: usize = 128;
/// Places for connections over QUIC. Fewer, since each may hold what its window admits.
const QUIC: usize = 32;

/// A transport with a limit to what waits at its door.
pub(crate) struct Doorstep<T> {
    inner: T,
    streams: Places,
    quic: Places,
}

impl<T> Doorstep<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, streams: Places::new(STREAMS), quic: Places::new(QUIC) }
    }
}

impl<T> Transport for Doorstep<T>
where
    T: Transport<Error = io::Error> + Unpin,
{
    type Output = T::Output;
    type Error = io::Error;
    type ListenerUpgrade = Guest<T::ListenerUpgrade>;
    type Dial = T::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<T::Dial, TransportError<io::Error>> {
        self.inner.dial(address, options)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let this = &mut *self;
        let event = ready!(Pin::new(&mut this.inner).poll(cx));
        let TransportEvent::Incoming { ref send_back_addr, .. } = event else {
            return Poll::Ready(event.map_upgrade(|work| Guest::new(work, Place::of_nobody())));
        };
        let is_quic = send_back_addr.iter().any(|part| matches!(part, Protocol::QuicV1));
        let places = if is_quic { &mut this.quic } else { &mut this.streams };
        let place = places.admit(host(send_back_addr));
        Poll::Ready(event.map_upgrade(|work| Guest::new(work, place)))
    }
}

/// A connection on its way in. It gives its place back when it is dropped.
pub(crate) struct Guest<F> {
    work: Abortable<Pin<Box<F>>>,
    _here: Arc<()>,
}

impl<F> Guest<F> {
    fn new(work: F, Place { end, here }: Place) -> Self {
        Self { work: Abortable::new(Box::pin(work), end), _here: here }
    }
}

impl<T, F: Future<Output = io::Result<T>>> Future for Guest<F> {
    type Output = io::Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let ended = |_| Err(io::Error::new(io::ErrorKind::ConnectionAborted, "others wait at the door"));
        Pin::new(&mut self.work).poll(cx).map(|done| done.unwrap_or_else(ended))
    }
}

/// What one connection holds of its place.
struct Place {
    end: AbortRegistration,
    here: Arc<()>,
}

impl Place {
    fn of_nobody() -> Self {
        Self { end: AbortHandle::new_pair().1, here: Arc::default() }
    }
}

/// Who is to be counted together: an address, or for IPv6 what one host can choose its addresses from. `None` for what has
/// no address.
type Host = Option<IpAddr>;

fn host(address: &Multiaddr) -> Host {
    match inner::ip(address)? {
        IpAddr::V6(ip) => Some(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into()),
        ip @ IpAddr::V4(_) => Some(ip),
    }
}

struct Occupant {
    host: Host,
    end: AbortHandle,
    here: Weak<()>,
}

/// The places of one kind, and who is there, in the order of coming.
struct Places {
    most: usize,
    occupants: Vec<Occupant>,
    /// Whom it hits cannot be foreseen from outside.
    dice: RandomState,
    thrown: u64,
}

impl Places {
    fn new(most: usize) -> Self {
        Self { most, occupants: Vec::new(), dice: RandomState::new(), thrown: 0 }
    }

    fn admit(&mut self, host: Host) -> Place {
        self.occupants.retain(|one| one.here.strong_count() > 0);
        if self.occupants.len() >= self.most {
            self.make_room(host);
        }
        let (end, registration) = AbortHandle::new_pair();
        let here = Arc::default();
        self.occupants.push(Occupant { host, end, here: Arc::downgrade(&here) });
        Place { end: registration, here }
    }

    /// Ends one of those from the host that will have most when one more has come from `host`.
    fn make_room(&mut self, host: Host) {
        let mut tally = BTreeMap::from([(host, 1_usize)]);
        for one in &self.occupants {
            *tally.entry(one.host).or_default() += 1;
        }
        let most = self.occupants.iter().map(|one| tally[&one.host]).max();
        let crowd: Vec<usize> =
            (0..self.occupants.len()).filter(|at| Some(tally[&self.occupants[*at].host]) == most).collect();
        self.thrown = self.thrown.wrapping_add(1);
        let sides = u64::try_from(crowd.len()).unwrap_or(u64::MAX).max(1);
        let thrown = usize::try_from(self.dice.hash_one(self.thrown) % sides).unwrap_or_default();
        if let Some(at) = crowd.get(thrown) {
            self.occupants.remove(*at).end.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Pending, pending};

    use futures::FutureExt;

    use super::*;

    type Waiting = Guest<Pending<io::Result<()>>>;

    fn come(places: &mut Places, from: &str) -> Waiting {
        Guest::new(pending(), places.admit(host(&from.parse().unwrap())))
    }

    fn is_out(guest: &mut Waiting) -> bool {
        guest.now_or_never().is_some_and(|ended| ended.is_err())
    }

    #[test]
    fn there_is_room_for_the_next_at_the_cost_of_the_host_that_has_most() {
        let mut places = Places::new(4);
        let mut few = come(&mut places, "/ip4/10.0.0.1/tcp/1");
        let mut crowd: Vec<_> = (0..100).map(|n| come(&mut places, &format!("/ip4/10.0.0.2/tcp/{n}"))).collect();
        assert!(!is_out(&mut few));
        let left = crowd.iter_mut().filter_map(|one| (!is_out(one)).then_some(())).count();
        assert_eq!(left, 3);
        assert!(!is_out(crowd.last_mut().unwrap()), "the last has only just come");
        let mut next = come(&mut places, "/ip4/10.0.0.3/tcp/1");
        assert!(!is_out(&mut next) && !is_out(&mut few));
        assert_eq!(places.occupants.len(), 4);
    }

    #[test]
    fn with_one_from_each_host_one_of_them_makes_room() {
        let mut places = Places::new(4);
        let mut all: Vec<_> = (0..100).map(|n| come(&mut places, &format!("/ip4/10.0.0.{n}/tcp/1"))).collect();
        assert_eq!(all.iter_mut().filter_map(|one| (!is_out(one)).then_some(())).count(), 4);
    }

    #[test]
    fn who_is_through_holds_no_place() {
        let mut places = Places::new(2);
        let mut stays = come(&mut places, "/ip4/10.0.0.1/tcp/1");
        for n in 0..100 {
            drop(come(&mut places, &format!("/ip4/10.0.0.1/tcp/{n}")));
        }
        assert!(!is_out(&mut stays) && places.occupants.len() <= 2);
    }

    #[test]
    fn the_addresses_of_one_ipv6_host_count_together() {
        let at = |text: &str| host(&text.parse().unwrap());
        assert_eq!(at("/ip6/fd77::1/tcp/1"), at("/ip6/fd77::2:3/udp/2/quic-v1"));
        assert_ne!(at("/ip6/fd77::1/tcp/1"), at("/ip6/fd77:0:0:1::1/tcp/1"));
        assert_ne!(at("/ip4/10.0.0.1/tcp/1"), at("/ip4/10.0.0.2/tcp/1"));
    }

    #[test]
    fn a_stream_of_newcomers_leaves_many_the_time_to_get_through() {
        let mut places = Places::new(STREAMS);
        let from = "/ip4/10.0.0.1/tcp/1";
        let _silent: Vec<_> = (0..STREAMS).map(|_| come(&mut places, from)).collect();
        let survived = (0..100).filter(|_| {
            let mut member = come(&mut places, from);
            let _others: Vec<_> = (0..STREAMS / 2).map(|_| come(&mut places, from)).collect();
            !is_out(&mut member)
        });
        // Six in ten; one chance in millions that it is less than this.
        assert!(survived.count() > 30);
    }
}
