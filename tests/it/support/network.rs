//! Several hosts on virtual switches: network namespaces with cables between them.
//!
//! Needs root and the `ip` command; where they are missing, each test says that it was skipped.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Turn;
use super::process::Process;
use super::user::User;

/// What a node needs to be told here: anybody may join, and the registry, which the hosts would share as they share the
/// file system, is left alone.
pub(crate) const OPEN: &str = "--open --no-local";

/// Hosts and switches of one test. All of it goes when this is dropped.
pub(crate) struct Network {
    /// What the names of this test's namespaces begin with.
    tag: String,
    namespaces: Vec<String>,
    _turn: Turn,
}

/// A host, with one user.
pub(crate) struct Host {
    pub(crate) number: u8,
    pub(crate) namespace: String,
    pub(crate) user: User,
}

/// What addresses a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Host 3 on switch 0: 10.77.0.3.
    Ip4,
    /// Host 3 on switch 0: fd77::3, and fe80::3 as every IPv6 host has it.
    Ip6,
    /// Both.
    Dual,
    /// fe80::3 and nothing else.
    LinkLocal,
}

impl Family {
    fn addresses(self, switch: u8, number: u8) -> Vec<String> {
        let ip4 = format!("10.77.{switch}.{number}/24");
        let ip6 = format!("fd77:{switch}::{number}/64");
        let link_local = format!("fe80::{number}/64");
        match self {
            Self::Ip4 => vec![ip4],
            Self::Ip6 => vec![link_local, ip6],
            Self::Dual => vec![link_local, ip6, ip4],
            Self::LinkLocal => vec![link_local],
        }
    }
}

impl Network {
    /// None, and a line that says why, where namespaces cannot be made.
    pub(crate) fn new(test: &str) -> Option<Self> {
        static TESTS: AtomicU32 = AtomicU32::new(0);
        let turn = Turn::alone();
        let tag = format!("pombo{}-{}", std::process::id(), TESTS.fetch_add(1, Ordering::Relaxed));
        let mut network = Self { tag, namespaces: Vec::new(), _turn: turn };
        let made = network.try_namespace("sw0").and_then(|()| network.try_switch(0));
        if let Err(reason) = made {
            // Past the harness, which keeps quiet about tests that pass.
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("SKIPPED {test}: no network namespaces here: {reason}\n").as_bytes(),
            );
            return None;
        }
        Some(network)
    }

    /// Another switch.
    pub(crate) fn switch(&mut self, number: u8) {
        self.try_namespace(&format!("sw{number}")).unwrap();
        self.try_switch(number).unwrap();
    }

    /// A host with a cable to each of these switches. On switch 0 host 3 is 10.77.0.3.
    pub(crate) fn host(&mut self, number: u8, switches: &[u8]) -> Host {
        self.host_of(Family::Ip4, number, switches)
    }

    /// A host with addresses of that family.
    pub(crate) fn host_of(&mut self, family: Family, number: u8, switches: &[u8]) -> Host {
        let name = format!("h{number}");
        self.try_namespace(&name).unwrap();
        let namespace = self.namespace(&name);
        ip(&format!("-n {namespace} link set lo up")).unwrap();
        for switch in switches {
            let at = self.namespace(&format!("sw{switch}"));
            for command in [
                format!("link add eth{switch} netns {namespace} type veth peer name h{number} netns {at}"),
                format!("-n {at} link set h{number} master br0 up"),
                format!("-n {namespace} link set eth{switch} addrgenmode none"),
                format!("-n {namespace} link set eth{switch} up"),
            ] {
                ip(&command).unwrap();
            }
            for address in family.addresses(*switch, number) {
                // No time is lost by asking whether somebody else has it.
                let nodad = if address.contains(':') { " nodad" } else { "" };
                ip(&format!("-n {namespace} addr add {address} dev eth{switch}{nodad}")).unwrap();
            }
        }
        if family != Family::Ip6 && family != Family::LinkLocal {
            // Multicast needs a way out.
            ip(&format!("-n {namespace} route add default dev eth{}", switches[0])).unwrap();
        }
        let user = User::at(["ip", "netns", "exec", &namespace].map(str::to_owned).into());
        Host { number, namespace, user }
    }

    pub(crate) fn hosts<const N: usize>(&mut self) -> [Host; N] {
        std::array::from_fn(|index| self.host(u8::try_from(index + 1).unwrap(), &[0]))
    }

    /// Pulls a host's cable out of the switch.
    pub(crate) fn pull(&self, host: &Host, switch: u8) {
        ip(&format!("-n {} link set h{} down", self.namespace(&format!("sw{switch}")), host.number)).unwrap();
    }

    pub(crate) fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.tag)
    }

    fn try_namespace(&mut self, name: &str) -> Result<(), String> {
        let namespace = self.namespace(name);
        ip(&format!("netns add {namespace}"))?;
        self.namespaces.push(namespace);
        Ok(())
    }

    fn try_switch(&self, number: u8) -> Result<(), String> {
        let namespace = self.namespace(&format!("sw{number}"));
        ip(&format!("-n {namespace} link add br0 type bridge mcast_snooping 0"))?;
        ip(&format!("-n {namespace} link set br0 up"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            // Only hosts that were given names of others have it.
            let _ = std::fs::remove_dir_all(format!("/etc/netns/{namespace}"));
            if let Err(error) = ip(&format!("netns del {namespace}")) {
                eprintln!("{namespace} stays behind: {error}");
            }
        }
    }
}

impl Host {
    pub(crate) fn node(&self, flags: &str) -> Process {
        let (node, _) = self.user.node(&format!("--name h{} {flags}", self.number));
        node
    }

    /// Writes its hosts file, which takes the place of the machine's in every process that is started there later, and is
    /// read anew with every look-up.
    pub(crate) fn hosts_file(&self, text: &str) {
        let directory = format!("/etc/netns/{}", self.namespace);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(format!("{directory}/hosts"), text).unwrap();
        std::fs::write(format!("{directory}/nsswitch.conf"), "hosts: files\n").unwrap();
    }

    /// Its address on a switch, at a node's port.
    pub(crate) fn address(&self, switch: u8, port: u16) -> String {
        format!("/ip4/10.77.{switch}.{}/tcp/{port}", self.number)
    }
}

pub(crate) fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
