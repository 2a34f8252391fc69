//! Opening what came from outside: decoding, and checking every signature in it.
//!
//! Pure, but not cheap, so the driver has it done off its own task and tells the mesh the result.

use std::sync::Arc;

use bytes::Bytes;

use super::event::Checked;
use crate::wire::MeshId;
use crate::wire::codec::CodecError;
use crate::wire::frame::{Frame, FrameError};
use crate::wire::roster::{RecordError, SignedRecord};
use crate::wire::rpc::{Request, Response};

/// Opens a request.
pub(crate) fn request(mesh: MeshId, bytes: &[u8]) -> Result<Checked<Request>, CodecError> {
    let mut body = Request::decode(bytes)?;
    let (mut frames, mut records, mut forged) = (Vec::new(), Vec::new(), 0);
    match &mut body {
        Request::Inject { frames: inside, .. } => frames = open_frames(mesh, std::mem::take(inside), &mut forged),
        Request::Push { records: inside, .. } => records = open_records(mesh, std::mem::take(inside), &mut forged),
        Request::Call(_)
        | Request::Cancel { .. }
        | Request::Repair { .. }
        | Request::Acknowledge { .. }
        | Request::Heads { .. }
        | Request::Digest { .. }
        | Request::Fetch { .. } => {}
    }
    Ok(Checked { body, frames, records, forged })
}

/// Opens the answer to a request.
pub(crate) fn response(mesh: MeshId, bytes: &[u8]) -> Result<Checked<Response>, CodecError> {
    let mut body = Response::decode(bytes)?;
    let (mut frames, mut records, mut forged) = (Vec::new(), Vec::new(), 0);
    match &mut body {
        Response::Frames { frames: inside, .. } => frames = open_frames(mesh, std::mem::take(inside), &mut forged),
        Response::Records { records: inside, .. } => records = open_records(mesh, std::mem::take(inside), &mut forged),
        Response::Done { .. } | Response::Reply(_) | Response::Injected { .. } | Response::Differ { .. } => {}
    }
    Ok(Checked { body, frames, records, forged })
}

/// Those that are frames of this mesh. What only a later version could read is nobody's fault.
fn open_frames(mesh: MeshId, inside: Vec<Bytes>, forged: &mut u32) -> Vec<Arc<Frame>> {
    let opened = inside.into_iter().filter_map(|bytes| {
        let opened = Frame::open(mesh, bytes);
        *forged += u32::from(matches!(opened, Err(FrameError::Signature)));
        opened.ok().map(Arc::new)
    });
    opened.collect()
}

fn open_records(mesh: MeshId, inside: Vec<Bytes>, forged: &mut u32) -> Vec<SignedRecord> {
    let opened = inside.into_iter().filter_map(|bytes| {
        let opened = SignedRecord::open(mesh, bytes);
        *forged += u32::from(matches!(opened, Err(RecordError::Signature)));
        opened.ok()
    });
    opened.collect()
}
