//! The command tree, and the flags that every verb takes.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, ColorChoice, Parser, Subcommand};
use pombo::{DnsName, MeshChoice, Multiaddr, Outcome};

use super::{
    bench, completions, config, doctor, id, listing, man, node, outbox, parse, publish, request, serve, sub,
    subscriptions, text, undelivered, whereabouts,
};

/// A message bus with no server in the middle.
///
/// Every program is a peer. Those of one user on one machine find each other with nothing configured; with --open, so do
/// those of a whole network.
#[derive(Debug, Parser)]
#[command(name = "pombo", version, max_term_width = 100)]
#[command(after_help = "\
Try it, each in a terminal of its own:
  pombo node
  pombo sub 'demo.>'
  pombo pub demo.hello hi

The long help (--help) has the exit codes.")]
#[command(after_long_help = outcomes())]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run a node: a lasting peer that others find, and that passes on what they publish
    #[command(after_help = node::EXAMPLES)]
    Node(node::Args),
    /// Publish to a topic
    #[command(after_help = publish::EXAMPLES)]
    Pub(publish::Args),
    /// Subscribe to topics and print what arrives
    #[command(after_help = sub::EXAMPLES)]
    Sub(sub::Args),
    /// Ask a service and print its answer
    #[command(after_help = request::EXAMPLES)]
    Request(request::Args),
    /// Answer the requests to a service
    #[command(after_help = serve::EXAMPLES)]
    Serve(serve::Args),
    /// List the nodes of the mesh
    #[command(after_help = "Examples:\n  pombo peers\n  pombo peers --watch\n  pombo peers --json")]
    Peers(listing::Args),
    /// List what is subscribed to in the mesh
    #[command(after_help = "Examples:\n  pombo topics\n  pombo topics --watch\n  pombo topics --json")]
    Topics(listing::Args),
    /// List the services of the mesh
    #[command(after_help = "Examples:\n  pombo services\n  pombo services --watch\n  pombo services --json")]
    Services(listing::Args),
    /// Deal with the guaranteed messages that could not be delivered
    #[command(after_help = undelivered::EXAMPLES)]
    Undelivered(undelivered::Args),
    /// List or remove durable subscriptions
    #[command(after_help = subscriptions::EXAMPLES)]
    Subscriptions(subscriptions::Args),
    /// Look at the guaranteed messages that are under way
    #[command(after_help = outbox::EXAMPLES)]
    Outbox(outbox::Args),
    /// Ask where a guaranteed message is
    #[command(after_help = whereabouts::EXAMPLES)]
    Where(whereabouts::Args),
    /// Print who the node that these flags mean is, running or not
    #[command(after_help = id::EXAMPLES)]
    Id,
    /// Try each way in which nodes find and reach each other, and say what works here
    #[command(after_help = doctor::EXAMPLES)]
    Doctor,
    /// Measure how fast it goes here
    #[command(after_help = bench::EXAMPLES)]
    Bench(bench::Args),
    /// Write or show the configuration
    #[command(after_help = config::EXAMPLES)]
    Config(config::Args),
    /// Print a script that lets a shell complete verbs and flags
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::Args),
    /// Print the manual page, or write those of all verbs
    #[command(after_help = man::EXAMPLES)]
    Man(man::Args),
}

const MESH: &str = "Mesh";
const FINDING: &str = "Finding each other";
const OUTPUT: &str = "Output";
const CONFIGURATION: &str = "Configuration";

/// What is true for every verb.
#[derive(Args, Debug)]
pub(super) struct Common {
    /// The mesh to be in [default: that of your node on this machine, or else "default"]
    #[arg(long, global = true, value_name = "NAME", env = "POMBO_MESH", hide_env = true, help_heading = MESH)]
    #[arg(conflicts_with = "open")]
    pub(super) mesh: Option<String>,
    /// Be in the mesh that anyone on the network may join (short for --mesh open)
    #[arg(long, global = true, env = "POMBO_OPEN", hide_env = true, help_heading = MESH)]
    #[arg(value_parser = FalseyValueParser::new())]
    pub(super) open: bool,
    /// What this node is called [default: the name of the first free slot in the data directory]
    #[arg(long, global = true, value_name = "NAME", env = "POMBO_NAME", hide_env = true, help_heading = MESH)]
    #[arg(hide_short_help = true)]
    pub(super) name: Option<String>,
    /// A file with this node's key, made if it is not there
    #[arg(long, global = true, value_name = "FILE", env = "POMBO_KEY", hide_env = true, help_heading = MESH)]
    #[arg(hide_short_help = true)]
    pub(super) key: Option<PathBuf>,
    /// Where keys and what is known of the mesh are kept [default: $XDG_DATA_HOME/pombo]
    #[arg(long, global = true, value_name = "DIR", env = "POMBO_DATA_DIR", hide_env = true, help_heading = MESH)]
    #[arg(hide_short_help = true)]
    pub(super) data_dir: Option<PathBuf>,
    /// Listen on this address, such as /ip4/0.0.0.0/tcp/7662; may be repeated [default: everywhere, on free ports]
    #[arg(long, global = true, value_name = "ADDRESS", env = "POMBO_LISTEN", hide_env = true, help_heading = FINDING)]
    #[arg(hide_short_help = true, value_parser = parse::listen, value_delimiter = ',')]
    pub(super) listen: Vec<Multiaddr>,
    /// Link up with the node at this address, such as /ip4/192.168.1.20/tcp/7662; may be repeated
    #[arg(long, global = true, value_name = "ADDRESS", env = "POMBO_PEER", hide_env = true, help_heading = FINDING)]
    #[arg(hide_short_help = true, value_parser = parse::peer, value_delimiter = ',')]
    pub(super) peer: Vec<Multiaddr>,
    /// Link up with the nodes at all addresses of this name, such as orders.prod.svc:7662; may be repeated
    #[arg(long, global = true, value_name = "NAME:PORT", env = "POMBO_DNS", hide_env = true, help_heading = FINDING)]
    #[arg(hide_short_help = true, value_delimiter = ',')]
    pub(super) dns: Vec<DnsName>,
    /// Do not look for peers by multicast DNS
    #[arg(long, global = true, env = "POMBO_NO_MDNS", hide_env = true, help_heading = FINDING)]
    #[arg(hide_short_help = true, value_parser = FalseyValueParser::new())]
    pub(super) no_mdns: bool,
    /// Do not look for peers in this machine's registry
    #[arg(long, global = true, env = "POMBO_NO_LOCAL", hide_env = true, help_heading = FINDING)]
    #[arg(hide_short_help = true, value_parser = FalseyValueParser::new())]
    pub(super) no_local: bool,
    /// Say nothing on stderr but errors
    #[arg(short, global = true, env = "POMBO_QUIET", hide_env = true, help_heading = OUTPUT)]
    #[arg(hide_short_help = true, value_parser = FalseyValueParser::new())]
    pub(super) quiet: bool,
    /// Say more on stderr: -v, -vv, -vvv (POMBO_LOG takes filters)
    #[arg(short, global = true, env = "POMBO_VERBOSE", hide_env = true, help_heading = OUTPUT)]
    #[arg(hide_short_help = true, action = ArgAction::Count)]
    pub(super) verbose: u8,
    /// When to use colors; NO_COLOR, CLICOLOR_FORCE and CLICOLOR are heeded
    #[arg(long, global = true, value_name = "WHEN", env = "POMBO_COLOR", hide_env = true, help_heading = OUTPUT)]
    #[arg(hide_short_help = true, default_value = "auto")]
    pub(super) color: ColorChoice,
    /// Print JSON: one document for a listing, one line per message for a stream
    #[arg(long, global = true, env = "POMBO_JSON", hide_env = true, help_heading = OUTPUT)]
    #[arg(value_parser = FalseyValueParser::new())]
    pub(super) json: bool,
    /// Take from this file what is not set otherwise [default: $XDG_CONFIG_HOME/pombo/config.toml]
    #[arg(long, global = true, value_name = "FILE", env = "POMBO_CONFIG", hide_env = true, help_heading = CONFIGURATION)]
    #[arg(hide_short_help = true)]
    pub(super) config: Option<PathBuf>,
}

impl Common {
    /// The mesh that was asked for.
    pub(super) fn mesh(&self) -> MeshChoice {
        match self.mesh.as_deref() {
            _ if self.open => MeshChoice::Open,
            Some("open") => MeshChoice::Open,
            Some(name) => MeshChoice::Named(name.to_owned()),
            None => MeshChoice::Default,
        }
    }

    /// The flags that the next command needs to be in the same mesh, each with a space before it.
    pub(super) fn mesh_flags(&self) -> String {
        let mut flags = String::new();
        match self.mesh() {
            MeshChoice::Open => flags.push_str(" --open"),
            MeshChoice::Named(name) => {
                flags.push_str(" --mesh ");
                flags.push_str(&text::shell(&name));
            }
            MeshChoice::Default => {}
        }
        if let Some(directory) = &self.data_dir {
            flags.push_str(" --data-dir ");
            flags.push_str(&text::shell(&directory.to_string_lossy()));
        }
        flags
    }
}

/// The exit codes, from the one list of outcomes, and the environment.
fn outcomes() -> String {
    let mut table = String::from("Exit codes:\n");
    for outcome in Outcome::ALL {
        // Writing to a string does not fail.
        let _ = writeln!(table, "  {:>2}  {:<9} {}", outcome.exit_code(), outcome.as_str(), outcome.meaning());
    }
    table.push_str(
        "\nEvery flag above can be set in the environment, --data-dir as POMBO_DATA_DIR, and in a configuration file: ",
    );
    table.push_str("`pombo config init` writes one.");
    table
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> Common {
        Cli::try_parse_from(line.split(' ')).unwrap().common
    }

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_long_help_has_every_outcome() {
        let help = Cli::command().render_long_help().to_string();
        for outcome in Outcome::ALL {
            assert!(help.contains(&format!("{:>2}  {}", outcome.exit_code(), outcome)), "{outcome}\n{help}");
        }
    }

    #[test]
    fn every_verb_shows_examples() {
        let mut command = Cli::command();
        command.build();
        for verb in command.get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
            let help = verb.render_help().to_string();
            let examples = help.lines().filter(|line| line.contains(&format!("pombo {}", verb.get_name()))).count();
            assert!(examples >= 3, "the usage line and two examples:\n{help}");
        }
    }

    #[test]
    fn every_common_flag_has_a_variable() {
        for flag in Cli::command().get_arguments().filter(|flag| flag.is_global_set()) {
            let variable = format!("POMBO_{}", flag.get_id().as_str().to_uppercase());
            assert_eq!(flag.get_env(), Some(variable.as_ref()), "{}", flag.get_id());
        }
    }

    #[test]
    fn open_is_short_for_the_mesh_open() {
        assert_eq!(parsed("pombo id --open").mesh(), MeshChoice::Open);
        assert_eq!(parsed("pombo --mesh open id").mesh(), MeshChoice::Open);
        assert_eq!(parsed("pombo id --mesh lab").mesh(), MeshChoice::Named("lab".into()));
        assert_eq!(parsed("pombo id").mesh(), MeshChoice::Default);
        assert!(Cli::try_parse_from(["pombo", "id", "--open", "--mesh", "lab"]).is_err());
    }

    #[test]
    fn the_next_command_stays_in_the_mesh() {
        assert_eq!(parsed("pombo node").mesh_flags(), "");
        assert_eq!(parsed("pombo node --open").mesh_flags(), " --open");
        assert_eq!(parsed("pombo node --mesh lab --data-dir /t/a").mesh_flags(), " --mesh lab --data-dir /t/a");
    }

    #[test]
    fn a_bad_address_is_named_beside_a_good_one() {
        let error = Cli::try_parse_from(["pombo", "node", "--peer", "10.0.0.1:80"]).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("10.0.0.1:80") && message.contains("/ip4/"), "{message}");
        assert_eq!(error.exit_code(), i32::from(Outcome::Usage.exit_code()));
    }
}
