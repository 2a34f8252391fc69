//! One persistent stream to each subscriber, or to the server. What is sent while a write is under way goes with the next one.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::{Stream, StreamProtocol, Swarm};
use libp2p_stream::{Behaviour, Control, IncomingStreams};
use tokio::sync::{Notify, oneshot};

use super::{dial, listen, swarm};
use crate::endpoint::{Gate, Result, Said, Spec, say};
use crate::load::{Called, Parcel, Sink, Source, call as ask};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/versus/stream/1");

/// The most bytes that are written together.
const BATCH: usize = 60 << 10;

/// How many may wait before more must wait for room. With less, who sends and who writes would wait for each other to get a turn
/// whenever the machine is busy.
const WAITING: usize = 64 * BATCH;

/// A frame in so many parts.
fn append(to: &mut Vec<u8>, frame: &[&[u8]]) {
    let length: usize = frame.iter().map(|part| part.len()).sum();
    to.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    for part in frame {
        to.extend_from_slice(part);
    }
}

/// What waits to be written to a stream: frames, each after its length.
#[derive(Debug, Default)]
struct Lane {
    waiting: Mutex<Vec<u8>>,
    /// There is something to write.
    filled: Notify,
    /// There is room for more.
    room: Notify,
}

impl Lane {
    /// Returns when there was room.
    async fn push(&self, frame: &[&[u8]]) {
        loop {
            // Before the look, so that room made right after it is noticed.
            let room = self.room.notified();
            if self.offer(frame) {
                return;
            }
            room.await;
        }
    }

    /// Whether there was room.
    fn offer(&self, frame: &[&[u8]]) -> bool {
        let mut waiting = self.waiting();
        if waiting.len() >= WAITING {
            return false;
        }
        let was_empty = waiting.is_empty();
        append(&mut waiting, frame);
        drop(waiting);
        if was_empty {
            self.filled.notify_one();
        }
        true
    }

    async fn write_to(&self, mut stream: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut taken = Vec::new();
        loop {
            self.filled.notified().await;
            // Those that were woken together have something to send together. Without this, the first of them alone would be
            // served where the machine is idle, and all of them where it is busy.
            tokio::task::yield_now().await;
            std::mem::swap(&mut taken, &mut *self.waiting());
            self.room.notify_waiters();
            for batch in taken.chunks(BATCH) {
                stream.write_all(batch).await?;
                stream.flush().await?;
            }
            taken.clear();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<u8>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The other end of a lane.
#[derive(Debug)]
struct Frames<R> {
    stream: R,
    buffer: Vec<u8>,
    /// What of the buffer is read and not taken.
    filled: Range<usize>,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    fn new(stream: R) -> Self {
        Self { stream, buffer: vec![0; 4 * BATCH], filled: 0..0 }
    }

    /// It is an error if the stream ends.
    async fn next(&mut self) -> io::Result<&[u8]> {
        loop {
            if let Some(frame) = self.whole() {
                self.filled.start = frame.end;
                return Ok(&self.buffer[frame]);
            }
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
            if self.filled.end == self.buffer.len() {
                self.buffer.resize(2 * self.buffer.len(), 0);
            }
            match self.stream.read(&mut self.buffer[self.filled.end..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.filled.end += count,
            }
        }
    }

    /// Where the next frame is, if all of it is there.
    fn whole(&self) -> Option<Range<usize>> {
        let (length, rest) = self.buffer[self.filled.clone()].split_first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        let start = self.filled.end - rest.len();
        (rest.len() >= length).then(|| start..start + length)
    }
}

/// Nothing moves on a connection unless somebody asks the swarm what happened.
fn drive(mut swarm: Swarm<Behaviour>) {
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
}

async fn listening(spec: &Spec) -> Result<IncomingStreams> {
    let mut swarm = swarm(Behaviour::new())?;
    let streams = swarm.behaviour().new_control().accept(PROTOCOL)?;
    listen(&mut swarm, spec).await?;
    drive(swarm);
    say(&Said::Ready);
    Ok(streams)
}

/// A stream to each that listens.
async fn connected(spec: &Spec) -> Result<Vec<Stream>> {
    let mut swarm = swarm(Behaviour::new())?;
    let peers = dial(&mut swarm, spec).await?;
    let mut control: Control = swarm.behaviour().new_control();
    drive(swarm);
    let mut streams = Vec::new();
    for peer in peers {
        streams.push(control.open_stream(peer, PROTOCOL).await?);
    }
    Ok(streams)
}

pub(in crate::systems) async fn publish(spec: &Spec, gate: &Gate) -> Result<()> {
    let mut lanes = Vec::new();
    for stream in connected(spec).await? {
        let lane = Arc::new(Lane::default());
        lanes.push(Arc::clone(&lane));
        tokio::spawn(async move { lane.write_to(stream).await });
    }
    gate.pass()?;
    let mut source = Source::new(spec.load);
    while let Some(parcel) = source.next() {
        let payload = parcel.encode();
        for lane in &lanes {
            lane.push(&[&payload]).await;
        }
    }
    super::super::done(&source);
    for lane in &lanes {
        lane.push(&[&source.end().encode()]).await;
    }
    std::future::pending().await
}

pub(in crate::systems) async fn subscribe(spec: &Spec, sink: &Sink) -> Result<()> {
    let (_, stream) = listening(spec).await?.next().await.ok_or("nobody publishes")?;
    let mut frames = Frames::new(stream);
    while !sink.note(frames.next().await?) {}
    Ok(())
}

pub(in crate::systems) async fn serve(spec: &Spec) -> Result<()> {
    let (_, stream) = listening(spec).await?.next().await.ok_or("nobody asks")?;
    let (questions, mut stream) = stream.split();
    let mut frames = Frames::new(questions);
    let mut answers = Vec::new();
    loop {
        let (id, question) = frames.next().await?.split_first_chunk::<8>().ok_or("a question without an id")?;
        let question = Parcel::decode(question).ok_or("no parcel")?;
        append(&mut answers, &[id, &question.encode()]);
        // What came together is answered together.
        if frames.whole().is_none() || answers.len() >= BATCH {
            stream.write_all(&answers).await?;
            stream.flush().await?;
            answers.clear();
        }
    }
}

/// Who waits for the answer to which question.
type Askers = Mutex<HashMap<u64, oneshot::Sender<Vec<u8>>>>;

fn locked(askers: &Askers) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Vec<u8>>>> {
    askers.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn hand_out(answers: impl AsyncRead + Unpin, askers: &Askers) -> Result<()> {
    let mut frames = Frames::new(answers);
    loop {
        let (id, answer) = frames.next().await?.split_first_chunk::<8>().ok_or("an answer without an id")?;
        let asker = locked(askers).remove(&u64::from_le_bytes(*id)).ok_or("an answer without a question")?;
        let _ = asker.send(answer.to_vec());
    }
}

pub(in crate::systems) async fn call(spec: &Spec, gate: &Gate) -> Result<Called> {
    let stream = connected(spec).await?.pop().ok_or("nobody serves")?;
    let (answers, questions) = stream.split();
    let (lane, askers) = (Arc::new(Lane::default()), Arc::new(Askers::default()));
    let (asking, waiting) = (Arc::clone(&lane), Arc::clone(&askers));
    tokio::spawn(async move { asking.write_to(questions).await });
    tokio::spawn(async move { hand_out(answers, &waiting).await });
    gate.pass()?;
    let ids = Arc::new(AtomicU64::new(0));
    let once = move |question: Parcel| {
        let (lane, askers, ids) = (Arc::clone(&lane), Arc::clone(&askers), Arc::clone(&ids));
        async move {
            let id = ids.fetch_add(1, Ordering::Relaxed);
            let (asker, answer) = oneshot::channel();
            locked(&askers).insert(id, asker);
            lane.push(&[&id.to_le_bytes(), &question.encode()]).await;
            Parcel::decode(&answer.await.ok()?)
        }
    };
    Ok(ask(spec.load, spec.in_flight, once).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a byte at a time.
    struct Drops(std::vec::IntoIter<u8>);

    impl AsyncRead for Drops {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut [u8],
        ) -> std::task::Poll<io::Result<usize>> {
            let next = self.0.next();
            buffer.iter_mut().zip(next).for_each(|(place, byte)| *place = byte);
            std::task::Poll::Ready(Ok(usize::from(next.is_some())))
        }
    }

    #[tokio::test]
    async fn frames_survive_the_lane_however_they_come() {
        let lane = Lane::default();
        lane.push(&[b"one"]).await;
        lane.push(&[]).await;
        lane.push(&[b"an", b"other"]).await;
        let written = std::mem::take(&mut *lane.waiting());
        let mut frames = Frames::new(Drops(written.into_iter()));
        for expected in [&b"one"[..], b"", b"another"] {
            assert_eq!(frames.next().await.unwrap(), expected);
        }
        assert!(frames.next().await.is_err());
    }

    #[test]
    fn who_is_faster_waits() {
        let lane = Lane::default();
        assert!(lane.offer(&[&[0; WAITING]]));
        assert!(!lane.offer(&[b"more"]));
        lane.waiting().clear();
        assert!(lane.offer(&[b"more"]));
    }
}
