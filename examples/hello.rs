//! Two nodes in one program: one publishes, the other subscribes.
//!
//!     cargo run --example hello

use futures::StreamExt;
use pombo::{MeshChoice, Node, Topic};

const GREETINGS: Topic<String> = Topic::new("demo.greetings");

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Nodes of one user on one machine are in one mesh, without any of these. This example keeps to itself: a mesh of its
    // own in a directory of its own, and no multicast.
    let data = tempfile::tempdir()?;
    let mesh = || MeshChoice::Named("example".to_owned());
    let builder = || Node::builder().mesh(mesh()).data_dir(data.path()).mdns(false);
    let listener = builder().name("listener").start().await?;
    let greeter = builder().name("greeter").start().await?;

    let mut greetings = listener.subscribe(GREETINGS).await?;
    let published = greeter.publish(GREETINGS, &"hello from afar".to_owned()).min_peers(1).await?;
    println!("published to {} node", published.listeners);

    if let Some(greeting) = greetings.next().await {
        let greeting = greeting?;
        println!("{} on {}", *greeting, greeting.topic());
    }

    // A goodbye, so that the others see it go at once.
    greeter.leave().await;
    listener.leave().await;
    println!("ok");
    Ok(())
}
