//! Delivery for certain: a message waits on its sender's disk until its recipient, which is not there yet, has dealt with it;
//! and what cannot be delivered in time is told.
//!
//!     cargo run --example guaranteed

use std::time::Duration;

use futures::StreamExt;
use pombo::{MeshChoice, Multiaddr, Node, Topic};

const ORDERS: Topic<String> = Topic::new("orders.eu");

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Two nodes that keep what they have here, and find each other by address only.
    let data = tempfile::tempdir()?;
    let loopback: Multiaddr = "/ip4/127.0.0.1/tcp/0".parse()?;
    let mesh = MeshChoice::Named("demo".to_owned());
    let builder = Node::builder().mesh(mesh).data_dir(data.path()).mdns(false).local(false).listen(loopback);
    let shop = builder.clone().name("shop").start().await?;

    // The books are closed: nobody has ever heard of `billing`. The order is on disk when this returns.
    let order = shop.publish(ORDERS, &"12 pigeons".to_owned()).guaranteed().to(["billing"]).await?;
    println!("order {} is accepted for {}", order.id, order.recipients.join(", "));

    // Now they open, and get it.
    let books = builder.name("books").peer(shop.addresses()[0].clone()).start().await?;
    let mut orders = books.subscribe(ORDERS).durable("billing").await?;
    let received = orders.next().await.ok_or("the node has ended")??;
    println!("billing has {}: {}", received.id(), **received);
    received.ack().await?;

    // Nobody subscribes as `archive`. In time, the shop is told.
    let lost = shop.publish(ORDERS, &"1 owl".to_owned()).guaranteed().to(["archive"]).ttl(Duration::from_secs(1));
    lost.await?;
    let mut undelivered = shop.undelivered();
    let notice = undelivered.next().await.ok_or("the node has ended")?;
    println!("{} did not get {}: {}", notice.recipient, notice.id, notice.reason);
    notice.take().await?;

    books.leave().await;
    shop.leave().await;
    println!("ok");
    Ok(())
}
