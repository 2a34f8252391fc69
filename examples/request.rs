//! A service and its callers: an answer, a refusal, a deadline, and nobody there.
//!
//!     cargo run --example request

use std::time::Duration;

use pombo::{MeshChoice, Node, Outcome, Refusal, Service};

const DIVIDE: Service<(f64, f64), f64> = Service::new("math.divide");
const PONDER: Service<(), ()> = Service::new("math.ponder");
const UNKNOWN: Service<(), ()> = Service::new("math.unknown");

async fn divide((dividend, divisor): (f64, f64)) -> Result<f64, Refusal> {
    if divisor == 0.0 {
        return Err(Refusal::new("cannot divide by zero"));
    }
    Ok(dividend / divisor)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = tempfile::tempdir()?;
    let mesh = || MeshChoice::Named("example".to_owned());
    let builder = || Node::builder().mesh(mesh()).data_dir(data.path()).mdns(false);
    let server = builder().name("server").start().await?;
    let caller = builder().name("caller").start().await?;

    // Dropping what `await` gives ends the service.
    let _dividing = server.serve(DIVIDE).concurrency(16).with(divide).await?;
    let _pondering = server.serve(PONDER).with(|()| std::future::pending()).await?;

    // Who serves it is the mesh's business. Before asking, know who there is.
    caller.ready(1).await?;
    caller.settled().await?;

    let quotient = caller.request(DIVIDE, &(22.0, 7.0)).await?;
    println!("22 / 7 = {:.3}, says {}", *quotient, quotient.source());

    let refused = caller.request(DIVIDE, &(1.0, 0.0)).await.err().ok_or("a refusal was expected")?;
    println!("1 / 0: {refused}");
    assert_eq!(refused.outcome(), Outcome::Refused);

    // The provider is told of the deadline, and its handler is stopped.
    let late = caller.request(PONDER, &()).timeout(Duration::from_millis(200)).await.err().ok_or("too soon")?;
    println!("ponder: {late}");
    assert_eq!(late.outcome(), Outcome::Unknown);

    let nobody = caller.request(UNKNOWN, &()).await.err().ok_or("somebody answered")?;
    println!("unknown: {nobody}");
    assert_eq!(nobody.outcome(), Outcome::Nobody);
    println!("ok");
    Ok(())
}
