//! What the parts of the mesh write their wishes into, and the randomness that they share.

use std::collections::{BTreeMap, VecDeque};

use libp2p_identity::PeerId;

use super::event::{InboundId, Output, RpcId, Ticket};
use super::postman::Address;
use super::time::Span;
use crate::wire::frame::Stream;
use crate::wire::rpc::{Request, Response};

/// Why a request went out, so that its answer finds the part that asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A call of a service, for the caller with this ticket. The number tells this attempt from those at other providers.
    Call { ticket: Ticket, call: u64 },
    /// Frames that are missing here.
    Repair { stream: Stream, from: u64, to: u64 },
    /// Roster records, told to this neighbour.
    Push { peer: PeerId },
    /// A comparison of rosters with this neighbour.
    Digest { peer: PeerId },
    /// Records that this neighbour has and we lack.
    Fetch { peer: PeerId },
    /// Frames handed over for good by a short-lived node.
    Inject { batch: u64 },
    /// Letters that were offered for that recipient.
    Offer { of: Address, to: PeerId },
    /// Copies that were given to that node.
    Keep { at: PeerId },
    /// What that one knows of a message.
    Where { ticket: Ticket },
    /// Where our streams stand, told before we leave.
    LastHeads,
    /// Nothing hangs on the answer.
    Told,
}

/// Wishes in order, requests that wait for an answer, and a source of pseudo-random numbers.
#[derive(Debug)]
pub(crate) struct Effects {
    outputs: VecDeque<Output>,
    asked: BTreeMap<RpcId, Asked>,
    next_rpc: u64,
    random: u64,
}

impl Effects {
    pub(crate) fn new(seed: u64) -> Self {
        Self { outputs: VecDeque::new(), asked: BTreeMap::new(), next_rpc: 0, random: seed }
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn extend(&mut self, outputs: impl IntoIterator<Item = Output>) {
        self.outputs.extend(outputs);
    }

    pub(crate) fn pop(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Sends a request. The driver answers every one, if only with a failure, so this table empties itself.
    pub(crate) fn ask(&mut self, to: PeerId, request: Request, asked: Asked) -> RpcId {
        let id = RpcId(self.next_rpc);
        self.next_rpc += 1;
        self.asked.insert(id, asked);
        self.push(Output::Send { id, to, request });
        id
    }

    pub(crate) fn answered(&mut self, id: RpcId) -> Option<Asked> {
        self.asked.remove(&id)
    }

    /// How many requests have no answer yet.
    pub(crate) fn open(&self) -> usize {
        self.asked.len()
    }

    /// Whether a request of that kind waits for its answer.
    pub(crate) fn is_asking(&self, kind: impl Fn(&Asked) -> bool) -> bool {
        self.asked.values().any(kind)
    }

    pub(crate) fn reply(&mut self, to: InboundId, response: Response) {
        self.push(Output::Reply { to, response });
    }

    /// SplitMix64: good enough to spread timers and pick neighbours, and the same for the same seed everywhere.
    pub(crate) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, or 0 if that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.random() % bound).unwrap_or(0)
    }

    /// `span`, more or less a quarter.
    pub(crate) fn jitter(&mut self, span: Span) -> Span {
        let half = (span.0 / 2).max(1);
        Span(span.0 - span.0 / 4 + self.random() % half)
    }
}
