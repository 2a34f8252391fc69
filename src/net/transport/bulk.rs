//! Fewer and larger steps for connections that carry much: around encryption, on the side of the socket when reading, on
//! the side of the multiplexer when writing.
//!
//! Noise asks its socket for 8 KiB at a time, and yamux flushes after each of its frames of 16 KiB at most: at hundreds of
//! megabytes a second the system calls and the small ciphertexts cost as much as everything else. Neither can be set. What
//! carries little goes through as it came.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::futures::future::Ready;
use libp2p::futures::{AsyncRead, AsyncWrite};
use libp2p::yamux;

/// Bytes that are read at once while there are many.
const READ: usize = 64 * 1024;

/// Whoever has written so much at once is likely to go on.
const MUCH: usize = 8 * 1024;

/// A socket that is read in larger steps than its reader asks for, as long as there is that much to read.
#[derive(Debug)]
pub(super) struct Wide<S> {
    socket: S,
    /// Nothing, unless there was more to read than was asked for.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<S> Wide<S> {
    pub(super) fn new(socket: S) -> Self {
        Self { socket, buffer: Box::default(), start: 0, end: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wide<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let Self { socket, buffer, start, end } = &mut *self;
        if start == end {
            if buffer.is_empty() {
                let read = ready!(Pin::new(socket).poll_read(context, into))?;
                if read == into.len() && read >= MUCH {
                    *buffer = vec![0; READ].into();
                }
                return Poll::Ready(Ok(read));
            }
            (*start, *end) = (0, ready!(Pin::new(socket).poll_read(context, buffer))?);
        }
        let read = into.len().min(*end - *start);
        into[..read].copy_from_slice(&buffer[*start..*start + read]);
        *start += read;
        // Those that carry little hold nothing.
        if start == end && *end < MUCH {
            *buffer = Box::default();
            (*start, *end) = (0, 0);
        }
        Poll::Ready(Ok(read))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wide<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(context)
    }
}

/// A stream that is flushed when its writer pauses, and not in the midst of much.
#[derive(Debug)]
pub(super) struct Gathered<S> {
    stream: S,
    /// Bytes that were written since a flush was last asked for.
    written: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.written += written;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.written) >= MUCH {
            // Whoever asks does what else it has to do, and asks again at once: then there is either more, or no more.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

/// Yamux on such a stream.
#[derive(Clone, Debug)]
pub(super) struct GatheredYamux(pub(super) yamux::Config);

impl UpgradeInfo for GatheredYamux {
    type Info = <yamux::Config as UpgradeInfo>::Info;
    type InfoIter = <yamux::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<S> for GatheredYamux {
    type Output = yamux::Muxer<Gathered<S>>;
    type Error = io::Error;
    type Future = Ready<Result<Self::Output, io::Error>>;

    fn upgrade_inbound(self, stream: S, info: Self::Info) -> Self::Future {
        self.0.upgrade_inbound(Gathered { stream, written: 0 }, info)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<S> for GatheredYamux {
    type Output = yamux::Muxer<Gathered<S>>;
    type Error = io::Error;
    type Future = Ready<Result<Self::Output, io::Error>>;

    fn upgrade_outbound(self, stream: S, info: Self::Info) -> Self::Future {
        self.0.upgrade_outbound(Gathered { stream, written: 0 }, info)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use libp2p::futures::io::Cursor;
    use libp2p::futures::task::{ArcWake, waker};
    use proptest::prelude::*;

    use super::*;

    /// Gives what it has in pieces of these sizes, then nothing for now, and notes how much was asked for.
    #[derive(Debug, Default)]
    struct Script {
        bytes: Vec<u8>,
        given: usize,
        sizes: Vec<usize>,
        asked: Vec<usize>,
        flushed: usize,
    }

    impl AsyncRead for Script {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
            self.asked.push(into.len());
            let Some(size) = self.sizes.pop() else { return Poll::Pending };
            let (from, size) = (self.given, size.min(into.len()).min(self.bytes.len() - self.given));
            into[..size].copy_from_slice(&self.bytes[from..from + size]);
            self.given += size;
            if size == 0 { Poll::Pending } else { Poll::Ready(Ok(size)) }
        }
    }

    impl AsyncWrite for Script {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.bytes.extend(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushed = self.bytes.len();
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Reads until there is nothing for now.
    fn read<S: AsyncRead + Unpin>(from: &mut S, at_once: usize) -> Vec<u8> {
        let (mut all, mut part) = (Vec::new(), vec![0; at_once]);
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Ok(read)) = Pin::new(&mut *from).poll_read(&mut context, &mut part) {
            all.extend(&part[..read]);
            if read == 0 {
                break;
            }
        }
        all
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_came(sizes in prop::collection::vec(1_usize..100_000, 0..20), at_once in 1_usize..20_000) {
            let bytes: Vec<u8> = (0_u32..400_000).map(|n| n.to_le_bytes()[1] ^ n.to_le_bytes()[0]).collect();
            let mut wide = Wide::new(Script { bytes: bytes.clone(), sizes, ..Script::default() });
            let got = read(&mut wide, at_once);
            prop_assert_eq!(got.len(), wide.socket.given);
            prop_assert!(bytes.starts_with(&got));
        }
    }

    #[test]
    fn the_end_shows() {
        let mut wide = Wide::new(Cursor::new(vec![7; 100_000]));
        assert_eq!(read(&mut wide, MUCH).len(), 100_000);
        let mut context = Context::from_waker(Waker::noop());
        let end = Pin::new(&mut wide).poll_read(&mut context, &mut [0; 9]);
        assert!(matches!(end, Poll::Ready(Ok(0))), "{end:?}");
    }

    #[test]
    fn much_is_read_in_large_steps_and_little_takes_no_memory() {
        let mut wide = Wide::new(Script { bytes: vec![1; 400_000], sizes: vec![100; 5], ..Script::default() });
        assert_eq!(read(&mut wide, MUCH).len(), 500);
        assert!(wide.buffer.is_empty());
        wide.socket.sizes = vec![100_000; 3];
        assert_eq!(read(&mut wide, MUCH).len(), MUCH + 2 * READ);
        assert!(wide.socket.asked.ends_with(&[MUCH, READ, READ, READ]), "{:?}", wide.socket.asked);
        wide.socket.sizes = vec![100];
        assert_eq!(read(&mut wide, MUCH).len(), 100);
        assert!(wide.buffer.is_empty());
    }

    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicBool);

    impl ArcWake for Woken {
        fn wake_by_ref(woken: &std::sync::Arc<Self>) {
            woken.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[test]
    fn little_is_flushed_at_once_and_much_when_no_more_follows() {
        let woken = std::sync::Arc::new(Woken::default());
        let waker = waker(std::sync::Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut gathered = Gathered { stream: Script::default(), written: 0 };
        let mut flush = |gathered: &mut Gathered<Script>, bytes: usize| {
            let written = Pin::new(&mut *gathered).poll_write(&mut context, &vec![0; bytes]);
            assert!(matches!(written, Poll::Ready(Ok(all)) if all == bytes));
            let ready = Pin::new(&mut *gathered).poll_flush(&mut context).is_ready();
            assert_eq!(ready, gathered.stream.flushed == gathered.stream.bytes.len());
            assert_eq!(ready, !woken.0.swap(false, std::sync::atomic::Ordering::Relaxed), "it comes again");
            ready
        };
        assert!(flush(&mut gathered, MUCH - 1));
        assert!(!flush(&mut gathered, MUCH) && !flush(&mut gathered, 2 * MUCH));
        assert!(flush(&mut gathered, 0));
        assert!(!flush(&mut gathered, MUCH) && flush(&mut gathered, 1));
    }
}
