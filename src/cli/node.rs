//! `pombo node`: a lasting peer. It says who it is, and then who comes and goes.

use std::collections::HashMap;
use std::pin::pin;

use clap::builder::FalseyValueParser;
use futures::StreamExt;
use pombo::{Closed, Event, FoundBy, Multiaddr, Node, Offered, PeerId};
use serde::Serialize;

use super::banner;
use super::context::Context;
use super::failure::Failure;
use super::output::{self, Output};
use super::table::padded;
use super::{json, text};

pub(super) const EXAMPLES: &str = "\
Examples:
  pombo node
  pombo node --open
  pombo node --name shop --listen /ip4/0.0.0.0/tcp/7662 --peer /ip4/192.168.1.20/tcp/7662";

const OUTRUN: &str = "! another process runs this very node, with the same key, and others now listen to that one: stop one \
                      of the two, or start it with a key or --data-dir of its own";

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Do not pass on what others publish unless somebody here listens
    #[arg(long, env = "POMBO_NO_RELAY", hide_env = true, value_parser = FalseyValueParser::new())]
    no_relay: bool,
}

pub(super) async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let builder = context.lasting().relay(!args.no_relay);
    let work = async |node: &Node| output::while_read(watch(context, node, offer(context, node))).await;
    context.until_drained(context.node(builder), work).await
}

/// Lets the user's verbs on this machine use the node. Without that they do with nodes of their own.
fn offer(context: &Context, node: &Node) -> Option<Offered> {
    match node.offer() {
        Ok(offered) => Some(offered),
        Err(error) => {
            if !context.common.no_local {
                context.output.warn(format_args!("{error}; until then verbs start nodes of their own"));
            }
            None
        }
    }
}

async fn watch(context: &Context, node: &Node, offered: Option<Offered>) -> Result<(), Failure> {
    let mut events = pin!(node.events());
    banner::print(context, node)?;
    let mut log = Log { output: context.output, open: node.mesh().open, links: HashMap::new() };
    while let Some(event) = events.next().await {
        log.event(node, event).await?;
    }
    // The node has ended. What came for those that use it is theirs.
    if let Some(mut offered) = offered {
        offered.ended().await;
    }
    Err(Closed.into())
}

/// One line per event. That a link came or went is of interest only with the name that the roster has for it.
struct Log {
    output: Output,
    /// Whether this node's mesh is the open one.
    open: bool,
    links: HashMap<PeerId, (Multiaddr, FoundBy)>,
}

/// An event, as JSON.
#[derive(Debug, Default, Serialize)]
struct Line {
    event: &'static str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    found_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open: Option<bool>,
}

impl Log {
    async fn event(&mut self, node: &Node, event: Event) -> Result<(), Failure> {
        if self.output.is_json() {
            return line(event).map_or(Ok(()), |line| self.output.object(&line));
        }
        match event {
            Event::Linked { peer, address, by } => {
                self.links.insert(peer, (address, by));
            }
            Event::Unlinked { peer } => {
                self.links.remove(&peer);
            }
            Event::Joined { peer, name } => {
                let (host, by) = self.whereabouts(node, peer).await?;
                let name = padded(&text::escape(&name), 14);
                self.say(&format!(
                    "+ {}  {}  found by {by}",
                    self.output.paint(output::NAME, name),
                    padded(&host, 15)
                ))?;
            }
            Event::Left { name, .. } => self.say(&format!("- {} left", text::escape(&name)))?,
            Event::Suspect { name, .. } => {
                self.say(&format!("? {} has not been heard of for a while", text::escape(&name)))?;
            }
            Event::OtherMesh { peer, addresses, open } => {
                self.say(&turned_away(peer, &addresses, self.open, open))?;
            }
            Event::NotPombo { addresses, .. } => self.say(&no_node(&addresses))?,
            Event::Outrun { .. } => self.say(OUTRUN)?,
            // Listings show it.
            Event::Changed { .. } | _ => {}
        }
        Ok(())
    }

    /// Where a node is, and how it was found: by its link, or by what the roster knows.
    async fn whereabouts(&self, node: &Node, peer: PeerId) -> Result<(String, &'static str), Failure> {
        if let Some((address, by)) = self.links.get(&peer) {
            return Ok((text::host(address), text::found_by(*by)));
        }
        let status = node.status().await?;
        let known = status.peers.into_iter().find(|known| known.peer == peer);
        let by = known.as_ref().and_then(|known| known.found_by).unwrap_or(FoundBy::Roster);
        let host = known.and_then(|known| known.addresses.first().map(text::host)).unwrap_or_default();
        Ok((host, text::found_by(by)))
    }

    fn say(&self, what: &str) -> Result<(), Failure> {
        self.output.line(format_args!("{}  {what}", self.output.paint(output::FAINT, text::now())))
    }
}

/// Who was turned away, and the command that would bring the two together.
fn turned_away(peer: Option<PeerId>, addresses: &[Multiaddr], ours_open: bool, theirs_open: bool) -> String {
    let who = peer.map_or_else(|| "a node".to_owned(), text::short);
    let place = addresses.first().map_or_else(String::new, |address| format!(" at {}", text::host(address)));
    let (mesh, remedy) = match (ours_open, theirs_open) {
        (false, true) => ("the open mesh", "to be in it: pombo node --open"),
        (true, _) => ("a private mesh", "to have them here, start theirs with: pombo node --open"),
        (false, false) => ("another private mesh", "to bring the two together, start both with: pombo node --open"),
    };
    format!("! turned away {who}{place}: it is in {mesh}; {remedy}")
}

/// That a given address leads to something else.
fn no_node(addresses: &[Multiaddr]) -> String {
    let places: Vec<_> = addresses.iter().map(Multiaddr::to_string).collect();
    format!("! what answers at {} is not a pombo node: correct the address, or start one there", places.join(", "))
}

fn line(event: Event) -> Option<Line> {
    let time = text::rfc3339(text::clock());
    let line = match event {
        Event::Linked { peer, address, by } => Line {
            event: "linked",
            peer: Some(peer.to_string()),
            addresses: vec![address.to_string()],
            found_by: Some(json::found_by(by)),
            ..Line::default()
        },
        Event::Unlinked { peer } => Line { event: "unlinked", peer: Some(peer.to_string()), ..Line::default() },
        Event::Joined { peer, name } => named("joined", peer, name),
        Event::Changed { peer, name } => named("changed", peer, name),
        Event::Left { peer, name } => named("left", peer, name),
        Event::Suspect { peer, name } => named("suspect", peer, name),
        Event::OtherMesh { peer, addresses, open } => Line {
            event: "other_mesh",
            peer: peer.map(|peer| peer.to_string()),
            addresses: addresses.iter().map(Multiaddr::to_string).collect(),
            open: Some(open),
            ..Line::default()
        },
        Event::NotPombo { peer, addresses } => Line {
            event: "not_pombo",
            peer: peer.map(|peer| peer.to_string()),
            addresses: addresses.iter().map(Multiaddr::to_string).collect(),
            ..Line::default()
        },
        Event::Outrun { .. } => Line { event: "outrun", ..Line::default() },
        _ => return None,
    };
    Some(Line { time, ..line })
}

fn named(event: &'static str, peer: PeerId, name: String) -> Line {
    Line { event, peer: Some(peer.to_string()), name: Some(name), ..Line::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_turned_away_is_told_how_to_come_together() {
        let there = ["/ip4/192.168.1.31/tcp/4001".parse().unwrap()];
        let line = turned_away(None, &there, false, true);
        assert_eq!(
            line,
            "! turned away a node at 192.168.1.31: it is in the open mesh; to be in it: pombo node --open"
        );
        assert!(turned_away(None, &there, true, false).ends_with("start theirs with: pombo node --open"));
        assert!(turned_away(None, &[], false, false).ends_with("start both with: pombo node --open"));
    }

    #[test]
    fn an_event_is_an_object_of_what_is_known() {
        let event = Event::OtherMesh { peer: None, addresses: Vec::new(), open: true };
        let value = serde_json::to_value(line(event).unwrap()).unwrap();
        assert_eq!(value["event"], "other_mesh");
        assert_eq!(value["open"], true);
        assert!(value.get("peer").is_none() && value.get("name").is_none());
    }
}
