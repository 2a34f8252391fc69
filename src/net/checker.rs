//! The checker: opens gossip frames and verifies their signatures, in a task of its own.
//!
//! Gossipsub has dropped duplicates before, so each frame is verified once. Records that come over request-response are
//! opened where they are read, in their connection's task: see [`net::rpc`](crate::net::rpc).

use std::sync::Arc;

use bytes::Bytes;
use libp2p::PeerId;
use tokio::sync::mpsc;
use tracing::debug;

use crate::mesh::event::{GossipId, Input, Via};
use crate::net::hub::Hub;
use crate::wire::MeshId;
use crate::wire::frame::Frame;

/// A gossip message as it came.
#[derive(Debug)]
pub(crate) struct Unchecked {
    pub(crate) from: PeerId,
    pub(crate) gossip: GossipId,
    /// On which shard's topic.
    pub(crate) shard: u8,
    pub(crate) bytes: Bytes,
}

/// Opens frames until the driver is gone.
pub(crate) async fn run(mesh: MeshId, mut unchecked: mpsc::Receiver<Unchecked>, hub: Arc<Hub>) {
    while let Some(Unchecked { from, gossip, shard, bytes }) = unchecked.recv().await {
        let input = match Frame::open(mesh, bytes) {
            Ok(frame) if frame.stream.shard() == shard => {
                Input::Frame { frame: Arc::new(frame), via: Via::Gossip { from, gossip } }
            }
            Ok(frame) => {
                debug!(%from, author = %frame.stream.node, "a frame on another shard's topic");
                Input::BadGossip { from, gossip, may_be_sound: false }
            }
            Err(error) => {
                debug!(%from, %error, "not a frame of this mesh");
                Input::BadGossip { from, gossip, may_be_sound: error.is_of_later_version() }
            }
        };
        if hub.tell(input).is_err() {
            return;
        }
    }
}
