//! The registry of this host: whether an entry that is written there is found again, and who else is in it.

use std::path::Path;

use libp2p::PeerId;
use libp2p::identity::Keypair;

use super::{Finding, Probe, secret_mesh};
use crate::net::registry::{self, Card, Registration, RegistryError};

/// Writes an entry, of a mesh that nobody is in, reads it as a neighbour would, and removes it. Blocks.
pub(crate) fn probe(registry: Result<&Path, &RegistryError>) -> Finding {
    let directory = match registry {
        Ok(directory) => directory,
        Err(error) => return Finding::failed(Probe::Local, "", error),
    };
    let subject = directory.display().to_string();
    let others = registry::census(directory).len();
    match write_and_read(directory) {
        Ok(true) => {
            let nodes = match others {
                1 => "1 node is".to_owned(),
                others => format!("{others} nodes are"),
            };
            let detail = format!("it is ours, closed to others, and an entry is found again; {nodes} in it");
            Finding::works(Probe::Local, subject, detail)
        }
        Ok(false) => Finding::fails(Probe::Local, subject, "an entry that was written is not found again")
            .remedy("see whether something removes files there; neighbours on this machine can be given as addresses"),
        Err(error) => Finding::failed(Probe::Local, subject, &error),
    }
}

fn write_and_read(directory: &Path) -> Result<bool, RegistryError> {
    let nobody = || PeerId::from(Keypair::generate_ed25519().public());
    let random = |source| RegistryError::Io { what: "draw random bytes for", path: directory.to_owned(), source };
    let mesh = secret_mesh().map_err(random)?;
    let card = Card {
        peer: nobody(),
        name: "doctor".to_owned(),
        mesh: mesh.name.clone(),
        mesh_id: mesh.id,
        addresses: Vec::new(),
        node: false,
    };
    let peer = card.peer;
    let _entry = Registration::write(directory, card)?;
    Ok(registry::scan(directory, mesh.id, nobody()).iter().any(|card| card.peer == peer))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::net::doctor::Verdict;

    #[test]
    fn an_entry_is_found_again_and_gone_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let found = probe(Ok(dir.path()));
        assert_eq!((found.verdict, found.vital), (Verdict::Works, false), "{found:?}");
        assert!(found.detail.ends_with("0 nodes are in it"), "{found:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_registry_that_cannot_be_written_to_says_why() {
        let found = probe(Ok(Path::new("/dev/null")));
        assert!(found.verdict == Verdict::Fails && found.detail.contains("/dev/null"), "{found:?}");
        assert!(found.remedy.is_some_and(|remedy| remedy.contains("addresses")));
    }
}
