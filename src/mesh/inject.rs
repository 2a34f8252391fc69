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
/// How long the other neighbours are waited for once one has taken a batch: one that is slow must not hold up the others' word.
const GRACE: Span = Span::millis(250);
/// How long a batch is kept that nobody waits for. Where somebody does, their own patience decides.
const UNATTENDED: Span = Span::secs(30);
/// The most frames of a shard that are signed and not yet handed over.
const WINDOW: u64 = 256;
/// Of how many frames of a shard it is kept how they ended, for those who ask late.
const KEPT: usize = 1024;

/// Who may be handed frames, by id.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    /// Those of the roster. They are asked first.
    pub(crate) lasting: Vec<PeerId>,
    /// Those on an errand of their own, as far as is known: they are about to end, and take nothing.
    pub(crate) others: Vec<PeerId>,
    /// Whether there will be more: somebody is being dialled, or known to be there.
    pub(crate) more: bool,
}

/// What a neighbour made of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It took so many frames, for so many listeners.
    Took { frames: u32, listeners: u32 },
    /// It certainly has none of them.
    HasNot,
    /// It may have them.
    Silent,
}

/// Frames that wait to be handed over, and who waits for them.
#[derive(Debug, Default)]
pub(crate) struct Inject {
    waiting: Vec<Arc<Frame>>,
    batches: BTreeMap<u64, Batch>,
    next_batch: u64,
    shards: BTreeMap<u8, Shard>,
    callers: Vec<Caller>,
}

#[derive(Debug)]
struct Batch {
    frames: Vec<Arc<Frame>>,
    open: usize,
    /// Whether anybody was asked.
    asked: bool,
    /// Those that were. One that was linked anew meanwhile may be asked again: who has a frame twice has it once.
    tried: Vec<PeerId>,
    confirmation: Confirmation,
    /// When it was first seen that a neighbour had taken it.
    heard: Option<Mono>,
    /// It was taken, and the others have had their time.
    ripe: bool,
    until: Mono,
}

/// What is known of a shard's stream.
#[derive(Debug, Default)]
struct Shard {
    last: u64,
    /// How far the publishers were let go.
    allowed: u64,
    frames: BTreeMap<u64, Handed>,
}

/// Where a frame stands.
#[derive(Clone, Copy, Debug)]
struct Handed {
    stage: Stage,
    /// Whether a message ends in it. A piece of a large message that is not its last has a frame of its own.
    ends: bool,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Waiting,
    Under(u64),
    Done(Confirmation),
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
        let shard = self.shards.entry(frame.stream.shard()).or_default();
        let (sequence, ends) = (frame.header.sequence, frame.header.messages > 0);
        shard.last = shard.last.max(sequence);
        shard.frames.insert(sequence, Handed { stage: Stage::Waiting, ends });
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

    /// Hands over what waits, and looks whom that lets go on. `settled`: the first look-around is over, so whoever is not
    /// linked now was not found.
    pub(crate) fn flush(&mut self, neighbours: &Neighbours, settled: bool, now: Mono, fx: &mut Effects) {
        while settled && !self.waiting.is_empty() {
            let mut bytes = 0;
            let fits = self.waiting.iter().take_while(|frame| {
                bytes += frame.bytes.len();
                bytes <= BATCH
            });
            let count = fits.count().max(1).min(self.waiting.len());
            let frames: Vec<_> = self.waiting.drain(..count).collect();
            self.begin(frames, now + UNATTENDED);
            self.hand_over(self.next_batch - 1, neighbours, fx);
        }
        let stranded = self.batches.iter().filter(|(_, batch)| batch.open == 0).map(|(id, _)| *id);
        for id in stranded.collect::<Vec<_>>() {
            self.hand_over(id, neighbours, fx);
        }
        for batch in self.batches.values_mut().filter(|batch| batch.confirmation.peers > 0) {
            let heard = *batch.heard.get_or_insert(now);
            batch.ripe |= heard + GRACE <= now;
        }
        self.allow(fx);
        self.answer(fx);
    }

    fn begin(&mut self, frames: Vec<Arc<Frame>>, until: Mono) {
        let id = self.next_batch;
        self.next_batch += 1;
        self.mark(&frames, Stage::Under(id));
        let confirmation = Confirmation::default();
        let batch =
            Batch { frames, open: 0, asked: false, tried: Vec::new(), confirmation, heard: None, ripe: false, until };
        self.batches.insert(id, batch);
    }

    fn mark(&mut self, frames: &[Arc<Frame>], stage: Stage) {
        for frame in frames {
            let shard = self.shards.get_mut(&frame.stream.shard());
            if let Some(handed) = shard.and_then(|shard| shard.frames.get_mut(&frame.header.sequence)) {
                handed.stage = stage;
            }
        }
    }

    fn hand_over(&mut self, id: u64, neighbours: &Neighbours, fx: &mut Effects) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        let mut candidates = Vec::new();
        for among in [&neighbours.lasting, &neighbours.others] {
            if candidates.is_empty() {
                candidates.extend(among.iter().filter(|peer| !batch.tried.contains(peer)).copied());
            }
        }
        while batch.open < COPIES && !candidates.is_empty() {
            let peer = candidates.swap_remove(fx.below(candidates.len()));
            batch.tried.push(peer);
            batch.asked = true;
            batch.open += 1;
            let frames = batch.frames.iter().map(|frame| frame.bytes.clone()).collect();
            fx.ask(peer, Request::Inject { frames, extensions: Vec::new() }, Asked::Inject { batch: id });
        }
        // If none of those who were asked has it, the next neighbour may still take it, in the time that the caller has.
        if batch.open == 0 && !(batch.asked && neighbours.more) {
            self.finish(id);
        }
    }

    /// A neighbour answered, or will not.
    pub(crate) fn answered(&mut self, id: u64, word: Word, neighbours: &Neighbours, fx: &mut Effects) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        batch.open = batch.open.saturating_sub(1);
        match word {
            Word::Took { frames, listeners } if usize::try_from(frames) == Ok(batch.frames.len()) => {
                batch.confirmation.peers += 1;
                batch.confirmation.listeners = batch.confirmation.listeners.max(listeners);
            }
            Word::Took { frames: 0, .. } | Word::HasNot => {}
            // Nobody can tell which frames it refused, so less than all of them is nothing.
            Word::Took { .. } | Word::Silent => batch.confirmation.failed = true,
        }
        if batch.open == 0 {
            if batch.confirmation.peers == 0 {
                self.hand_over(id, neighbours, fx);
            } else {
                self.finish(id);
            }
        }
        self.answer(fx);
    }

    /// The last link to that neighbour is gone.
    pub(crate) fn unlinked(&mut self, peer: &PeerId) {
        self.batches.values_mut().for_each(|batch| batch.tried.retain(|tried| tried != peer));
    }

    /// Whether something is left that nobody took.
    pub(crate) fn is_stranded(&self) -> bool {
        self.batches.values().any(|batch| batch.open == 0)
    }

    fn finish(&mut self, id: u64) {
        let Some(batch) = self.batches.remove(&id) else { return };
        self.mark(&batch.frames, Stage::Done(batch.confirmation));
        for shard in self.shards.values_mut() {
            shard.forget_old();
        }
    }

    /// Lets the publishers go on as batches finish, so that what is signed and not handed over stays little.
    fn allow(&mut self, fx: &mut Effects) {
        let open = lowest(self.waiting.iter().chain(self.batches.values().flat_map(|batch| &batch.frames)));
        for (number, shard) in &mut self.shards {
            let allowed = shard.before(open.get(number)) + WINDOW;
            if allowed > shard.allowed {
                shard.allowed = allowed;
                fx.push(Output::Allow { shard: *number, sequence: allowed });
            }
        }
    }

    /// Answers those of whose stream everything up to their frame was handed over: batches end in any order, and a message
    /// may stand in several.
    fn answer(&mut self, fx: &mut Effects) {
        if self.callers.is_empty() {
            return;
        }
        let unripe = self.batches.values().filter(|batch| !batch.ripe).flat_map(|batch| &batch.frames);
        let open = lowest(self.waiting.iter().chain(unripe));
        let Self { callers, shards, batches, .. } = self;
        callers.retain(|caller| {
            let Some(shard) = shards.get(&caller.shard) else { return true };
            if shard.before(open.get(&caller.shard)) < caller.sequence {
                return true;
            }
            let confirmation = shard.confirmation(caller.sequence, batches);
            fx.push(Output::Answer { ticket: caller.ticket, answer: Answer::Confirmed(confirmation) });
            false
        });
    }

    /// For each shard, the last frame that somebody waits for.
    fn awaited(&self) -> BTreeMap<u8, u64> {
        let mut awaited = BTreeMap::new();
        for caller in &self.callers {
            let last: &mut u64 = awaited.entry(caller.shard).or_default();
            *last = caller.sequence.max(*last);
        }
        awaited
    }

    pub(crate) fn next_timeout(&self) -> Option<Mono> {
        let awaited = self.awaited();
        let due = |batch: &Batch| match batch.heard {
            _ if !batch.is_awaited(&awaited) => Some(batch.until),
            Some(heard) if !batch.ripe => Some(heard + GRACE),
            Some(_) | None => None,
        };
        self.batches.values().filter_map(due).min()
    }

    /// What has become ripe is answered by [`flush`](Self::flush), which follows whatever happens.
    pub(crate) fn on_timeout(&mut self, now: Mono, fx: &mut Effects) {
        let awaited = self.awaited();
        let is_late = |batch: &Batch| batch.until <= now && !batch.is_awaited(&awaited);
        let late: Vec<_> = self.batches.iter().filter(|(_, batch)| is_late(batch)).map(|(id, _)| *id).collect();
        for id in late {
            if let Some(batch) = self.batches.get_mut(&id) {
                batch.confirmation.failed |= batch.confirmation.peers == 0;
            }
            self.finish(id);
        }
        self.answer(fx);
    }
}

impl Batch {
    /// Whether somebody waits for it, or for what comes after it in a stream.
    fn is_awaited(&self, awaited: &BTreeMap<u8, u64>) -> bool {
        let by = |frame: &Arc<Frame>| awaited.get(&frame.stream.shard()).is_some_and(|to| frame.header.sequence <= *to);
        self.frames.iter().any(by)
    }
}

impl Shard {
    /// How far the stream has come if this is the first frame that is still open.
    fn before(&self, open: Option<&u64>) -> u64 {
        open.map_or(self.last, |open| open.saturating_sub(1))
    }

    /// How a message was handed over that ends in this frame: what holds for every frame that it stands in.
    fn confirmation(&self, sequence: u64, batches: &BTreeMap<u64, Batch>) -> Confirmation {
        let mut all = self.of_frame(sequence, batches);
        for before in (1..sequence).rev() {
            if self.frames.get(&before).is_none_or(|handed| handed.ends) {
                break;
            }
            let one = self.of_frame(before, batches);
            all.peers = all.peers.min(one.peers);
            all.listeners = all.listeners.max(one.listeners);
            all.failed |= one.failed;
        }
        all
    }

    fn of_frame(&self, sequence: u64, batches: &BTreeMap<u64, Batch>) -> Confirmation {
        // Nobody can vouch for what was forgotten.
        let unknown = Confirmation { failed: true, ..Confirmation::default() };
        match self.frames.get(&sequence).map(|handed| handed.stage) {
            Some(Stage::Done(confirmation)) => confirmation,
            Some(Stage::Under(batch)) => batches.get(&batch).map_or(unknown, |batch| batch.confirmation),
            Some(Stage::Waiting) | None => unknown,
        }
    }

    fn forget_old(&mut self) {
        while self.frames.len() > KEPT
            && let Some(first) = self.frames.first_entry()
            && matches!(first.get().stage, Stage::Done(_))
        {
            first.remove();
        }
    }
}

/// For each shard, the first of these frames.
fn lowest<'a>(frames: impl Iterator<Item = &'a Arc<Frame>>) -> BTreeMap<u8, u64> {
    let mut lowest = BTreeMap::new();
    for frame in frames {
        let sequence = frame.header.sequence;
        let first: &mut u64 = lowest.entry(frame.stream.shard()).or_insert(sequence);
        *first = sequence.min(*first);
    }
    lowest
}

#[cfg(test)]
mod tests;
