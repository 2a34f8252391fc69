//! libp2p's request-response: a stream of its own for each request, both ways one opaque message.

use std::collections::HashMap;
use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::request_response::{Behaviour, Codec, Config, Event, Message, OutboundRequestId, ProtocolSupport};
use libp2p::swarm::SwarmEvent;
use libp2p::{PeerId, StreamProtocol, Swarm};
use tokio::sync::{mpsc, oneshot};

use super::{STREAMS, dial, listen, swarm};
use crate::endpoint::{Gate, Result, Said, Spec, say};
use crate::load::{Called, Parcel, call as ask};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/versus/request/1");

/// Each way there is one message, and then the stream's end.
#[derive(Clone, Debug, Default)]
struct Opaque;

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let mut payload = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut payload).await?;
    Ok(payload)
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    stream.write_all(&[&length.to_le_bytes(), payload].concat()).await
}

impl Codec for Opaque {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, stream: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(stream).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, stream: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(stream).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, stream: &mut T, payload: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(stream, &payload).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, stream: &mut T, payload: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(stream, &payload).await
    }
}

fn behaviour() -> Behaviour<Opaque> {
    Behaviour::new([(PROTOCOL, ProtocolSupport::Full)], Config::default().with_max_concurrent_streams(STREAMS))
}

pub(in crate::systems) async fn serve(spec: &Spec) -> Result<()> {
    let mut swarm = swarm(behaviour())?;
    listen(&mut swarm, spec).await?;
    say(&Said::Ready);
    loop {
        let event = swarm.select_next_some().await;
        let SwarmEvent::Behaviour(Event::Message { message, .. }) = event else { continue };
        if let Message::Request { request, channel, .. } = message {
            let question = Parcel::decode(&request).ok_or("no parcel")?;
            // Who is gone needs no answer.
            let _ = swarm.behaviour_mut().send_response(channel, question.encode());
        }
    }
}

/// A question, and who waits for its answer.
type Question = (Vec<u8>, oneshot::Sender<Vec<u8>>);

async fn drive(mut swarm: Swarm<Behaviour<Opaque>>, server: PeerId, mut questions: mpsc::Receiver<Question>) {
    let mut askers: HashMap<OutboundRequestId, oneshot::Sender<Vec<u8>>> = HashMap::new();
    loop {
        tokio::select! {
            Some((question, asker)) = questions.recv() => {
                askers.insert(swarm.behaviour_mut().send_request(&server, question), asker);
            }
            event = swarm.select_next_some() => match event {
                SwarmEvent::Behaviour(Event::Message { message: Message::Response { request_id, response }, .. }) => {
                    let _ = askers.remove(&request_id).map(|asker| asker.send(response));
                }
                // Its asker sees that nobody will answer.
                SwarmEvent::Behaviour(Event::OutboundFailure { request_id, .. }) => drop(askers.remove(&request_id)),
                _ => {}
            }
        }
    }
}

pub(in crate::systems) async fn call(spec: &Spec, gate: &Gate) -> Result<Called> {
    let mut swarm = swarm(behaviour())?;
    let server = dial(&mut swarm, spec).await?.pop().ok_or("nobody serves")?;
    let (to_swarm, questions) = mpsc::channel(1024);
    tokio::spawn(drive(swarm, server, questions));
    gate.pass()?;
    let once = move |question: Parcel| {
        let to_swarm = to_swarm.clone();
        async move {
            let (asker, answer) = oneshot::channel();
            to_swarm.send((question.encode(), asker)).await.ok()?;
            Parcel::decode(&answer.await.ok()?)
        }
    };
    Ok(ask(spec.load, spec.in_flight, once).await)
}
