//! One entry of the registry as it stands in its file, and what of it holds here.

use std::fs;
use std::io;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use serde::{Deserialize, Serialize};

use super::Card;
use crate::MeshId;

/// Where a process runs. Facts that a system does not have are empty, and equal to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Which start of which machine: a directory may outlive the first, and be shared with the second.
    boot: String,
    /// Which network namespace: loopback addresses mean something only within one.
    network: String,
}

impl Place {
    /// Where this process runs.
    pub(super) fn here() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let network = fs::read_link("/proc/self/ns/net").unwrap_or_default();
        Self { boot: boot.trim().to_owned(), network: network.to_string_lossy().into_owned() }
    }

    #[cfg(test)]
    pub(super) fn elsewhere(boot: &str, network: &str) -> Self {
        Self { boot: boot.to_owned(), network: network.to_owned() }
    }
}

/// The file's content. Fields that a later version adds are passed over; one that it drops makes the entry unreadable.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    peer: String,
    name: String,
    mesh: String,
    mesh_id: String,
    /// For people who look at the file; nothing depends on it.
    pid: u32,
    #[serde(flatten)]
    place: Place,
    addresses: Vec<Multiaddr>,
    node: bool,
}

impl Entry {
    pub(super) fn new(card: &Card, place: Place) -> Self {
        Self {
            peer: card.peer.to_string(),
            name: card.name.clone(),
            mesh: card.mesh.clone(),
            mesh_id: card.mesh_id.to_string(),
            pid: std::process::id(),
            place,
            addresses: card.addresses.clone(),
            node: card.node,
        }
    }

    pub(super) fn to_json(&self) -> io::Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    pub(super) fn from_json(text: &str) -> io::Result<Self> {
        Ok(serde_json::from_str(text)?)
    }

    /// What of the entry holds `here`: nothing on another host, no loopback addresses from another namespace.
    pub(super) fn card(self, here: &Place) -> io::Result<Option<Card>> {
        if self.place.boot != here.boot {
            return Ok(None);
        }
        let peer = self.peer.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let mesh_id = parse_mesh_id(&self.mesh_id)?;
        let mut addresses = self.addresses;
        if self.place.network != here.network {
            addresses.retain(|address| !is_loopback(address));
        }
        let Self { name, mesh, node, .. } = self;
        Ok(Some(Card { peer, name, mesh, mesh_id, addresses, node }))
    }
}

fn parse_mesh_id(text: &str) -> io::Result<MeshId> {
    let number = u128::from_str_radix(text, 16).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(MeshId(number.to_be_bytes()))
}

fn is_loopback(address: &Multiaddr) -> bool {
    let first = address.iter().next();
    matches!(first, Some(Protocol::Ip4(ip)) if ip.is_loopback())
        || matches!(first, Some(Protocol::Ip6(ip)) if ip.is_loopback())
}
