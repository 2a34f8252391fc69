//! `pombo id`: who a node with these flags is. Nothing is started or taken for it, so that a node that runs can be asked for.

use pombo::Identity;
use serde::Serialize;

use super::banner::{self, Mesh};
use super::context::Context;
use super::failure::Failure;
use super::text;

pub(super) const EXAMPLES: &str = "\
Examples:
  pombo id
  pombo id --name shop --json

It is the node of --key or --name, running or not. With neither it is the one that runs on this data directory, the first \
if there are several, or else the one that the next `pombo node` will be. What is not there yet is made, and that node \
finds it.";

#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    peer: String,
    mesh: Mesh<'a>,
}

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let Identity { name, peer, mesh, .. } = context.who()?;
    let output = context.output;
    if output.is_json() {
        return output.object(&Shown { name: &name, peer: peer.to_string(), mesh: (&mesh).into() });
    }
    output.line(format_args!("name     {}", text::escape(&name)))?;
    output.line(format_args!("peer     {peer}"))?;
    output.line(format_args!("mesh     {}", banner::mesh(&mesh)))?;
    output.line(format_args!("mesh id  {}", mesh.id))
}
