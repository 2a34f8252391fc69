//! Topics with types: defined once, shared by both ends, checked by the compiler.
//!
//!     cargo run --example typed

use futures::StreamExt;
use pombo::{Json, MeshChoice, Node, Pattern, RecvError, Topic};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    id: u64,
    item: String,
}

// A misspelt name does not compile. Without `Json`, orders would travel in a compact binary form.
const CREATED: Topic<Order, Json> = Topic::new("orders.eu.created");
const SHIPPED: Topic<Order, Json> = Topic::new("orders.eu.shipped");

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = tempfile::tempdir()?;
    let mesh = || MeshChoice::Named("example".to_owned());
    let builder = || Node::builder().mesh(mesh()).data_dir(data.path()).mdns(false);
    let shop = builder().name("shop").start().await?;
    let books = builder().name("books").start().await?;

    // `*` stands for one token, a last `>` for all the rest.
    let mut orders = books.subscribe(Pattern::<Order, Json>::parse("orders.*.>")?).await?;

    let order = Order { id: 7, item: "a loft for pigeons".to_owned() };
    shop.publish(CREATED, &order).header("tenant", "acme").min_peers(1).await?;
    shop.publish(SHIPPED, &order).await?;

    for _ in 0..2 {
        match orders.next().await.ok_or("the node has ended")? {
            Ok(order) => {
                let tenant = order.headers().get("tenant").unwrap_or("nobody");
                println!("{}: order {} of {} for {tenant}", order.topic(), order.id, order.item);
            }
            // The stream says what it could not deliver, and goes on.
            Err(gap @ RecvError::Lagged { .. }) => println!("{gap}"),
            Err(other) => return Err(other.into()),
        }
    }
    println!("ok");
    Ok(())
}
