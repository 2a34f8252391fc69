//! gRPC with tonic: one HTTP/2 connection, with TLS or without. The codec is ours, so that the payload is the same as with
//! the others; the rest is what tonic's generated code does.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::System;
use crate::endpoint::{Gate, Result, Said, Spec, say};
use crate::load::{Called, Parcel, call as ask};

const PATH: &str = "/versus.Parcels/Echo";

#[derive(Clone, Copy, Debug, Default)]
struct Bincode;

impl Codec for Bincode {
    type Encode = Parcel;
    type Decode = Parcel;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Bincode {
    type Item = Parcel;
    type Error = Status;

    fn encode(&mut self, parcel: Parcel, buffer: &mut EncodeBuf<'_>) -> std::result::Result<(), Status> {
        buffer.put_slice(&parcel.encode());
        Ok(())
    }
}

impl Decoder for Bincode {
    type Item = Parcel;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> std::result::Result<Option<Parcel>, Status> {
        let payload = buffer.copy_to_bytes(buffer.remaining());
        Parcel::decode(&payload).map(Some).ok_or_else(|| Status::invalid_argument("no parcel"))
    }
}

/// Answers with the question.
#[derive(Clone, Debug)]
struct Echo;

impl UnaryService<Parcel> for Echo {
    type Response = Parcel;
    type Future = Ready<std::result::Result<Response<Parcel>, Status>>;

    fn call(&mut self, request: Request<Parcel>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

/// The service with its one method.
#[derive(Clone, Debug)]
struct Parcels;

impl NamedService for Parcels {
    const NAME: &'static str = "versus.Parcels";
}

impl Service<http::Request<Body>> for Parcels {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move { Ok(tonic::server::Grpc::new(Bincode).unary(Echo, request).await) })
    }
}

pub(super) async fn serve(spec: &Spec) -> Result<()> {
    let mut server = Server::builder().tcp_nodelay(true);
    if spec.system == System::GrpcTls {
        let read = |name: &str| std::fs::read(spec.scratch.join(name));
        let identity = Identity::from_pem(read("cert.pem")?, read("key.pem")?);
        server = server.tls_config(ServerTlsConfig::new().identity(identity))?;
    }
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", spec.port())).await?;
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    say(&Said::Ready);
    Ok(server.add_service(Parcels).serve_with_incoming(incoming).await?)
}

async fn connect(spec: &Spec) -> Result<Channel> {
    let tls = spec.system == System::GrpcTls;
    let address = format!("{}://localhost:{}", if tls { "https" } else { "http" }, spec.port());
    let mut endpoint = Endpoint::from_shared(address)?.tcp_nodelay(true);
    if tls {
        let root = Certificate::from_pem(std::fs::read(spec.scratch.join("cert.pem"))?);
        endpoint = endpoint.tls_config(ClientTlsConfig::new().ca_certificate(root).domain_name("localhost"))?;
    }
    Ok(endpoint.connect().await?)
}

pub(super) async fn call(spec: &Spec, gate: &Gate) -> Result<Called> {
    let channel = connect(spec).await?;
    gate.pass()?;
    let once = move |question: Parcel| {
        let mut client = tonic::client::Grpc::new(channel.clone());
        async move {
            client.ready().await.ok()?;
            let path = PathAndQuery::from_static(PATH);
            let answer = client.unary(Request::new(question), path, Bincode).await;
            answer.ok().map(Response::into_inner)
        }
    };
    Ok(ask(spec.load, spec.in_flight, once).await)
}
