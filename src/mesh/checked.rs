//! Opening what came from outside: decoding, and checking every signature in it.
//!
//! Pure, but not cheap, so the driver has it done off its own task and tells the mesh the result.

use std::sync::Arc;

use bytes::Bytes;

use super::event::Checked;
use super::time::Wall;
use crate::wire::MeshId;
use crate::wire::codec::CodecError;
use crate::wire::custody::{Brought, CopyStage};
use crate::wire::frame::{Frame, FrameError};
use crate::wire::letter::Letter;
use crate::wire::node_key::NodeKey;
use crate::wire::roster::{RecordError, SignedRecord};
use crate::wire::rpc::{Offered, Request, Response};

/// Records whose signature was found right, by their bytes. Every neighbour passes on every record, and to verify one costs more
/// than all else that is done with it.
pub(crate) trait Verified {
    fn has(&self, record: &[u8]) -> bool;
    fn add(&self, record: &[u8]);
}

/// Remembers nothing.
impl Verified for () {
    fn has(&self, _: &[u8]) -> bool {
        false
    }

    fn add(&self, _: &[u8]) {}
}

/// Opens a request.
pub(crate) fn request(mesh: MeshId, bytes: &[u8]) -> Result<Checked<Request>, CodecError> {
    request_with(&(), mesh, bytes)
}

/// Opens the answer to a request.
pub(crate) fn response(mesh: MeshId, bytes: &[u8]) -> Result<Checked<Response>, CodecError> {
    response_with(&(), mesh, bytes)
}

/// Opens a request, but for signatures that were verified before.
pub(crate) fn request_with(
    verified: &impl Verified,
    mesh: MeshId,
    bytes: &[u8],
) -> Result<Checked<Request>, CodecError> {
    let mut body = Request::decode(bytes)?;
    let (mut frames, mut records, mut forged, mut letters) = (Vec::new(), Vec::new(), 0, Vec::new());
    let mut entrusted = Vec::new();
    match &mut body {
        Request::Offer { letters: inside, .. } => letters = open_letters(inside),
        Request::Bring { to, sender, letters: inside, .. } => {
            letters = open_brought(mesh, (to, *sender), inside, &mut forged);
        }
        Request::Keep { letters: inside, .. } => {
            let bare = |letter| Letter { payload: Bytes::new(), ..letter };
            entrusted = inside.iter().map(|one| one.open().map(bare)).collect();
        }
        Request::Inject { frames: inside, .. } => frames = open_frames(mesh, std::mem::take(inside), &mut forged),
        Request::Push { records: inside, .. } => {
            records = open_records(verified, mesh, std::mem::take(inside), &mut forged);
        }
        Request::Call(_)
        | Request::Cancel { .. }
        | Request::Repair { .. }
        | Request::Acknowledge { .. }
        | Request::Heads { .. }
        | Request::Digest { .. }
        | Request::Fetch { .. }
        | Request::Where { .. }
        | Request::Progress { .. } => {}
    }
    Ok(Checked { body, frames, records, forged, letters, entrusted })
}

/// Opens the answer to a request, but for signatures that were verified before.
pub(crate) fn response_with(
    verified: &impl Verified,
    mesh: MeshId,
    bytes: &[u8],
) -> Result<Checked<Response>, CodecError> {
    let mut body = Response::decode(bytes)?;
    let (mut frames, mut records, mut forged) = (Vec::new(), Vec::new(), 0);
    match &mut body {
        Response::Frames { frames: inside, .. } => frames = open_frames(mesh, std::mem::take(inside), &mut forged),
        Response::Records { records: inside, .. } => {
            records = open_records(verified, mesh, std::mem::take(inside), &mut forged);
        }
        Response::Kept { sender, known, .. } => {
            // Of one that is not signed by whom it says nothing is known.
            known.iter_mut().filter(|copied| !copied.holds(*sender, mesh)).for_each(|copied| {
                copied.stage = CopyStage::Waiting;
                forged += 1;
            });
        }
        Response::Done { .. }
        | Response::Brought { .. }
        | Response::Reply(_)
        | Response::Injected { .. }
        | Response::Differ { .. }
        | Response::Offered { .. }
        | Response::Known { .. } => {}
    }
    Ok(Checked { body, frames, records, forged, letters: Vec::new(), entrusted: Vec::new() })
}

/// When the time of each is over. None for one that is not as it was sealed, or is another than it is said to be.
pub(crate) fn open_letters(inside: &[Offered]) -> Vec<Option<Wall>> {
    inside.iter().map(open_letter).collect()
}

pub(crate) fn open_letter(offered: &Offered) -> Option<Wall> {
    let letter = Letter::open(&offered.sealed).ok().filter(|letter| letter.id == offered.id);
    letter.map(|letter| Wall(letter.expires))
}

/// As [`open_letters`], of letters that another offers than their sender: without its signature they are none.
pub(crate) fn open_brought(
    mesh: MeshId,
    (to, sender): (&str, NodeKey),
    inside: &[Brought],
    forged: &mut u32,
) -> Vec<Option<Wall>> {
    let open = |brought: &Brought| {
        let expires = open_letter(&brought.offered)?;
        let is_from = brought.is_from(sender, mesh, to);
        *forged += u32::from(!is_from);
        is_from.then_some(expires)
    };
    inside.iter().map(open).collect()
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

fn open_records(verified: &impl Verified, mesh: MeshId, inside: Vec<Bytes>, forged: &mut u32) -> Vec<SignedRecord> {
    let opened = inside.into_iter().filter_map(|bytes| {
        let read = SignedRecord::read(bytes);
        *forged += u32::from(matches!(read, Err(RecordError::Signature)));
        let signed = read.ok()?;
        if verified.has(&signed.bytes) {
            return Some(signed);
        }
        if !signed.verifies(mesh) {
            *forged += 1;
            return None;
        }
        verified.add(&signed.bytes);
        Some(signed)
    });
    opened.collect()
}
