//! Requests and answers: over a lane where one stands, by an exchange of their own where none does. And what else comes over
//! lanes.

use libp2p::PeerId;

use super::{Hub, State, Work};
use crate::mesh::dispatch::Lanes as _;
use crate::mesh::event::{InboundId, Input, LaneId, Output, RpcFailure, RpcId, Via};
use crate::mesh::lane::Message;
use crate::net::lanes::Read;
use crate::net::rpc::Answering;
use crate::wire::rpc::{Request, Response};

/// Where the answer to a request goes.
#[derive(Debug)]
pub(crate) enum AnswerTo {
    Exchange(Answering),
    Lane { lane: LaneId, id: u64 },
}

impl Hub {
    /// Our half of a lane stands.
    pub(in crate::net) fn lane_up(&self, peer: PeerId, lane: LaneId) {
        self.with(|state| {
            if state.lanes.has(lane) {
                state.desks.lanes_to.entry(peer).or_default().insert(lane);
                state.handle(Input::LaneUp { peer, lane });
            }
        });
    }

    /// The other side's half stands.
    pub(in crate::net) fn lane_begun(&self, peer: PeerId, lane: LaneId) {
        self.with(|state| {
            if state.lanes.has(lane) {
                state.handle(Input::LaneBegun { peer, lane });
            }
        });
    }

    /// A lane is over, and out of the table.
    pub(in crate::net) fn lane_down(&self, lane: LaneId, unsent: &[u64]) {
        self.with(|state| state.lane_down(lane, unsent));
    }
}

impl State {
    /// Large answers that lanes have written by now.
    pub(super) fn written(&mut self) {
        if self.desks.large_answers.is_empty() {
            return;
        }
        let Self { desks, lanes, .. } = self;
        let is_written = |lane| !(&*lanes).with(lane, |outbox| outbox.has_large()).unwrap_or(false);
        let written: Vec<_> = desks.large_answers.extract_if(.., |(lane, _)| is_written(*lane)).collect();
        written.into_iter().for_each(|(_, id)| self.handle(Input::Replied { id }));
    }

    pub(super) fn send(&mut self, id: RpcId, to: PeerId, request: Request) {
        if let Some(lane) = self.lane_for(&to, &request) {
            self.desks.asked_over.insert(id, lane);
            self.push(lane, Message::Request { id: id.0, request });
        } else {
            self.work.push_back(Work::Do(Output::Send { id, to, request }));
        }
    }

    /// A lane that stands and has room is a shorter way than an exchange of its own.
    fn lane_for(&self, to: &PeerId, request: &Request) -> Option<LaneId> {
        // The newest first: of two connections to a peer that was started anew the older one is dead.
        let mut lanes = self.desks.lanes_to.get(to)?.iter().rev().copied();
        lanes.find(|lane| (&self.lanes).with(*lane, |outbox| outbox.has_room_for(request)) == Some(true))
    }

    pub(super) fn reply(&mut self, to: InboundId, response: Response) -> Option<Input> {
        // Without a channel whoever asked went before, and libp2p has said so already.
        let replied = Some(Input::Replied { id: to });
        match self.desks.answering.remove(&to) {
            None => replied,
            Some(AnswerTo::Exchange(channel)) => {
                self.work.push_back(Work::Respond(channel, response));
                None
            }
            Some(AnswerTo::Lane { lane, id }) => {
                let answer = Message::Answer { id, answer: response };
                let large = answer.is_large();
                if large {
                    self.desks.large_answers.push((lane, to));
                }
                self.push(lane, answer);
                // Small ones are written in their order, so whatever is said to the other side later finds it there.
                replied.filter(|_| !large)
            }
        }
    }

    /// Puts something on a lane, or ends one whose other side does not read.
    fn push(&mut self, lane: LaneId, message: Message) {
        if (&self.lanes).with(lane, |outbox| outbox.push_message(message)) == Some(false) {
            self.work.push_back(Work::EndLane(lane));
        }
    }

    fn lane_down(&mut self, lane: LaneId, unsent: &[u64]) {
        self.desks.lanes_to.retain(|_, lanes| {
            lanes.remove(&lane);
            !lanes.is_empty()
        });
        self.handle(Input::LaneDown { lane });
        let lost: Vec<RpcId> = self.desks.asked_over.extract_if(|_, over| *over == lane).map(|(id, _)| id).collect();
        for id in lost {
            let why = if unsent.contains(&id.0) { RpcFailure::NotSent } else { RpcFailure::Unknown };
            self.handle(Input::Response { id, result: Err(why) });
        }
        let of_lane = |to: &AnswerTo| matches!(to, AnswerTo::Lane { lane: other, .. } if *other == lane);
        self.desks.answering.retain(|_, to| !of_lane(to));
    }

    pub(super) fn lane_record(&mut self, peer: PeerId, lane: LaneId, record: Read) {
        match record {
            Read::Frame { since, frame } => self.handle(Input::Frame { frame, via: Via::Lane { lane, since } }),
            Read::Mark(mark) => self.handle(Input::Marked { from: peer, mark }),
            // It ended meanwhile, and its answer would go nowhere.
            Read::Request { .. } if !self.lanes.has(lane) => {}
            Read::Request { id: number, request } => {
                let id = InboundId(self.desks.next());
                self.desks.answering.insert(id, AnswerTo::Lane { lane, id: number });
                self.handle(Input::Request { from: peer, id, request: *request });
            }
            Read::Answer { id, answer } => {
                let id = RpcId(id);
                if self.desks.asked_over.get(&id) == Some(&lane) {
                    self.desks.asked_over.remove(&id);
                    self.handle(Input::Response { id, result: Ok(*answer) });
                }
            }
        }
    }
}
