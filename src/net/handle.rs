//! How the api reaches the mesh, and what can be read without asking.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use libp2p::PeerId;
use tokio::runtime;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

use crate::error::Closed;
use crate::mesh::event::{Answer, Command, Event, HolderId, IncomingCall, ProviderId, SubscriberId, Ticket};
use crate::mesh::postman::inbox::Handed;
use crate::mesh::postman::{PostAnswer, PostCommand, Terms};
use crate::mesh::routes::Routes;
use crate::net::hub::Hub;
use crate::net::mailbox::Mailbox;
use crate::net::press::Press;
use crate::wire::MessageId;

/// The channel that belongs to a command: commands themselves are plain data.
#[derive(Debug)]
pub(crate) enum Attached {
    Nothing,
    Mailbox(Arc<Mailbox>),
    Desk(mpsc::Sender<Served>),
    Holder(mpsc::Sender<Handed>),
}

/// A call for a handler, and the signal that its asker has gone.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) call: IncomingCall,
    pub(crate) gone: Arc<Gone>,
}

/// The signal that nobody waits for an answer any more. Once given it stays.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    is: AtomicBool,
    woken: Notify,
}

impl Gone {
    pub(crate) fn tell(&self) {
        self.is.store(true, Ordering::Release);
        self.woken.notify_waiters();
    }

    pub(crate) async fn told(&self) {
        let woken = self.woken.notified();
        tokio::pin!(woken);
        // Registered before looking, so that a signal in between is not missed.
        woken.as_mut().enable();
        if !self.is.load(Ordering::Acquire) {
            woken.await;
        }
    }
}

/// A running node, as the api sees it. Shared by everything that was made from one [`Node`](crate::Node).
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) me: PeerId,
    pub(crate) hub: Arc<Hub>,
    /// Ends the driver, which ends by itself when no handle is left.
    pub(crate) stop: mpsc::Sender<()>,
    pub(crate) press: Arc<Press>,
    pub(crate) routes: watch::Receiver<Arc<Routes>>,
    /// Weak, so that listeners learn when the driver has gone.
    pub(crate) events: broadcast::WeakSender<Event>,
    pub(crate) runtime: runtime::Handle,
    pub(crate) next_id: AtomicU64,
    /// The first half of the ids of guaranteed messages.
    pub(crate) letters: [u8; 8],
}

impl Handle {
    /// A number that no other subscriber, provider or ticket of this node has.
    fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Has a command done at once, and waits for the answer. Dropping the future abandons the command.
    pub(crate) fn ask(&self, command: Command) -> impl Future<Output = Result<Answer, Closed>> + use<> {
        self.ask_with(command, Attached::Nothing)
    }

    /// The future does not hold the command: those of requests are many, and should be small.
    fn ask_with(&self, command: Command, attached: Attached) -> impl Future<Output = Result<Answer, Closed>> + use<> {
        let ticket = Ticket(self.next_id());
        let (reply, answer) = oneshot::channel();
        let asked = self.hub.command(ticket, command, Some(reply), attached);
        let guard = asked.map(|()| Guard { hub: Arc::clone(&self.hub), ticket: Some(ticket) });
        async move {
            let mut guard = guard?;
            let answer = answer.await.map_err(|_| Closed);
            guard.ticket = None;
            answer
        }
    }

    /// Has a command done that has no answer.
    pub(crate) fn tell(&self, command: Command) -> Result<(), Closed> {
        self.hub.command(Ticket(self.next_id()), command, None, Attached::Nothing)
    }

    /// Sets up a subscription with a mailbox of that many bytes.
    pub(crate) async fn subscribe(
        self: &Arc<Self>,
        patterns: Vec<Arc<str>>,
        group: Option<Arc<str>>,
        bytes: usize,
    ) -> Result<(Registered<SubscriberId>, Arc<Mailbox>, Answer), Closed> {
        let subscriber = SubscriberId(self.next_id());
        let registered = Registered::new(self, subscriber, |subscriber| Command::Unsubscribe { subscriber });
        let mailbox = Arc::new(Mailbox::new(bytes));
        let command = Command::Subscribe { subscriber, patterns, group };
        let answer = self.ask_with(command, Attached::Mailbox(Arc::clone(&mailbox))).await?;
        Ok((registered, mailbox, answer))
    }

    /// Sets up a provider that takes so many calls at once.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        service: Arc<str>,
        room: u32,
    ) -> Result<(Registered<ProviderId>, mpsc::Receiver<Served>, Answer), Closed> {
        let provider = ProviderId(self.next_id());
        let registered = Registered::new(self, provider, |provider| Command::Unserve { provider });
        let (desk, served) = mpsc::channel(usize::try_from(room).unwrap_or(usize::MAX).clamp(1, 1 << 16));
        let command = Command::Serve { provider, service, room };
        let answer = self.ask_with(command, Attached::Desk(desk)).await?;
        Ok((registered, served, answer))
    }

    /// Holds a durable subscription.
    pub(crate) async fn hold(
        self: &Arc<Self>,
        name: Arc<str>,
        pattern: Arc<str>,
        terms: Terms,
    ) -> Result<(Registered<HolderId>, mpsc::Receiver<Handed>, Answer), Closed> {
        let holder = HolderId(self.next_id());
        let registered = Registered::new(self, holder, |holder| Command::Post(PostCommand::Release { holder }));
        // The mesh hands out no more than the window.
        let (desk, handed) = mpsc::channel(terms.window);
        let command = Command::Post(PostCommand::Hold { holder, name, pattern, terms });
        let answer = self.ask_with(command, Attached::Holder(desk)).await?;
        Ok((registered, handed, answer))
    }

    /// Asks the postman. None: the answer is no answer to that.
    pub(crate) async fn post(&self, command: PostCommand) -> Result<Option<PostAnswer>, Closed> {
        match self.ask(Command::Post(command)).await? {
            Answer::Post(answer) => Ok(Some(answer)),
            Answer::Draining
            | Answer::Done
            | Answer::TooMany { .. }
            | Answer::Reply { .. }
            | Answer::Failed(_)
            | Answer::Providers(_)
            | Answer::Confirmed(_)
            | Answer::Status(_) => Ok(None),
        }
    }

    /// The id of the next guaranteed message.
    pub(crate) fn letter_id(&self) -> MessageId {
        MessageId { start: self.letters, counter: self.next_id() }
    }

    /// Waits until what the routes say satisfies `enough`, and returns what it found last if the node goes first.
    pub(crate) async fn wait_for_routes(&self, mut enough: impl FnMut(&Routes) -> bool) -> Result<(), Closed> {
        let mut routes = self.routes.clone();
        routes.wait_for(|routes| enough(routes)).await.map(|_| ()).map_err(|_| Closed)
    }
}

/// A subscription or provider, from the moment when it is asked for. Dropping this takes it back: at its end, and when
/// setting it up is refused or given up.
#[derive(Debug)]
pub(crate) struct Registered<I: Copy> {
    pub(crate) handle: Arc<Handle>,
    pub(crate) id: I,
    take_back: fn(I) -> Command,
}

impl<I: Copy> Registered<I> {
    fn new(handle: &Arc<Handle>, id: I, take_back: fn(I) -> Command) -> Self {
        Self { handle: Arc::clone(handle), id, take_back }
    }
}

impl<I: Copy> Drop for Registered<I> {
    fn drop(&mut self) {
        // A node that is gone has nothing to take back.
        let _gone = self.handle.tell((self.take_back)(self.id));
    }
}

/// Tells the mesh when the future that waits for an answer is dropped.
struct Guard {
    hub: Arc<Hub>,
    ticket: Option<Ticket>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.hub.abandoned(ticket);
        }
    }
}
