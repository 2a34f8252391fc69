//! What `pombo node` says when it has started: who it is, where, how it finds others, and what to type next.

use std::fmt::Write as _;

use pombo::{Discovery, MeshInfo, Multiaddr, Node};
use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use super::output::{self, Output};
use super::{json, text};

/// A node's mesh, as JSON.
#[derive(Serialize)]
pub(super) struct Mesh<'a> {
    name: &'a str,
    id: String,
    open: bool,
}

impl<'a> From<&'a MeshInfo> for Mesh<'a> {
    fn from(mesh: &'a MeshInfo) -> Self {
        Self { name: &mesh.name, id: mesh.id.to_string(), open: mesh.open }
    }
}

#[derive(Serialize)]
struct Started<'a> {
    event: &'static str,
    time: String,
    version: &'static str,
    name: &'a str,
    peer: String,
    mesh: Mesh<'a>,
    addresses: Vec<String>,
    discovery: Vec<Way<'a>>,
}

#[derive(Serialize)]
struct Way<'a> {
    by: &'static str,
    detail: &'a str,
    /// Why not, if it is off.
    off: Option<&'a str>,
}

impl<'a> From<&'a Discovery> for Way<'a> {
    fn from(discovery: &'a Discovery) -> Self {
        Self { by: json::found_by(discovery.by), detail: &discovery.detail, off: discovery.off.as_deref() }
    }
}

pub(super) fn print(context: &Context, node: &Node) -> Result<(), Failure> {
    let output = context.output;
    if output.is_json() {
        output.object(&started(node))?;
    } else {
        let mut page = head(output, node.name(), &node.peer_id().to_string());
        entries(&mut page, "mesh", [mesh(node.mesh())]);
        entries(&mut page, "listening", node.addresses().iter().map(Multiaddr::to_string));
        entries(&mut page, "finding", node.discovery().iter().map(way));
        page.push_str(&next(node.mesh().open, &context.common.mesh_flags()));
        output.data(page.as_bytes())?;
    }
    if node.mesh().open {
        output.warn("this mesh is open: anyone on this network can join it, listen and publish");
    }
    Ok(())
}

fn started(node: &Node) -> Started<'_> {
    Started {
        event: "started",
        time: text::rfc3339(text::clock()),
        version: env!("CARGO_PKG_VERSION"),
        name: node.name(),
        peer: node.peer_id().to_string(),
        mesh: node.mesh().into(),
        addresses: node.addresses().iter().map(Multiaddr::to_string).collect(),
        discovery: node.discovery().iter().map(Way::from).collect(),
    }
}

/// The mesh's name, and who can be in it.
pub(super) fn mesh(mesh: &MeshInfo) -> String {
    let name = text::escape(&mesh.name);
    if mesh.open { format!("{name} (open to anyone on this network)") } else { format!("{name} (private)") }
}

fn head(output: Output, name: &str, peer: &str) -> String {
    let name = output.paint(output::STRONG, text::escape(name));
    format!("pombo {}   node {name}   {peer}\n", env!("CARGO_PKG_VERSION"))
}

/// Lines under one label, which stands beside the first.
fn entries(page: &mut String, label: &str, lines: impl IntoIterator<Item = String>) {
    let mut label = label;
    for line in lines {
        // Writing to a string does not fail.
        let _ = writeln!(page, "  {label:<11}{line}");
        label = "";
    }
}

fn way(discovery: &Discovery) -> String {
    described(text::found_by(discovery.by), &discovery.detail, discovery.off.as_deref())
}

fn described(way: &str, detail: &str, off: Option<&str>) -> String {
    match (off, detail) {
        (Some(reason), _) => format!("not by {way}: {reason}"),
        (None, "") => way.to_owned(),
        (None, detail) => format!("{way}: {detail}"),
    }
}

/// The commands to type next, which lead into the same mesh.
fn next(open: bool, flags: &str) -> String {
    let elsewhere = if open {
        "Other machines of this network join with:  pombo node --open"
    } else {
        "Only this user's programs on this machine are in it. For a whole network: pombo node --open, on each machine"
    };
    format!(
        "\nIn another terminal:  pombo sub{flags} 'demo.>'\nand in a third:       pombo pub{flags} demo.hello hi\n\
         {elsewhere}\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_commands_are_ready_to_type() {
        let plain = next(false, "");
        assert!(plain.contains("pombo sub 'demo.>'\n") && plain.contains("pombo pub demo.hello hi\n"), "{plain}");
        assert!(next(true, " --open").contains("pombo sub --open 'demo.>'\n"));
    }

    #[test]
    fn a_label_stands_beside_its_first_line() {
        let mut page = String::new();
        entries(&mut page, "listening", ["a".into(), "b".into()]);
        assert_eq!(page, "  listening  a\n             b\n");
    }

    #[test]
    fn a_way_that_is_off_says_why() {
        assert_eq!(described("mDNS", "on eth0", None), "mDNS: on eth0");
        assert_eq!(described("mDNS", "", None), "mDNS");
        assert_eq!(described("mDNS", "on eth0", Some("--no-mdns")), "not by mDNS: --no-mdns");
    }
}
