//! How a short-lived node publishes: it hands its frames to a few neighbours for good, and waits for their word.

use std::collections::BTreeMap;
use std::sync::Arc;

use libp2p_identity::PeerId;

use super::effects::{Asked, Effects};
use super::event::{Answer, Confirmation, Output, Ticket};
use super::time::{Mono, Span};
use crate::wire::frame::Frame;
use crate::wire::rpc::Request;

/// To how many neighbours a frame is handed.
const COPIES: usize = 3;
/// The most bytes of frames in one request.
const BATCH: usize = 512 * 1024;
/// How long a neighbour's word is waited for.
const PATIENCE: Span = Span::secs(5);

/// Frames that wait to be handed over, and who waits for them.
#[derive(Debug, Default)]
pub(crate) struct Inject {
    waiting: Vec<Arc<Frame>>,
    batches: BTreeMap<u64, Batch>,
    next_batch: u64,
    /// How far each shard has been handed over, and how that ended.
    done: BTreeMap<u8, (u64, Confirmation)>,
    callers: Vec<Caller>,
}

#[derive(Debug)]
struct Batch {
    frames: Vec<Arc<Frame>>,
    open: usize,
    tried: Vec<PeerId>,
    confirmation: Confirmation,
    until: Mono,
}

#[derive(Debug)]
struct Caller {
    ticket: Ticket,
    shard: u8,
    sequence: u64,
}

impl Inject {
    /// A frame of this node is ready.
    pub(crate) fn frame(&mut self, frame: Arc<Frame>) {
        self.waiting.push(frame);
    }

    /// Somebody waits until that frame has been handed over.
    pub(crate) fn confirm(&mut self, ticket: Ticket, shard: u8, sequence: u64, fx: &mut Effects) {
        self.callers.push(Caller { ticket, shard, sequence });
        self.answer(fx);
    }

    pub(crate) fn abandoned(&mut self, ticket: Ticket) {
        self.callers.retain(|caller| caller.ticket != ticket);
    }

    /// Hands over what waits. `settled`: the first look-around is over, so whoever is not linked now was not found.
    pub(crate) fn flush(&mut self, linked: &[PeerId], settled: bool, now: Mono, fx: &mut Effects) {
        if self.waiting.is_empty() || !settled {
            return;
        }
        while !self.waiting.is_empty() {
            let mut bytes = 0;
            let fits = self.waiting.iter().take_while(|frame| {
                bytes += frame.bytes.len();
                bytes <= BATCH
            });
            let count = fits.count().max(1).min(self.waiting.len());
            let frames: Vec<_> = self.waiting.drain(..count).collect();
            let id = self.next_batch;
            self.next_batch += 1;
            let confirmation = Confirmation::default();
            self.batches.insert(id, Batch { frames, open: 0, tried: Vec::new(), confirmation, until: now + PATIENCE });
            self.hand_over(id, linked, fx);
        }
        self.answer(fx);
    }

    fn hand_over(&mut self, id: u64, linked: &[PeerId], fx: &mut Effects) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        let mut candidates: Vec<_> = linked.iter().filter(|peer| !batch.tried.contains(peer)).copied().collect();
        while batch.open < COPIES && !candidates.is_empty() {
            let peer = candidates.swap_remove(fx.below(candidates.len()));
            batch.tried.push(peer);
            batch.open += 1;
            let frames = batch.frames.iter().map(|frame| frame.bytes.clone()).collect();
            fx.ask(peer, Request::Inject { frames, extensions: Vec::new() }, Asked::Inject { batch: id });
        }
        if batch.open == 0 {
            self.finish(id);
        }
    }

    /// A neighbour answered: it took so many frames, for so many listeners. None: it failed.
    pub(crate) fn answered(&mut self, id: u64, taken: Option<(u32, u32)>, linked: &[PeerId], fx: &mut Effects) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        batch.open = batch.open.saturating_sub(1);
        match taken {
            Some((taken, listeners)) if taken > 0 => {
                batch.confirmation.peers += 1;
                batch.confirmation.listeners = batch.confirmation.listeners.max(listeners);
            }
            Some(_) | None => batch.confirmation.failed = true,
        }
        if batch.open == 0 {
            if batch.confirmation.peers == 0 {
                self.hand_over(id, linked, fx);
            } else {
                self.finish(id);
            }
        }
        self.answer(fx);
    }

    fn finish(&mut self, id: u64) {
        let Some(batch) = self.batches.remove(&id) else { return };
        for frame in &batch.frames {
            let done = self.done.entry(frame.stream.shard()).or_default();
            if frame.header.sequence >= done.0 {
                *done = (frame.header.sequence, batch.confirmation);
            }
        }
    }

    fn answer(&mut self, fx: &mut Effects) {
        let done = &self.done;
        self.callers.retain(|caller| match done.get(&caller.shard) {
            Some((sequence, confirmation)) if *sequence >= caller.sequence => {
                fx.push(Output::Answer { ticket: caller.ticket, answer: Answer::Confirmed(*confirmation) });
                false
            }
            Some(_) | None => true,
        });
    }

    pub(crate) fn next_timeout(&self) -> Option<Mono> {
        self.batches.values().map(|batch| batch.until).min()
    }

    pub(crate) fn on_timeout(&mut self, now: Mono, fx: &mut Effects) {
        let late: Vec<_> = self.batches.iter().filter(|(_, batch)| batch.until <= now).map(|(id, _)| *id).collect();
        for id in late {
            if let Some(batch) = self.batches.get_mut(&id) {
                batch.confirmation.failed |= batch.confirmation.peers == 0;
            }
            self.finish(id);
        }
        self.answer(fx);
    }
}
