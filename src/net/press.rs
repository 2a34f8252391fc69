//! Where publishers and the signer meet: frames are built in the publishers' tasks, and signed in a task of their own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libp2p::identity::Keypair;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tracing::error;

use crate::error::{Closed, PublishError};
use crate::mesh::dispatch::{Dispatch, Taken};
use crate::mesh::event::{Input, Signed, Unsigned, Via};
use crate::mesh::outgoing::{Appended, Draft, Refused};
use crate::mesh::routes::{Routes, Target};
use crate::net::clock::Clock;
use crate::net::hub::Hub;
use crate::net::lanes::Table;
use crate::payload::PayloadError;
use crate::wire::MeshId;
use crate::wire::frame::Frame;
use crate::wire::{builder, custody};

/// How long the last frames of a node that ends are waited for.
pub(crate) const LAST_FRAMES: Duration = Duration::from_secs(1);

/// The frames of this node that are not signed yet, shared by all its publishers.
#[derive(Debug)]
pub(crate) struct Press {
    tray: Mutex<Tray>,
    lanes: Table,
    clock: Clock,
    /// Something can be signed.
    ready: Notify,
    /// Something was taken out.
    room: Notify,
    /// Frames that were taken out and are not with the mesh yet.
    signing: AtomicUsize,
}

#[derive(Debug)]
struct Tray {
    dispatch: Dispatch,
    /// Messages that were accepted and are in no frame that was taken out.
    messages: u64,
    /// Under the same lock as the frames: what is accepted before it closes is there for whoever sees out what is left.
    door: Door,
}

/// Whether more is accepted, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Door {
    Open,
    Draining,
    Closed,
}

impl Press {
    pub(crate) fn new(dispatch: Dispatch, clock: Clock, lanes: Table) -> Self {
        let tray = Mutex::new(Tray { dispatch, messages: 0, door: Door::Open });
        Self { tray, lanes, clock, ready: Notify::new(), room: Notify::new(), signing: AtomicUsize::new(0) }
    }

    /// Appends a message, as soon as there is room.
    pub(crate) async fn append(&self, draft: &Draft<'_>) -> Result<Appended, PublishError> {
        let appended = match self.put(draft)? {
            Some(appended) => appended,
            None => self.put_when_there_is_room(draft).await?,
        };
        // A publisher that always finds room must not keep the node's own tasks from running. Only now: of several that are
        // polled together, each has its place by now.
        tokio::task::coop::consume_budget().await;
        Ok(appended)
    }

    async fn put_when_there_is_room(&self, draft: &Draft<'_>) -> Result<Appended, PublishError> {
        loop {
            // Registered before looking, so that room made in between is not missed.
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if let Some(appended) = self.put(draft)? {
                return Ok(appended);
            }
            room.await;
        }
    }

    /// `None` if there is no room.
    fn put(&self, draft: &Draft<'_>) -> Result<Option<Appended>, PublishError> {
        let now = Clock::wall();
        let mut tray = self.tray();
        match tray.door {
            Door::Open => {}
            Door::Draining => return Err(PublishError::Draining),
            Door::Closed => return Err(Closed.into()),
        }
        let appended = match tray.dispatch.outgoing.append(draft, now) {
            Ok(appended) => appended,
            Err(Refused::Full) => return Ok(None),
            Err(Refused::Codec(reason)) => return Err(PublishError::Encode(PayloadError::new(reason))),
        };
        tray.messages += 1;
        drop(tray);
        // Behind others of its shard it changes nothing: either the signer is about to take them, or it has left them for
        // want of leave or of room, and is told when there is any.
        if appended.is_first {
            self.ready.notify_one();
        }
        Ok(Some(appended))
    }

    /// Lets frames of a shard go up to this sequence number.
    pub(crate) fn allow(&self, shard: u8, sequence: u64) {
        self.tray().dispatch.outgoing.allow(shard, sequence);
        self.ready.notify_one();
    }

    /// From now on these are the ways that frames take.
    pub(crate) fn set_routes(&self, routes: Arc<Routes>) {
        self.tray().dispatch.set_routes(routes);
        self.ready.notify_one();
    }

    /// Whoever publishes from now on, or waits for room, is told that the node is gone. What was accepted still goes out.
    pub(crate) fn close(&self) {
        self.shut(Door::Closed);
    }

    /// As [`close`](Self::close), but they are told that the node is about to leave.
    pub(crate) fn drain(&self) {
        self.shut(Door::Draining);
    }

    /// Whether it takes nothing new.
    pub(crate) fn is_shut(&self) -> bool {
        !matches!(self.tray().door, Door::Open)
    }

    fn shut(&self, door: Door) {
        let mut tray = self.tray();
        tray.door = tray.door.max(door);
        drop(tray);
        self.room.notify_waiters();
    }

    /// How many messages were accepted and have not gone out.
    pub(crate) fn left_over(&self) -> u64 {
        self.tray().messages
    }

    /// Waits until everything that was appended has been signed and handed on.
    pub(crate) async fn drained(&self) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.tray().dispatch.outgoing.is_empty() && self.signing.load(Ordering::Acquire) == 0 {
                return;
            }
            room.await;
        }
    }

    /// The next frame to sign.
    fn take(&self) -> Option<Taken> {
        let mut tray = self.tray();
        self.lanes.room.want(true);
        let taken = tray.dispatch.take(&mut &self.lanes, self.clock.now());
        self.lanes.room.want(tray.dispatch.next_timeout().is_some());
        let taken = taken?;
        tray.messages = tray.messages.saturating_sub(taken.builder.messages().into());
        self.signing.store(1, Ordering::Release);
        let has_ample_room = tray.dispatch.outgoing.has_ample_room();
        drop(tray);
        if has_ample_room {
            self.room.notify_waiters();
        }
        Some(taken)
    }

    /// What was taken out is with the mesh.
    fn signed(&self) {
        self.signing.store(0, Ordering::Release);
        if self.tray().dispatch.outgoing.is_empty() {
            self.room.notify_waiters();
        }
    }

    /// Puts a frame on the lanes that it is for.
    fn send(&self, frame: &Frame, targets: &[Target]) {
        self.tray().dispatch.send(frame, targets, &mut &self.lanes, self.clock.now());
    }

    /// When the patience with a slow reader ends.
    fn next_timeout(&self) -> Option<Instant> {
        self.tray().dispatch.next_timeout().map(|at| self.clock.instant(at))
    }

    fn tray(&self) -> MutexGuard<'_, Tray> {
        self.tray.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The signer: takes frames as they become ready, and whatever else the mesh wants signed.
#[derive(Debug)]
pub(crate) struct Signer {
    pub(crate) mesh: MeshId,
    pub(crate) key: Keypair,
    pub(crate) press: Arc<Press>,
    pub(crate) wanted: mpsc::Receiver<Unsigned>,
    pub(crate) hub: Arc<Hub>,
}

impl Signer {
    /// Runs until the driver is gone.
    pub(crate) async fn run(mut self) {
        loop {
            tokio::select! {
                wanted = self.wanted.recv() => {
                    let Some(wanted) = wanted else { return };
                    if self.wanted(wanted).is_err() {
                        return;
                    }
                }
                () = self.press.ready.notified() => if self.frames().await.is_err() { return },
                () = self.press.lanes.room.made() => if self.frames().await.is_err() { return },
                () = until(self.press.next_timeout()) => if self.frames().await.is_err() { return },
            }
        }
    }

    fn wanted(&self, wanted: Unsigned) -> Result<(), Closed> {
        match self.sign(wanted) {
            Ok(signed) => self.hub.tell(Input::Signed(signed)),
            Err(reason) => {
                error!(%reason, "cannot sign");
                Ok(())
            }
        }
    }

    /// Waits while the driver is busy; meanwhile messages gather in the open frames. It goes on for as long as there are
    /// frames, so what else is wanted comes in between: subscribers and whoever serves wait for it.
    async fn frames(&mut self) -> Result<(), Closed> {
        loop {
            while let Ok(wanted) = self.wanted.try_recv() {
                self.wanted(wanted)?;
            }
            self.hub.room().await?;
            let Some(Taken { place, builder, targets }) = self.press.take() else { return Ok(()) };
            let told = match builder.sign(place, self.mesh, &self.key) {
                Ok(frame) => {
                    targets.iter().for_each(|targets| self.press.send(&frame, targets));
                    let via = if targets.is_some() { Via::OwnOverLanes } else { Via::Own };
                    self.hub.tell(Input::Frame { frame: Arc::new(frame), via })
                }
                Err(reason) => {
                    error!(%reason, "cannot sign a frame");
                    Ok(())
                }
            };
            self.press.signed();
            told?;
        }
    }

    fn sign(&self, wanted: Unsigned) -> Result<Signed, Box<dyn std::error::Error + Send + Sync>> {
        Ok(match wanted {
            Unsigned::Head { place, time } => Signed::Head(Arc::new(builder::head(place, time, self.mesh, &self.key)?)),
            Unsigned::Record(record) => Signed::Record(Box::new(record.sign(self.mesh, &self.key)?)),
            Unsigned::Again { frame, attempt } => {
                Signed::Again(Arc::new(builder::again(&frame, attempt, self.mesh, &self.key)?))
            }
            Unsigned::Letter { number, text } => {
                Signed::Letter { number, signature: custody::sign_letter(&self.key, self.mesh, &text)? }
            }
            Unsigned::Receipts { reply, fates, texts } => {
                let receipts = custody::sign_receipts(&self.key, self.mesh, &texts)?;
                Signed::Receipts { reply, fates, receipts }
            }
        })
    }
}

/// Sleeps until that moment, or for ever.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use libp2p::futures::FutureExt;
    use tokio::task::JoinSet;

    use super::*;
    use crate::Headers;
    use crate::mesh::event::Output;
    use crate::mesh::outgoing::Outgoing;
    use crate::mesh::time::Wall;
    use crate::net::hub::{State, Work};
    use crate::wire::frame::{Channel, Kind, Place, Stream, shard_of};

    /// A press for so many bytes, its signer, and the hub of a node whose driver never comes.
    fn press(limit: usize) -> (Arc<Press>, Signer, Arc<Hub>) {
        let key = Keypair::ed25519_from_bytes([1; 32]).unwrap();
        let outgoing = Outgoing::new(key.public().to_peer_id(), 1, [0; 8], limit);
        let (clock, lanes) = (Clock::start(), Table::default());
        let press = Arc::new(Press::new(Dispatch::new(outgoing), clock, lanes.clone()));
        let (want, wanted) = mpsc::channel(8);
        let hub = Arc::new(Hub::new(State::alone(key.public().to_peer_id(), clock, Arc::clone(&press), lanes, want)));
        let signer = Signer { mesh: MeshId([1; 16]), key, press: Arc::clone(&press), wanted, hub: Arc::clone(&hub) };
        (press, signer, hub)
    }

    /// The frames that gossip would take next.
    async fn gossip(hub: &Hub) -> Vec<Arc<Frame>> {
        loop {
            let called = hub.work.notified();
            let taken = hub.take().into_iter();
            let frames: Vec<_> = taken
                .filter_map(|work| if let Work::Do(Output::Gossip { frame }) = work { Some(frame) } else { None })
                .collect();
            if !frames.is_empty() {
                return frames;
            }
            called.await;
        }
    }

    async fn append(press: &Press, bytes: usize) -> Result<Appended, PublishError> {
        let (headers, payload) = (Headers::default(), vec![7; bytes]);
        let (topic, shard) = ("a.b", shard_of("a.b"));
        press.append(&Draft { topic, shard, content_type: "", headers: &headers, groups: &[], payload: &payload }).await
    }

    #[tokio::test]
    async fn a_busy_publisher_does_not_keep_other_things_from_being_signed() {
        let (press, signer, hub) = press(16 << 20);
        for _ in 0..200 {
            append(&press, 50_000).await.unwrap();
        }
        let place = Place {
            stream: Stream { node: signer.key.public().to_peer_id(), incarnation: 1, channel: Channel::Shard(0) },
            sequence: 1,
            count: 1,
            attempt: 0,
            start: [0; 8],
        };
        let watch = async {
            // From now on the signer is busy with frames, of which there are enough.
            assert!(!gossip(&hub).await.is_empty());
            let unsigned = hub.with(|state| state.unsigned.clone()).unwrap();
            unsigned.try_send(Unsigned::Head { place, time: Wall(1).0 }).unwrap();
            let mut before = 0;
            loop {
                for frame in gossip(&hub).await {
                    if frame.kind == Kind::Head {
                        return before;
                    }
                    before += 1;
                }
            }
        };
        let frames = tokio::select! {
            frames = watch => frames,
            () = signer.run() => panic!("the signer ended"),
        };
        assert!(frames <= 3, "{frames} frames came first");
    }

    #[tokio::test]
    async fn what_waited_behind_others_goes_with_them_when_there_is_leave() {
        let (press, signer, hub) = press(8 << 20);
        let mut tasks = JoinSet::new();
        tasks.spawn(signer.run());
        for round in 0..100_u64 {
            press.allow(shard_of("a.b"), round);
            // The first wakes the signer, in vain. Those behind it do not.
            for _ in 0..3 {
                append(&press, 10).await.unwrap();
                tokio::task::yield_now().await;
            }
            assert!(gossip(&hub).now_or_never().is_none());
            press.allow(shard_of("a.b"), round + 1);
            let came = tokio::time::timeout(Duration::from_secs(5), gossip(&hub)).await.unwrap();
            assert_eq!(came.iter().map(|frame| frame.header.messages).collect::<Vec<_>>(), [3]);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_up_is_lost_between_publishers_and_the_signer() {
        let (press, signer, hub) = press(20_000);
        let mut tasks = JoinSet::new();
        tasks.spawn(signer.run());
        for _ in 0..4 {
            let press = Arc::clone(&press);
            tasks.spawn(async move {
                for size in 0..5_000 {
                    append(&press, size % 700).await.unwrap();
                }
            });
        }
        let all = async {
            let mut messages = 0;
            while messages < 20_000 {
                messages += gossip(&hub).await.iter().map(|frame| frame.header.messages).sum::<u32>();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("all came");
        press.drained().await;
    }

    #[tokio::test]
    async fn what_was_accepted_goes_out_and_nothing_is_accepted_after_the_close() {
        let (press, signer, hub) = press(100_000);
        append(&press, 50_000).await.unwrap();
        append(&press, 40_000).await.unwrap();
        assert_eq!(press.left_over(), 2);
        let waiting = append(&press, 50_000);
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none(), "there is no room");
        press.close();
        assert!(matches!(waiting.await, Err(PublishError::Closed(_))));
        assert!(matches!(append(&press, 1).await, Err(PublishError::Closed(_))));
        tokio::select! {
            () = press.drained() => {}
            () = signer.run() => panic!("the signer ended"),
        }
        let sequences: Vec<_> = gossip(&hub).await.iter().map(|frame| frame.header.sequence).collect();
        assert_eq!((sequences, press.left_over()), (vec![1, 2], 0));
    }
}
