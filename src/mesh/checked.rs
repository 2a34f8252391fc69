//! Opening what came from outside: decoding, and checking every signature in it.
//!
//! Pure, but not cheap, so the driver has it done off its own task and tells the mesh the result.

use std::sync::Arc;

use bytes::Bytes;

use super::event::Checked;
use crate::wire::MeshId;
use crate::wire::codec::CodecError;
use crate::wire::frame::Frame;
use crate::wire::roster::SignedRecord;
use crate::wire::rpc::{Request, Response};

/// Opens a request.
pub(crate) fn request(mesh: MeshId, bytes: &[u8]) -> Result<Checked<Request>, CodecError> {
    let mut body = Request::decode(bytes)?;
    let (mut frames, mut records) = (Vec::new(), Vec::new());
    match &mut body {
        Request::Inject { frames: inside, .. } => frames = open_frames(mesh, std::mem::take(inside)),
        Request::Push { records: inside, .. } => records = open_records(mesh, std::mem::take(inside)),
        Request::Call(_)
        | Request::Cancel { .. }
        | Request::Repair { .. }
        | Request::Acknowledge { .. }
        | Request::Heads { .. }
        | Request::Digest { .. }
        | Request::Fetch { .. } => {}
    }
    Ok(Checked { body, frames, records })
}

/// Opens the answer to a request.
pub(crate) fn response(mesh: MeshId, bytes: &[u8]) -> Result<Checked<Response>, CodecError> {
    let mut body = Response::decode(bytes)?;
    let (mut frames, mut records) = (Vec::new(), Vec::new());
    match &mut body {
        Response::Frames { frames: inside, .. } => frames = open_frames(mesh, std::mem::take(inside)),
        Response::Records { records: inside, .. } => records = open_records(mesh, std::mem::take(inside)),
        Response::Done { .. } | Response::Reply(_) | Response::Injected { .. } | Response::Differ { .. } => {}
    }
    Ok(Checked { body, frames, records })
}

/// Those that are frames of this mesh. Whoever sent the others gains nothing by it.
fn open_frames(mesh: MeshId, inside: Vec<Bytes>) -> Vec<Arc<Frame>> {
    inside.into_iter().filter_map(|bytes| Frame::open(mesh, bytes).ok()).map(Arc::new).collect()
}

fn open_records(mesh: MeshId, inside: Vec<Bytes>) -> Vec<SignedRecord> {
    inside.into_iter().filter_map(|bytes| SignedRecord::open(mesh, bytes).ok()).collect()
}
