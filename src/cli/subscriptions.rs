//! `pombo subscriptions`: the durable subscriptions of the mesh.

use pombo::{DurableStatus, Outcome, RunningNode};
use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use super::table::Table;
use super::text;

pub(super) const EXAMPLES: &str = "\
Examples:
  pombo subscriptions list
  pombo subscriptions list --json
  pombo subscriptions remove billing

One is made by `pombo sub PATTERN --durable NAME`, lives on the node that this was said to, and stays when nobody holds it.";

#[derive(clap::Args, Clone, Debug)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    /// List the durable subscriptions of the mesh, and the nodes that have them
    List,
    /// Remove one from the node on this machine, and what waits for it
    Remove {
        /// Its name
        #[arg(value_name = "NAME")]
        subscription: String,
    },
}

#[derive(Serialize)]
struct Item<'a> {
    name: &'a str,
    pattern: &'a str,
    node: &'a str,
    peer: String,
    live: bool,
    /// Known of those on the node that was asked.
    holders: Option<usize>,
    waiting: Option<usize>,
}

/// One that was removed, as JSON.
#[derive(Serialize)]
struct Removed<'a> {
    name: &'a str,
    node: &'a str,
}

pub(super) async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let work = async {
        let node = context.running().await?;
        match args.action {
            Action::List => list(context, &node).await,
            Action::Remove { subscription } => remove(context, &node, &subscription).await,
        }
    };
    context.unless_stopped(work).await.ok_or_else(Failure::interrupted)?
}

async fn list(context: &Context, node: &RunningNode) -> Result<(), Failure> {
    let (output, durables) = (context.output, node.durables().await?);
    if output.is_json() {
        let items = durables.iter().map(Item::from).collect();
        return output.object(&super::json::Items::<Item<'_>> { items });
    }
    if durables.is_empty() {
        output.note("there is no durable subscription in the mesh");
        output.hint(format!("pombo sub 'demo.>'{} --durable NAME", context.common.mesh_flags()));
        return Ok(());
    }
    let mut table = Table::new(["NAME", "PATTERN", "NODE", "STATE", "WAITING"]);
    for durable in &durables {
        let state = match (durable.live, durable.here.map(|here| here.holders)) {
            (false, _) => "not heard of".to_owned(),
            (true, None) => "there".to_owned(),
            (true, Some(0)) => "held by nobody".to_owned(),
            (true, Some(holders)) => format!("held by {}", text::count(holders, "subscriber")),
        };
        table.row([
            text::escape(&durable.name).into_owned(),
            text::escape(&durable.pattern).into_owned(),
            text::escape(&durable.node_name).into_owned(),
            state,
            durable.here.map(|here| here.waiting.to_string()).unwrap_or_default(),
        ]);
    }
    output.table(&table)
}

async fn remove(context: &Context, node: &RunningNode, name: &str) -> Result<(), Failure> {
    if node.remove_durable(name).await? {
        if context.output.is_json() {
            return context.output.object(&Removed { name, node: node.name() });
        }
        context.output.note(format_args!("removed {name} from {}", text::escape(node.name())));
        return Ok(());
    }
    let elsewhere = node.durables().await?.into_iter().find(|durable| durable.name == name);
    let (name, here) = (text::escape(name), text::escape(node.name()));
    let what = format!("{here} has no durable subscription {name}");
    let failure = Failure::new(Outcome::Rejected, what);
    Err(match elsewhere {
        Some(one) => failure.hint(format!("{} has it: remove it there", text::escape(&one.node_name))),
        None => failure.hint(format!("`pombo subscriptions list{}` lists them", context.common.mesh_flags())),
    })
}

impl<'a> From<&'a DurableStatus> for Item<'a> {
    fn from(durable: &'a DurableStatus) -> Self {
        Self {
            name: &durable.name,
            pattern: &durable.pattern,
            node: &durable.node_name,
            peer: durable.node.to_string(),
            live: durable.live,
            holders: durable.here.map(|here| here.holders),
            waiting: durable.here.map(|here| here.waiting),
        }
    }
}
