//! What makes a node a member of a mesh: the mesh's secret.
//!
//! Where the secret is stored is the data directory's business, how it is proven the gate's.

use std::fmt;

use crate::MeshId;

/// Name, id and secret of one mesh: all a node needs to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MeshAccess {
    /// What people call it, on this host.
    pub(crate) name: String,
    /// What stands in topics and signatures. No secret.
    pub(crate) id: MeshId,
    /// What the gate asks for.
    pub(crate) secret: MeshSecret,
}

/// The name of the one mesh that anybody may join.
pub(crate) const OPEN: &str = "open";

impl MeshAccess {
    /// The well-known mesh with an empty secret: anybody who reaches a node of it is a member.
    pub(crate) fn open() -> Self {
        Self {
            name: OPEN.to_owned(),
            id: first_half(blake3::hash(b"pombo open mesh 1").as_bytes()),
            secret: MeshSecret(None),
        }
    }

    /// A private mesh. Its id follows from its secret, so that two nodes with one secret cannot disagree about it.
    pub(crate) fn private(name: &str, secret: [u8; 32]) -> Self {
        Self {
            name: name.to_owned(),
            id: first_half(&blake3::derive_key("pombo mesh id v1", &secret)),
            secret: MeshSecret(Some(secret)),
        }
    }

    /// Whether this is the mesh that anybody may join.
    pub(crate) fn is_open(&self) -> bool {
        self.secret.0.is_none()
    }
}

fn first_half(hash: &[u8; 32]) -> MeshId {
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    MeshId(id)
}

/// The secret of a mesh; empty for the open one. Nothing prints it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct MeshSecret(Option<[u8; 32]>);

impl MeshSecret {
    /// The bytes that keys are derived from.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |secret| secret.as_slice())
    }
}

impl fmt::Debug for MeshSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "MeshSecret(..)" } else { "MeshSecret(none)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let mesh = MeshAccess::private("home", [0xab; 32]);
        let printed = format!("{mesh:?} {mesh:#?}").to_lowercase();
        assert!(!printed.contains("abab") && !printed.contains("171"), "{printed}");
    }

    #[test]
    fn the_id_follows_from_the_secret_and_does_not_give_it_away() {
        let mesh = MeshAccess::private("home", [7; 32]);
        assert_eq!(mesh.id, MeshAccess::private("elsewhere", [7; 32]).id);
        assert_ne!(mesh.id, MeshAccess::private("home", [8; 32]).id);
        assert_ne!(mesh.id, MeshAccess::open().id);
        assert_ne!(mesh.id.0, [7; 16]);
    }

    #[test]
    fn only_the_open_mesh_is_open() {
        assert!(MeshAccess::open().is_open());
        assert!(!MeshAccess::private("open", [0; 32]).is_open());
    }
}
