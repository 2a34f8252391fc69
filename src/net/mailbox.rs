//! Mailboxes: where whole frames wait for a subscriber to read them.
//!
//! Bounded by bytes. The hub puts frames in without waiting; what finds no room is counted by the mesh and told to the
//! reader as a gap, which always fits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::mesh::event::{Delivery, Lag};
use crate::wire::frame::{FRAME_OVERHEAD, Frame};

/// A subscriber's mailbox.
#[derive(Debug)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    limit: usize,
}

/// How full a mailbox is after something was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    Fine,
    /// A quarter of it is taken. Said once, until its reader has caught up.
    Behind,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Delivery>,
    bytes: usize,
    reader: Option<Waker>,
    closed: bool,
    /// The reader is behind, and that was said.
    behind: bool,
    /// What it has taken out since.
    taken: usize,
}

/// How a reader that is behind gets on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// So much of what waited for it is out of the way.
    pub(crate) bytes: usize,
    /// It is not behind any more.
    pub(crate) caught_up: bool,
}

impl Mailbox {
    /// A mailbox for that many bytes of frames.
    pub(crate) fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), limit }
    }

    /// Puts something in. A frame that finds no room comes back.
    pub(crate) fn put(&self, delivery: Delivery) -> Result<Fill, Arc<Frame>> {
        let mut state = self.state();
        if state.closed {
            return Ok(Fill::Fine);
        }
        match delivery {
            // An empty mailbox takes any frame, however small its limit.
            Delivery::Frame(frame, _) if state.bytes > 0 && state.bytes + weight(&frame) > self.limit => {
                return Err(frame);
            }
            Delivery::Frame(frame, routes) => {
                state.bytes += weight(&frame);
                state.waiting.push_back(Delivery::Frame(frame, routes));
            }
            Delivery::Lagged(lag) => state.lag(lag),
        }
        let fill = if !state.behind && state.bytes > self.limit / 4 { Fill::Behind } else { Fill::Fine };
        state.behind |= fill == Fill::Behind;
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(fill)
    }

    /// Whether it was said that the reader is behind: then it says how it gets on.
    pub(crate) fn is_behind(&self) -> bool {
        self.state().behind
    }

    /// What the reader, that is behind, has taken out since this was asked last.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let mut state = self.state();
        if !state.behind {
            return None;
        }
        let caught_up = state.bytes <= self.limit / 8;
        state.behind = !caught_up;
        Some(Progress { bytes: std::mem::take(&mut state.taken), caught_up })
    }

    /// Takes out what came first. None when the node is gone.
    pub(crate) fn poll_take(&self, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        let mut state = self.state();
        if let Some(delivery) = state.waiting.pop_front() {
            if let Delivery::Frame(frame, _) = &delivery {
                let weight = weight(frame);
                state.bytes -= weight;
                if state.behind {
                    state.taken += weight;
                }
            }
            return Poll::Ready(Some(delivery));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic half-way, so a poisoned lock guards whole data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a waiting frame counts for.
fn weight(frame: &Frame) -> usize {
    frame.bytes.len() + FRAME_OVERHEAD
}

impl State {
    /// Gaps in a row are one gap, so a reader that never comes costs one entry.
    fn lag(&mut self, lag: Lag) {
        match self.waiting.back_mut() {
            Some(Delivery::Lagged(last)) => {
                last.missed = last.missed.saturating_add(lag.missed);
                last.exact &= lag.exact;
            }
            Some(Delivery::Frame(..)) | None => self.waiting.push_back(Delivery::Lagged(lag)),
        }
    }
}
