//! A chat room. Run it in several terminals, each with a name, and type:
//!
//!     cargo run --example chat -- ada
//!
//! Without a name it plays a short scene with itself.

use futures::StreamExt;
use pombo::{MeshChoice, Node, Topic};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Who says what.
const ROOM: Topic<(String, String)> = Topic::new("chat.room");

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args().nth(1) {
        Some(name) => chat(name).await?,
        None => scene().await?,
    }
    println!("ok");
    Ok(())
}

/// What is typed here goes to the room, and what is said there is printed, until the input ends.
async fn chat(name: String) -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder().start().await?;
    let mut room = node.subscribe(ROOM).await?;
    let mut typed = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            said = room.next() => {
                let (who, what) = said.ok_or("the node has ended")??.into_payload();
                println!("{who}: {what}");
            }
            text = typed.next_line() => match text? {
                Some(text) => drop(node.publish(ROOM, &(name.clone(), text)).await?),
                None => break,
            },
        }
    }
    node.leave().await;
    Ok(())
}

/// Two in a room of their own. Both hear every line, the one who said it as well.
async fn scene() -> Result<(), Box<dyn std::error::Error>> {
    let data = tempfile::tempdir()?;
    let mesh = || MeshChoice::Named("example".to_owned());
    let builder = || Node::builder().mesh(mesh()).data_dir(data.path()).mdns(false);
    let (ada, bob) = (builder().name("ada").start().await?, builder().name("bob").start().await?);
    let (mut to_ada, mut to_bob) = (ada.subscribe(ROOM).await?, bob.subscribe(ROOM).await?);
    for (node, text) in [(&ada, "is anybody there?"), (&bob, "only me"), (&ada, "that will do")] {
        node.publish(ROOM, &(node.name().to_owned(), text.to_owned())).min_peers(1).await?;
        let (here, there) = (to_ada.next().await, to_bob.next().await);
        let (here, there) = (here.ok_or("ada is gone")??, there.ok_or("bob is gone")??);
        println!("{}: {}", here.0, there.1);
    }
    Ok(())
}
