//! Where publishers and the signer meet: frames are built in the publishers' tasks, and signed in a task of their own.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libp2p::identity::Keypair;
use tokio::sync::{Notify, mpsc};
use tracing::error;

use crate::error::{Closed, PublishError};
use crate::mesh::event::{Input, Signed, Unsigned, Via};
use crate::mesh::outgoing::{Appended, Draft, Outgoing, Refused};
use crate::net::clock::Clock;
use crate::payload::PayloadError;
use crate::wire::MeshId;
use crate::wire::builder::{self, FrameBuilder, Place};

/// The frames of this node that are not signed yet, shared by all its publishers.
#[derive(Debug)]
pub(crate) struct Press {
    outgoing: Mutex<Outgoing>,
    clock: Clock,
    /// Something can be signed.
    ready: Notify,
    /// Something was taken out.
    room: Notify,
    closed: AtomicBool,
    /// Frames that were taken out and are not with the driver yet.
    signing: AtomicUsize,
}

impl Press {
    pub(crate) fn new(outgoing: Outgoing, clock: Clock) -> Self {
        let (closed, signing) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { outgoing: Mutex::new(outgoing), clock, ready: Notify::new(), room: Notify::new(), closed, signing }
    }

    /// Appends a message, as soon as there is room.
    pub(crate) async fn append(&self, draft: &Draft<'_>) -> Result<Appended, PublishError> {
        loop {
            // Registered before looking, so that room made in between is not missed.
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.closed.load(Ordering::Acquire) {
                return Err(Closed.into());
            }
            let appended = self.outgoing().append(draft, self.clock.now().wall);
            match appended {
                Ok(appended) => {
                    self.ready.notify_one();
                    return Ok(appended);
                }
                Err(Refused::Full) => room.await,
                Err(Refused::Codec(reason)) => return Err(PublishError::Encode(PayloadError::new(reason))),
            }
        }
    }

    /// Lets frames of a shard go up to this sequence number.
    pub(crate) fn allow(&self, shard: u8, sequence: u64) {
        self.outgoing().allow(shard, sequence);
        self.ready.notify_one();
    }

    /// Whoever publishes from now on is told that the node is gone.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.room.notify_waiters();
    }

    /// Waits until everything that was appended has been signed and handed to the driver.
    pub(crate) async fn drained(&self) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.outgoing().is_empty() && self.signing.load(Ordering::Acquire) == 0 {
                return;
            }
            room.await;
        }
    }

    /// The next frame to sign.
    fn take(&self) -> Option<(Place, FrameBuilder)> {
        let mut outgoing = self.outgoing();
        let taken = outgoing.take()?;
        self.signing.store(1, Ordering::Release);
        drop(outgoing);
        self.room.notify_waiters();
        Some(taken)
    }

    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The signer: takes frames as they become ready, and whatever else the mesh wants signed.
#[derive(Debug)]
pub(crate) struct Signer {
    pub(crate) mesh: MeshId,
    pub(crate) key: Keypair,
    pub(crate) press: Arc<Press>,
    pub(crate) wanted: mpsc::Receiver<Unsigned>,
    pub(crate) done: mpsc::Sender<Input>,
}

impl Signer {
    /// Runs until the driver is gone.
    pub(crate) async fn run(mut self) {
        loop {
            tokio::select! {
                wanted = self.wanted.recv() => {
                    let Some(wanted) = wanted else { return };
                    match self.sign(wanted) {
                        Ok(signed) => if self.done.send(Input::Signed(signed)).await.is_err() { return },
                        Err(reason) => error!(%reason, "cannot sign"),
                    }
                }
                () = self.press.ready.notified() => if self.frames().await.is_err() { return },
            }
        }
    }

    /// Waits while the driver is busy; meanwhile messages gather in the open frames.
    async fn frames(&mut self) -> Result<(), Closed> {
        loop {
            let slot = self.done.reserve().await.map_err(|_| Closed)?;
            let Some((place, builder)) = self.press.take() else { return Ok(()) };
            match builder.sign(place, self.mesh, &self.key) {
                Ok(frame) => slot.send(Input::Frame { frame: Arc::new(frame), via: Via::Own }),
                Err(reason) => error!(%reason, "cannot sign a frame"),
            }
            self.press.signing.store(0, Ordering::Release);
            self.press.room.notify_waiters();
        }
    }

    fn sign(&self, wanted: Unsigned) -> Result<Signed, Box<dyn std::error::Error + Send + Sync>> {
        Ok(match wanted {
            Unsigned::Head { place, time } => Signed::Head(Arc::new(builder::head(place, time, self.mesh, &self.key)?)),
            Unsigned::Record(record) => Signed::Record(Box::new(record.sign(self.mesh, &self.key)?)),
            Unsigned::Again { frame, attempt } => {
                Signed::Again(Arc::new(builder::again(&frame, attempt, self.mesh, &self.key)?))
            }
        })
    }
}
