//! An application of two parts that talk over the bus: a shop that asks for prices and sells, and a till that knows the
//! prices and books the sales. Each could be a program of its own, on a machine of its own: `cargo run --example embed`

use futures::StreamExt;
use pombo::{MeshChoice, Node, Refusal, Service, Topic};
use serde::{Deserialize, Serialize};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sale {
    item: String,
    cents: u64,
}

const PRICE: Service<String, u64> = Service::new("till.price");
const SOLD: Topic<Sale> = Topic::new("shop.sold");

/// Prices by request, and the books by subscription.
async fn till(node: Node) -> Result<u64, Error> {
    let price = |item: String| async move {
        match item.as_str() {
            "seed" => Ok(250),
            "loft" => Ok(99_000),
            _ => Err(Refusal::new(format!("no price for {item}"))),
        }
    };
    let _serving = node.serve(PRICE).with(price).await?;
    let mut sales = node.subscribe(SOLD).await?;
    let mut total = 0;
    for _ in 0..2 {
        total += sales.next().await.ok_or("the node has ended")??.cents;
    }
    Ok(total)
}

async fn shop(node: Node) -> Result<(), Error> {
    let sales = node.publisher(SOLD);
    sales.ready(1).await?;
    for item in ["seed", "crow", "loft"].map(str::to_owned) {
        match node.request(PRICE, &item).await {
            Ok(cents) => drop(sales.publish(&Sale { item, cents: *cents }).await?),
            Err(error) => println!("not sold: {error}"),
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let data = tempfile::tempdir()?;
    let mesh = || MeshChoice::Named("example".to_owned());
    let builder = || Node::builder().mesh(mesh()).data_dir(data.path()).mdns(false);
    let (behind, front) = (builder().name("till").start().await?, builder().name("shop").start().await?);
    let (total, ()) = tokio::try_join!(till(behind), shop(front))?;
    println!("sold for {}.{:02}", total / 100, total % 100);
    println!("ok");
    Ok(())
}
