//! Mailboxes: where whole frames wait for a subscriber to read them.
//!
//! Bounded by bytes. The driver puts frames in without waiting; what finds no room is counted by the mesh and told to the
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

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Delivery>,
    bytes: usize,
    reader: Option<Waker>,
    closed: bool,
}

impl Mailbox {
    /// A mailbox for that many bytes of frames.
    pub(crate) fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), limit }
    }

    /// Puts something in. A frame that finds no room comes back.
    pub(crate) fn put(&self, delivery: Delivery) -> Result<(), Arc<Frame>> {
        let mut state = self.state();
        if state.closed {
            return Ok(());
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
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }

    /// Takes out what came first. None when the node is gone.
    pub(crate) fn poll_take(&self, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        let mut state = self.state();
        if let Some(delivery) = state.waiting.pop_front() {
            if let Delivery::Frame(frame, _) = &delivery {
                state.bytes -= weight(frame);
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
