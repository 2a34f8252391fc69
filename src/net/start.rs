//! Starting a node: everything that has to be there before the driver runs, and the tasks around it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::sync::{broadcast, mpsc, watch};
use tracing::{Instrument, info, info_span, warn};

use crate::api::node::About;
use crate::api::{Discovery, Identity, MeshInfo, Node};
use crate::config::{Config, MeshChoice};
use crate::dns;
use crate::error::StartError;
use crate::mesh::dispatch::Dispatch;
use crate::mesh::event::{Event, FoundBy, Input, Unsigned};
use crate::mesh::outgoing::Outgoing;
use crate::mesh::routes::Routes;
use crate::mesh::{Mesh, Name, Settings};
use crate::net::access::MeshAccess;
use crate::net::behaviour::{Behaviour, DOUBT, SILENCE};
use crate::net::clock::Clock;
use crate::net::data_dir::{DataDir, DataDirError, Slot};
use crate::net::driver::{Driver, Files};
use crate::net::handle::Handle;
use crate::net::hub::{Desks, Hub, State};
use crate::net::lanes::{Lanes, Table};
use crate::net::listen::{self, Listening};
use crate::net::press::{Press, Signer};
use crate::net::registry::{self, Card, Registration, RegistryError};
use crate::net::remembered::Remembered;
use crate::net::silence::Silence;
use crate::net::store::{self, Opened};
use crate::net::{checker, files, inner, resolver, transport, watcher};
use crate::wire::roster::is_node_name;

/// What the resolver and the watcher may have ready for the driver.
const INBOX: usize = 64;
/// Gossip that may wait for its signature to be verified: 128 frames are 8 MiB.
const UNCHECKED: usize = 128;
const EVENTS: usize = 256;
/// What may wait to be written to the store, or read from it.
const JOBS: usize = 16_384;

/// Starts a node.
pub(crate) async fn start(config: Config) -> Result<Node, StartError> {
    let names = check(&config)?;
    let found = registry::directory();
    // Which mesh the user's nodes are in is looked up even where they are not to be found by it.
    let claim = claim(&config, found.as_ref().ok())?;
    let registry = config.local.then_some(found);
    run(config, names, claim, registry).await
}

/// Starts a node that is nobody yet, in a mesh that need not be in the data directory, and which the registry does not know of.
pub(crate) async fn start_in(access: MeshAccess, config: Config) -> Result<Node, StartError> {
    let names = check(&config)?;
    let slot = Slot::ephemeral(None).map_err(|error| StartError::Data(Box::new(error)))?;
    run(config, names, Claim { access, slot, place: None }, None).await
}

/// Who a node is, held for it.
struct Claim {
    access: MeshAccess,
    slot: Slot,
    /// Its place in the data directory, if it has one.
    place: Option<PathBuf>,
}

async fn run(
    config: Config,
    names: Vec<Name>,
    claim: Claim,
    registry: Option<Result<PathBuf, RegistryError>>,
) -> Result<Node, StartError> {
    let Claim { access, slot, place } = claim;
    let registry_dir = registry.as_ref().and_then(|found| found.as_ref().ok()).cloned();
    let me = slot.keypair.public().to_peer_id();
    if !is_node_name(&slot.name) {
        let name = slot.name.escape_debug();
        return Err(StartError::Config(format!(
            "\"{name}\" is no name for a node: use up to 64 bytes, no control characters"
        )));
    }
    info!(name = slot.name, peer = %me, mesh = access.name, "starting");

    let clock = Clock::start();
    let post = store::open(place.as_deref(), access.id).map_err(|error| StartError::Data(Box::new(error)))?;
    let (unsigned_in, unsigned) = mpsc::channel(UNCHECKED);
    let (state, handles) = state(&config, &slot, registry_dir.is_some(), clock, unsigned_in)?;
    let (press, lanes) = (Arc::clone(&state.press), state.lanes.clone());
    let hub = Arc::new(Hub::new(state));
    let behaviour = Lanes::new(access.id, clock, lanes, Arc::clone(&hub));
    let behaviour = Behaviour::new(me, access.id, config.mdns, behaviour);
    let (behaviour, mdns_off) = behaviour.map_err(std::io::Error::other)?;
    let transport = transport::transport(&slot.keypair, &access)?;
    let mut swarm = Swarm::new(transport, behaviour, me, transport::swarm_config());
    let Listening { addresses: listening, early } = listen::listen(&mut swarm, &config.listen).await?;

    let registration = register(registry_dir.as_ref(), &access, &slot, &config, &listening)?;
    let socket = registry_dir.as_ref().filter(|_| registration.is_some());
    let socket = socket.map(|directory| registry::socket(directory, access.id, me));
    let mdns_off: Vec<String> = mdns_off.iter().map(ToString::to_string).collect();
    let local = registry.map(|found| match found {
        Ok(directory) if registration.is_none() => Err(format!("{} cannot be written to", directory.display())),
        found => found.map_err(|error| error.to_string()),
    });
    let discovery = discovery(&config, local, &mdns_off);

    let (post, writer) = match post {
        Opened::Store(opened) => {
            let (store, snapshot) = *opened;
            (Ok(snapshot), Some(store))
        }
        Opened::None(why) => (Err(why), None),
    };
    let remembered = place.map(|place| Remembered::new(place, access.id));
    let (questions_in, questions) = mpsc::channel(names.len().max(1));
    hub.with(|state| {
        state.mesh.open_store(post, clock.now());
        state.handle(Input::Listening(inner::for_others(&listening)));
        if let Some(remembered) = &remembered {
            state.mesh.remember(remembered.load(access.id), clock.now());
        }
        for address in config.peers.iter().filter(|address| Name::of_address(address).is_none()) {
            state.handle(given(address));
        }
        names.into_iter().for_each(|name| state.mesh.look_up(name, clock.now()));
    });
    let (inbox_in, inbox) = mpsc::channel(INBOX);
    let (unchecked_in, unchecked) = mpsc::channel(UNCHECKED);
    let (addresses_in, addresses) = watch::channel(listening);
    let (stop_in, stop) = mpsc::channel(1);
    let writer = writer.map(|store| {
        let (jobs_in, jobs) = mpsc::channel(JOBS);
        hub.with(|state| state.jobs = Some(jobs_in));
        let hub = Arc::clone(&hub);
        tokio::task::spawn_blocking(move || store::run(store, jobs, &hub))
    });
    let driver = Driver {
        mesh_id: access.id,
        hub: Arc::clone(&hub),
        swarm,
        clock,
        stop,
        inbox,
        unchecked: unchecked_in,
        questions: questions_in,
        press: Arc::clone(&press),
        addresses: addresses_in,
        registration,
        remembered,
        early,
        files: Files::default(),
        writer,
    };
    let letters = files::random::<8>().map_err(StartError::Io)?;
    let (mesh, key) = (access.id, slot.keypair.clone());
    spawn(Signer { mesh, key, press: Arc::clone(&press), wanted: unsigned, hub: Arc::clone(&hub) }.run());
    spawn(checker::run(access.id, unchecked, Arc::clone(&hub)));
    spawn(resolver::run(questions, inbox_in.clone()));
    if let Some(directory) = registry_dir {
        spawn(watcher::run(directory, access.id, me, inbox_in));
    }
    let about = About {
        name: slot.name.clone(),
        mesh: info(&access),
        discovery,
        addresses,
        limits: config.limits,
        short_lived: config.short_lived,
        settled: AtomicBool::new(false),
        socket,
    };
    let span = info_span!("node", name = slot.name, peer = %me);
    spawn(driver.run(slot).instrument(span));
    let runtime = tokio::runtime::Handle::current();
    let (routes, events) = handles;
    let next_id = AtomicU64::new(1);
    let handle = Handle { me, hub, stop: stop_in, press, routes, events, runtime, next_id, letters };
    Ok(Node { handle: Arc::new(handle), about: Arc::new(about) })
}

/// How those who ask nobody learn what the mesh says.
type Heard = (watch::Receiver<Arc<Routes>>, broadcast::WeakSender<Event>);

/// The mesh of a node that starts, and what carries out its wishes.
fn state(
    config: &Config,
    slot: &Slot,
    looks_local: bool,
    clock: Clock,
    unsigned: mpsc::Sender<Unsigned>,
) -> Result<(State, Heard), StartError> {
    let me = slot.keypair.public().to_peer_id();
    let random =
        |what| files::random::<8>().map_err(|error| StartError::Config(format!("cannot draw {what}: {error}")));
    let lanes = Table::default();
    let outgoing = Outgoing::new(me, slot.incarnation, random("a message id")?, config.limits.outgoing);
    let press = Arc::new(Press::new(Dispatch::new(outgoing), clock, lanes.clone()));
    let mesh = Mesh::new(Settings {
        me,
        incarnation: slot.incarnation,
        name: slot.name.clone(),
        relay: config.relay,
        short_lived: config.short_lived,
        looks_local,
        looks_further: config.mdns || !config.peers.is_empty() || !config.dns.is_empty(),
        limits: config.limits.clone(),
        dissemination: config.dissemination,
        seed: u64::from_le_bytes(random("a seed")?),
        now: clock.now(),
    });
    let (routes, routes_out) = watch::channel(Arc::default());
    let (events, _) = broadcast::channel(EVENTS);
    let heard = (routes_out, events.downgrade());
    let state = State {
        mesh,
        clock,
        now: clock.now(),
        press,
        lanes,
        routes,
        events,
        unsigned,
        jobs: None,
        silence: Silence::new(DOUBT, SILENCE),
        desks: Desks::default(),
        work: VecDeque::new(),
        due: None,
    };
    Ok((state, heard))
}

#[expect(clippy::disallowed_methods, reason = "the tasks around the driver are spawned here and nowhere else")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

/// The name of the mesh that is meant. `None`: the open one.
pub(crate) fn mesh_name(choice: &MeshChoice, registry: Option<&PathBuf>) -> Option<String> {
    match choice {
        MeshChoice::Open => None,
        MeshChoice::Named(name) if name == crate::net::access::OPEN => None,
        MeshChoice::Named(name) => Some(name.clone()),
        MeshChoice::Default => match registry.and_then(|directory| registry::running_node_mesh(directory)) {
            Some(name) if name == crate::net::access::OPEN => None,
            Some(name) => Some(name),
            None => Some("default".to_owned()),
        },
    }
}

/// Who a node with this configuration is, without one.
pub(crate) fn identity(config: &Config) -> Result<Identity, StartError> {
    let found = registry::directory();
    let (access, directory) = mesh(config, found.as_ref().ok())?;
    let resident = match (&config.key, &directory) {
        (Some(path), _) => Slot::look_at_key(path).map_err(data)?,
        (None, Some(directory)) if !config.short_lived => directory.look(config.name.as_deref()).map_err(data)?,
        (None, _) => {
            return Err(StartError::Config("a short-lived node is another one each time: give it a key".to_owned()));
        }
    };
    let name = config.name.clone().unwrap_or(resident.name);
    Ok(Identity { name, peer: resident.peer, mesh: info(&access) })
}

fn info(access: &MeshAccess) -> MeshInfo {
    MeshInfo { name: access.name.clone(), id: access.id, open: access.is_open() }
}

fn data(error: DataDirError) -> StartError {
    if let DataDirError::BadName { .. } = error {
        return StartError::Config(error.to_string());
    }
    StartError::Data(Box::new(error))
}

/// Which mesh, and the data directory if it is needed.
fn mesh(config: &Config, registry: Option<&PathBuf>) -> Result<(MeshAccess, Option<DataDir>), StartError> {
    let mesh = mesh_name(&config.mesh, registry);
    let needs_directory = mesh.is_some() || (!config.short_lived && config.key.is_none());
    let directory = needs_directory.then(|| DataDir::open(config.data_dir.as_deref())).transpose().map_err(data)?;
    let access = match (&mesh, &directory) {
        (Some(name), Some(directory)) => directory.mesh(name).map_err(data)?,
        (None, _) | (_, None) => MeshAccess::open(),
    };
    Ok((access, directory))
}

/// Which mesh, who this node is in it, and its place in the data directory if it has one.
fn claim(config: &Config, registry: Option<&PathBuf>) -> Result<Claim, StartError> {
    let (access, directory) = mesh(config, registry)?;
    let slot = match (&config.key, &directory) {
        (Some(path), _) => {
            let mut slot = Slot::load_key(path).map_err(data)?;
            if let Some(name) = &config.name {
                slot.name.clone_from(name);
            }
            slot
        }
        (None, Some(directory)) if !config.short_lived => directory.claim(config.name.as_deref()).map_err(data)?,
        (None, _) => Slot::ephemeral(config.name.as_deref()).map_err(data)?,
    };
    let has_place = config.key.is_none() && slot.is_kept();
    let place = directory.filter(|_| has_place).map(|directory| directory.place(&slot.name));
    Ok(Claim { access, slot, place })
}

/// Whether a node can be started so. Returns the names that lead to peers.
pub(crate) fn check(config: &Config) -> Result<Vec<Name>, StartError> {
    config.limits.check().map_err(|error| StartError::Config(error.to_string()))?;
    if let Some(address) = config.peers.iter().find(|address| !is_peer(address)) {
        let remedy = "write /ip4/192.168.1.20/tcp/7662, or with a name that is looked up /dns/shop.example/tcp/7662";
        return Err(StartError::Config(format!("no node can be found at {address}: {remedy}")));
    }
    let of_many = config.dns.iter().map(|name| Name::of_many(name, cfg!(feature = "quic")));
    Ok(config.peers.iter().filter_map(Name::of_address).chain(of_many).collect())
}

/// Whether a node can be looked for there. Names of the kind `dnsaddr` stand for whole addresses in TXT records, which the
/// system's resolver does not know.
fn is_peer(address: &Multiaddr) -> bool {
    let is_host = match address.iter().next() {
        Some(Protocol::Dns(host) | Protocol::Dns4(host) | Protocol::Dns6(host)) => dns::is_host(&host),
        Some(Protocol::Ip4(_) | Protocol::Ip6(_)) => true,
        Some(Protocol::Memory(_)) => return address.protocol_stack().skip(1).all(|part| part == "p2p"),
        _ => false,
    };
    let mut rest: Vec<_> = address.protocol_stack().skip(1).collect();
    rest.pop_if(|last| *last == "p2p");
    let is_port = rest == ["tcp"] || (cfg!(feature = "quic") && rest == ["udp", "quic-v1"]);
    is_host && is_port
}

fn given(address: &Multiaddr) -> Input {
    let peer = address.iter().find_map(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None });
    Input::Seen { peer, addresses: vec![address.clone()], by: FoundBy::Given }
}

fn register(
    directory: Option<&PathBuf>,
    access: &MeshAccess,
    slot: &Slot,
    config: &Config,
    listening: &[Multiaddr],
) -> Result<Option<Registration>, StartError> {
    let Some(directory) = directory else { return Ok(None) };
    let card = Card {
        peer: PeerId::from(slot.keypair.public()),
        name: slot.name.clone(),
        mesh: access.name.clone(),
        mesh_id: access.id,
        addresses: listening.to_vec(),
        node: !config.short_lived,
    };
    match Registration::write(directory, card) {
        Ok(registration) => Ok(Some(registration)),
        Err(error @ RegistryError::Held { .. }) => Err(StartError::Data(Box::new(error))),
        Err(error @ (RegistryError::Io { .. } | RegistryError::NotOurs { .. })) => {
            warn!(%error, "other nodes of this host will not find this one");
            Ok(None)
        }
    }
}

fn discovery(config: &Config, registry: Option<Result<PathBuf, String>>, mdns_off: &[String]) -> Vec<Discovery> {
    let switched_off = || Some("switched off".to_owned());
    let local = match registry {
        Some(Ok(directory)) => (directory.display().to_string(), None),
        Some(Err(error)) => (String::new(), Some(error)),
        None => (String::new(), switched_off()),
    };
    let mdns_fails = (mdns_off.len() == 2).then(|| mdns_off.join("; "));
    let mdns = ("every interface".to_owned(), if config.mdns { mdns_fails } else { switched_off() });
    let peers: Vec<_> = config.peers.iter().map(ToString::to_string).collect();
    let given = (peers.join(", "), peers.is_empty().then(|| "none were given".to_owned()));
    let names: Vec<_> = config.dns.iter().map(ToString::to_string).collect();
    let dns = (names.join(", "), names.is_empty().then(|| "no name was given".to_owned()));
    [(FoundBy::Local, local), (FoundBy::Mdns, mdns), (FoundBy::Given, given), (FoundBy::Dns, dns)]
        .into_iter()
        .map(|(by, (detail, off))| Discovery { by, detail, off })
        .collect()
}
