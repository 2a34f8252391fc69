//! One exchange with a peer: the codec for libp2p's request-response.
//!
//! On the wire each way: the length as u32, big-endian, then that many bytes. They are encoded, decoded, and the signatures
//! in them verified in the task of the connection that they travel on; what they mean is the mesh's business.

use std::io;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::{self, ProtocolSupport};

use crate::mesh::checked;
use crate::mesh::event::Checked;
use crate::mesh::requests::{IN_FLIGHT, MAX_TIMEOUT};
use crate::net::verified::Recent;
use crate::wire::MeshId;
use crate::wire::codec::CodecError;
use crate::wire::rpc::{Request, Response};

/// The largest message (1 MiB) and what surrounds it.
pub(crate) const MAX_LEN: usize = (1024 + 64) * 1024;

/// Above the longest deadline of the mesh, a request's: the mesh has its own for everything but what it merely tells, and of
/// that an entry is kept until the answer comes or the link ends. This one only ends what the mesh forgot.
const TIMEOUT: Duration = Duration::from_micros(MAX_TIMEOUT.0).saturating_add(TRANSFER);

/// How long a message may take onto or off a stream. An answer is waited for longer; but whoever stops in the middle of what
/// they say, or does not take what they asked for, must not hold one of few exchanges for a day.
const TRANSFER: Duration = Duration::from_secs(30);

/// Exchanges at once on a connection, both ways together: beyond it inbound ones are dropped in silence. As many calls as
/// either side sends at once, and room beside them: two nodes that ask each other all they can must still hear what else
/// there is. Well below what the multiplexer admits, because with negotiation and lanes on top the connection must never
/// reach *that* limit: it would end.
const MAX_STREAMS: usize = 2 * IN_FLIGHT + 512;

/// Memory set aside before a byte has arrived: a length is only a claim.
const FIRST_ALLOCATION: usize = 16 * 1024;

/// Exchanges with peers.
pub(crate) type Behaviour = request_response::Behaviour<Codec>;

/// What becomes of exchanges.
pub(crate) type Event = request_response::Event<Checked<Request>, Checked<Response>>;

/// Where the answer to a peer's request goes.
pub(crate) type Answering = request_response::ResponseChannel<Checked<Response>>;

/// The behaviour with its settings.
pub(crate) fn behaviour(mesh: MeshId) -> Behaviour {
    let config =
        request_response::Config::default().with_request_timeout(TIMEOUT).with_max_concurrent_streams(MAX_STREAMS);
    let codec = Codec { mesh, verified: Recent::default() };
    Behaviour::with_codec(codec, [(StreamProtocol::new("/pombo/rpc/1"), ProtocolSupport::Full)], config)
}

/// Reads and writes the records of one mesh.
#[derive(Clone, Debug)]
pub(crate) struct Codec {
    mesh: MeshId,
    /// The same for all connections.
    verified: Recent,
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Checked<Request>;
    type Response = Checked<Response>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Checked<Request>>
    where
        T: AsyncRead + Unpin + Send,
    {
        checked::request_with(&self.verified, self.mesh, &in_time(read(io)).await?).map_err(malformed)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Checked<Response>>
    where
        T: AsyncRead + Unpin + Send,
    {
        checked::response_with(&self.verified, self.mesh, &read(io).await?).map_err(malformed)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Checked<Request>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        in_time(write(io, &request.body.encode().map_err(malformed)?)).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, response: Checked<Response>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        in_time(write(io, &response.body.encode().map_err(malformed)?)).await
    }
}

fn malformed(error: CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

async fn in_time<T>(transfer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let too_slow = |_| io::Error::new(io::ErrorKind::TimedOut, "the other side stopped in the middle of a message");
    tokio::time::timeout(TRANSFER, transfer).await.map_err(too_slow)?
}

async fn read(io: &mut (impl AsyncRead + Unpin + Send)) -> io::Result<Vec<u8>> {
    let mut prefix = [0; 4];
    io.read_exact(&mut prefix).await?;
    let claimed = u32::from_be_bytes(prefix);
    let len = usize::try_from(claimed).ok().filter(|len| *len <= MAX_LEN).ok_or_else(|| too_long(claimed))?;
    let mut bytes = Vec::with_capacity(len.min(FIRST_ALLOCATION));
    io.take(claimed.into()).read_to_end(&mut bytes).await?;
    if bytes.len() < len {
        let text = format!("the stream ended after {} of {len} bytes", bytes.len());
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
    }
    Ok(bytes)
}

async fn write(io: &mut (impl AsyncWrite + Unpin + Send), bytes: &[u8]) -> io::Result<()> {
    let len =
        u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MAX_LEN).ok_or_else(|| too_long(bytes.len()))?;
    io.write_all(&len.to_be_bytes()).await?;
    io.write_all(bytes).await?;
    io.flush().await
}

fn too_long(len: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("an exchange of {len} bytes is over the limit of {MAX_LEN}"))
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    #[tokio::test]
    async fn what_is_written_reads_back() {
        for bytes in [vec![], vec![7], vec![1; MAX_LEN]] {
            let mut wire = Vec::new();
            write(&mut wire, &bytes).await.unwrap();
            assert_eq!(wire.len(), 4 + bytes.len());
            assert_eq!(read(&mut Cursor::new(wire)).await.unwrap(), bytes);
        }
    }

    #[test]
    fn the_longest_request_ends_by_its_own_deadline() {
        assert!(TIMEOUT > Duration::from_micros(MAX_TIMEOUT.0), "{TIMEOUT:?}");
    }

    #[tokio::test]
    async fn too_much_is_refused_on_both_sides() {
        let error = write(&mut Vec::new(), &vec![0; MAX_LEN + 1]).await.unwrap_err();
        assert!(error.to_string().contains("over the limit"), "{error}");
        for claimed in [MAX_LEN as u32 + 1, u32::MAX] {
            let error = read(&mut Cursor::new(claimed.to_be_bytes())).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
            assert!(error.to_string().contains(&claimed.to_string()), "{error}");
        }
    }

    #[test]
    fn a_length_is_only_a_claim() {
        let wire = [&u32::try_from(MAX_LEN).unwrap().to_be_bytes()[..], &[7; 100]].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let cost = allocation_counter::measure(|| {
            assert!(runtime.block_on(read(&mut Cursor::new(&wire))).is_err());
        });
        assert!(cost.bytes_max < 64 * 1024, "{cost:?}");
    }

    #[tokio::test]
    async fn a_stream_that_ends_early_is_an_error() {
        for wire in [vec![], vec![0, 0], vec![0, 0, 0, 5, 1, 2]] {
            let error = read(&mut Cursor::new(wire)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
        }
    }
}
