//! The servers that some systems need between the two. Each is started when it is first needed, and stays.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::endpoint::Result;
use crate::{System, clock};

/// How long one may take to listen. That of RabbitMQ is a virtual machine first.
const START: u64 = 60_000_000_000;

/// A port that nobody has now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[derive(Debug, Default)]
pub(crate) struct Brokers(BTreeMap<System, Broker>);

#[derive(Debug)]
struct Broker {
    child: Child,
    /// Where Erlang's nodes find each other. RabbitMQ would start one that stays.
    directory: Option<Child>,
    /// The process that does the work, which may be one below the one that was started.
    pid: u32,
    port: u16,
}

impl Brokers {
    /// The port of a system's broker, and its process, if it has one.
    pub(crate) fn of(&mut self, system: System, scratch: &Path) -> Result<Option<(u16, u32)>> {
        let nats = matches!(system, System::Nats | System::Jetstream | System::JetstreamSynced);
        if !nats && !matches!(system, System::Mosquitto | System::Rabbitmq) {
            return Ok(None);
        }
        if let Some(broker) = self.0.get(&system) {
            return Ok(Some((broker.port, broker.pid)));
        }
        let broker = start(system, scratch)?;
        let found = (broker.port, broker.pid);
        self.0.insert(system, broker);
        Ok(Some(found))
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        for broker in self.0.values_mut() {
            // The end of the shell that starts RabbitMQ is not the end of RabbitMQ.
            if broker.pid != broker.child.id() {
                let _ = Command::new("kill").arg(broker.pid.to_string()).status();
            } else {
                let _ = broker.child.kill();
            }
            let _ = broker.child.wait();
            if let Some(directory) = &mut broker.directory {
                let _ = directory.kill();
                let _ = directory.wait();
            }
        }
    }
}

fn start(system: System, scratch: &Path) -> Result<Broker> {
    let (directory, port) = (scratch.join(format!("{system:?}")), free_port()?);
    std::fs::create_dir_all(&directory)?;
    let mut command = match system {
        System::Nats => dying_with_this("nats-server", &["-a", "127.0.0.1", "-p", &port.to_string()]),
        System::Jetstream | System::JetstreamSynced => {
            let path = directory.join("nats.conf");
            let store = directory.join("streams");
            let sync = if system == System::JetstreamSynced { "sync_interval: always" } else { "" };
            let settings = format!(
                "listen: 127.0.0.1:{port}\njetstream {{\n store_dir: {:?}\n {sync}\n}}\n",
                store.display().to_string()
            );
            std::fs::write(&path, settings)?;
            dying_with_this("nats-server", &["-c", &path.display().to_string()])
        }
        System::Mosquitto => {
            let path = directory.join("mosquitto.conf");
            let settings = format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nmax_queued_messages 0\nmax_inflight_messages 1000\n\
                 set_tcp_nodelay true\n"
            );
            std::fs::write(&path, settings)?;
            dying_with_this("mosquitto", &["-c", &path.display().to_string()])
        }
        _ => rabbitmq(&directory, port)?,
    };
    let erlang = if system == System::Rabbitmq { Some(erlang(&mut command)?) } else { None };
    let log = std::fs::File::create(directory.join("log"))?;
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
    let child = child.map_err(|error| format!("cannot start {command:?}: {error}"))?;
    let mut broker = Broker { pid: child.id(), child, directory: erlang, port };
    let deadline = clock::now() + START;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if clock::now() > deadline || broker.child.try_wait()?.is_some() {
            let said = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
            let _ = broker.child.kill();
            return Err(format!("{} does not listen: {said}", system.name()).into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    if let Ok(pid) = std::fs::read_to_string(directory.join("pid")) {
        broker.pid = pid.trim().parse()?;
    }
    Ok(broker)
}

/// A command that the kernel ends when this process ends, however that comes.
fn dying_with_this(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", program]).args(arguments);
    command
}

/// Starts the directory of Erlang's nodes, for that one.
fn erlang(node: &mut Command) -> Result<Child> {
    let port = free_port()?.to_string();
    node.env("ERL_EPMD_PORT", &port);
    Ok(dying_with_this("epmd", &["-address", "127.0.0.1", "-port", &port]).stdin(Stdio::null()).spawn()?)
}

fn rabbitmq(directory: &Path, port: u16) -> Result<Command> {
    let settings = format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\nvm_memory_high_watermark.relative = 0.6\ndisk_free_limit.absolute = 100MB\n"
    );
    std::fs::write(directory.join("rabbitmq.conf"), settings)?;
    std::fs::write(directory.join("plugins"), "[].")?;
    let mut command = dying_with_this("/usr/lib/rabbitmq/bin/rabbitmq-server", &[]);
    command.env("HOME", directory).env("RABBITMQ_NODENAME", format!("versus{port}@localhost"));
    command.env("RABBITMQ_DIST_PORT", free_port()?.to_string()).env("ERL_EPMD_ADDRESS", "127.0.0.1");
    command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}");
    for (variable, file) in [
        ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
        ("RABBITMQ_MNESIA_BASE", "mnesia"),
        ("RABBITMQ_LOG_BASE", "logs"),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", "plugins"),
        ("RABBITMQ_PID_FILE", "pid"),
    ] {
        command.env(variable, directory.join(file));
    }
    Ok(command)
}
