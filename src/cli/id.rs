//! `pombo id`: the identity that a node started with these flags would have.

use pombo::Node;
use serde::Serialize;

use super::banner::{self, Mesh};
use super::context::Context;
use super::failure::Failure;
use super::text;

#[derive(Serialize)]
struct Identity<'a> {
    name: &'a str,
    peer: String,
    mesh: Mesh<'a>,
}

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    context.finish_on_node(context.unseen(), async |node| print(context, node)).await
}

fn print(context: &Context, node: &Node) -> Result<(), Failure> {
    let output = context.output;
    if output.is_json() {
        return output.object(&Identity { name: node.name(), peer: node.peer_id().to_string(), mesh: node.into() });
    }
    output.line(format_args!("name     {}", text::escape(node.name())))?;
    output.line(format_args!("peer     {}", node.peer_id()))?;
    output.line(format_args!("mesh     {}", banner::mesh(node.mesh())))?;
    output.line(format_args!("mesh id  {}", node.mesh().id))
}
