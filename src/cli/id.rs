//! `pombo id`: who a node started now with these flags is. It finds out as the node would: by claiming the identity, which
//! makes what is not there yet, and letting it go.

use pombo::Node;
use serde::Serialize;

use super::banner::{self, Mesh};
use super::context::Context;
use super::failure::Failure;
use super::text;

pub(super) const EXAMPLES: &str = "\
Examples:
  pombo id
  pombo id --name shop --json

It takes the key of --key, the place of --name, or else the first place in the data directory that no running node \
holds, as `pombo node` would. What is not there yet is made, and the next node finds it. Beside a running node this is \
another one, therefore; `pombo peers` lists those that run.";

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
