//! HTTP/1.1 with hyper: connections are kept and used again, one request at a time on each; not encrypted.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::endpoint::{Gate, Result, Said, Spec, say};
use crate::load::{Called, Parcel, call as ask};

async fn echo(request: Request<Incoming>) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    let question = match request.into_body().collect().await {
        Ok(body) => Parcel::decode(&body.to_bytes()),
        Err(_) => None,
    };
    let mut response = Response::new(Full::default());
    match question {
        Some(question) => *response.body_mut() = Full::from(question.encode()),
        None => *response.status_mut() = hyper::StatusCode::BAD_REQUEST,
    }
    Ok(response)
}

pub(super) async fn serve(spec: &Spec) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", spec.port())).await?;
    say(&Said::Ready);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new();
            // It ends with an error when the client goes.
            let _ = connection.serve_connection(TokioIo::new(stream), service_fn(echo)).await;
        });
    }
}

pub(super) async fn call(spec: &Spec, gate: &Gate) -> Result<Called> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(4096).build(connector);
    let uri: Uri = format!("http://127.0.0.1:{}/parcels", spec.port()).parse()?;
    gate.pass()?;
    let once = move |question: Parcel| {
        let (client, uri) = (client.clone(), uri.clone());
        async move {
            let request = Request::post(uri).body(Full::from(question.encode())).ok()?;
            let answer = client.request(request).await.ok()?;
            Parcel::decode(&answer.into_body().collect().await.ok()?.to_bytes())
        }
    };
    Ok(ask(spec.load, spec.in_flight, once).await)
}
