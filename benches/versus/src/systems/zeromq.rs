//! ZeroMQ: the publisher listens, each subscriber connects; not encrypted. At its high-water mark it waits, not drops.

use std::ffi::c_int;

use zmq::{Context, Message, Socket, SocketType};

use super::{ENDS, PAUSE};
use crate::clock;
use crate::endpoint::{Gate, Result, Said, Spec, say};
use crate::load::{Sink, Source};

/// Sets an option that its wrapper has no function for.
#[expect(unsafe_code, reason = "an option of a C library, set as its documentation says")]
fn switch_on(socket: &mut Socket, option: u32) -> Result<()> {
    let (option, on): (c_int, c_int) = (c_int::try_from(option)?, 1);
    // SAFETY: the socket is alive, and the option's value is an `int` that is alive and of the size given.
    let set =
        unsafe { zmq_sys::zmq_setsockopt(socket.as_mut_ptr(), option, (&raw const on).cast(), size_of::<c_int>()) };
    if set == 0 { Ok(()) } else { Err(format!("the option {option} is refused").into()) }
}

pub(super) fn publish(spec: &Spec, subscribers: usize, gate: &Gate) -> Result<()> {
    let mut socket = Context::new().socket(SocketType::XPUB)?;
    socket.set_sndhwm(1000)?;
    // It waits for slow subscribers, and tells of each subscription, though others have the same.
    switch_on(&mut socket, zmq_sys::ZMQ_XPUB_NODROP)?;
    switch_on(&mut socket, zmq_sys::ZMQ_XPUB_VERBOSE)?;
    socket.bind(&format!("tcp://127.0.0.1:{}", spec.port()))?;
    gate.pass()?;
    for _ in 0..subscribers {
        socket.recv_bytes(0)?;
    }
    let mut source = Source::new(spec.load);
    while let Some(parcel) = source.next() {
        socket.send(parcel.encode(), 0)?;
    }
    super::done(&source);
    for _ in 0..ENDS {
        socket.send(source.end().encode(), 0)?;
        clock::sleep_until(clock::now() + u64::try_from(PAUSE.as_nanos())?);
    }
    // Dropped, it could lose what is still under way.
    std::mem::forget(socket);
    Ok(())
}

pub(super) fn subscribe(spec: &Spec, sink: &Sink) -> Result<()> {
    let socket = Context::new().socket(SocketType::SUB)?;
    socket.set_subscribe(b"")?;
    socket.connect(&format!("tcp://127.0.0.1:{}", spec.port()))?;
    say(&Said::Ready);
    let mut message = Message::new();
    loop {
        socket.recv(&mut message, 0)?;
        if sink.note(&message) {
            return Ok(());
        }
    }
}
