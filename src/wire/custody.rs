//! Copies of guaranteed messages at other nodes: what those are given, and what their senders and recipients sign, so that others
//! can speak for them.

use bytes::Bytes;
use libp2p_identity::Keypair;
use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError};
use super::letter::{DIGEST, Letter};
use super::node_key::{self, NodeKey, Purpose, SIGNATURE, SignError};
use super::rpc::{Fate, Offered, check_text};
use super::{MeshId, MessageId};

/// A letter that another node is to keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entrusted {
    /// How many others are asked to step in before that node.
    pub(crate) rank: u8,
    /// The recipients, all of them.
    pub(crate) to: Vec<String>,
    /// Its sender's, over the letter's digest and the recipients.
    pub(crate) signature: Bytes,
    pub(crate) sealed: Bytes,
}

/// A letter as one offers it who keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Brought {
    pub(crate) offered: Offered,
    /// As in [`Entrusted`]. Nothing, where there is no sealed letter.
    pub(crate) to: Vec<String>,
    pub(crate) signature: Bytes,
}

/// A recipient that needs no copy of a message any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Released {
    pub(crate) id: MessageId,
    pub(crate) to: String,
}

/// What one who keeps a copy knows of a message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Copied {
    pub(crate) id: MessageId,
    pub(crate) to: String,
    pub(crate) stage: CopyStage,
}

/// How far a message has come by one who keeps a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CopyStage {
    /// No node has it from there.
    Waiting,
    /// That node has had it on disk since then.
    Given { to: NodeKey, since: u64 },
    /// That node was done with it, and has signed that.
    Over { at: NodeKey, end: End, receipt: Bytes },
}

/// How a node was done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    Processed,
    Refused,
    Poison,
}

impl End {
    /// None for a fate that is none for good.
    pub(crate) fn of(fate: Fate) -> Option<Self> {
        match fate {
            Fate::Processed => Some(Self::Processed),
            Fate::Refused => Some(Self::Refused),
            Fate::Poison => Some(Self::Poison),
            Fate::Stored | Fate::Expired | Fate::Missing | Fate::NoRoom | Fate::Nobody | Fate::Withdrawn { .. } => None,
        }
    }
}

/// What a letter's sender signs: its digest, and each recipient with a zero byte behind it.
pub(crate) fn letter_text(sealed: &[u8], to: &[String]) -> Vec<u8> {
    let mut text = sealed.get(..DIGEST).unwrap_or_default().to_vec();
    for name in to {
        text.extend_from_slice(name.as_bytes());
        text.push(0);
    }
    text
}

/// What a recipient signs: the sender's key, the message's id, how it was done with it, and the recipient's name.
pub(crate) fn receipt_text(sender: NodeKey, id: MessageId, end: End, name: &str) -> Vec<u8> {
    let end = match end {
        End::Processed => 1,
        End::Refused => 2,
        End::Poison => 3,
    };
    [&sender.0[..], &id.start, &id.counter.to_be_bytes(), &[end], name.as_bytes()].concat()
}

/// Signs what [`letter_text`] returns.
pub(crate) fn sign_letter(key: &Keypair, mesh: MeshId, text: &[u8]) -> Result<Bytes, SignError> {
    node_key::sign(key, Purpose::Letter, mesh, text).map(Bytes::from)
}

/// Signs what [`receipt_text`] returns. Where there is no text there is no signature.
pub(crate) fn sign_receipts(key: &Keypair, mesh: MeshId, texts: &[Vec<u8>]) -> Result<Vec<Bytes>, SignError> {
    let sign = |text: &Vec<u8>| match text.is_empty() {
        true => Ok(Bytes::new()),
        false => node_key::sign(key, Purpose::Receipt, mesh, text).map(Bytes::from),
    };
    texts.iter().map(sign).collect()
}

impl Brought {
    /// Whether it is that sender's, and for that recipient among others.
    pub(crate) fn is_from(&self, sender: NodeKey, mesh: MeshId, name: &str) -> bool {
        let text = letter_text(&self.offered.sealed, &self.to);
        self.to.iter().any(|to| to == name) && sender.verify(Purpose::Letter, mesh, &text, &self.signature)
    }

    pub(super) fn check(&self) -> Result<(), CodecError> {
        check_signature(&self.signature)?;
        check_names(&self.to)
    }

    pub(super) fn bulk(&self) -> usize {
        size_of::<Offered>() + self.offered.sealed.len() + names(&self.to) + SIGNATURE
    }
}

impl Entrusted {
    /// The letter, if it is as it was sealed.
    pub(crate) fn open(&self) -> Option<Letter> {
        Letter::open(&self.sealed).ok()
    }

    pub(super) fn check(&self) -> Result<(), CodecError> {
        check_signature(&self.signature)?;
        check_names(&self.to)
    }

    pub(super) fn bulk(&self) -> usize {
        self.sealed.len() + names(&self.to) + 2 * SIGNATURE
    }
}

impl Copied {
    /// Whether its receipt, if it has one, is of the one who is said to have signed it.
    pub(crate) fn holds(&self, sender: NodeKey, mesh: MeshId) -> bool {
        match &self.stage {
            CopyStage::Waiting | CopyStage::Given { .. } => true,
            CopyStage::Over { at, end, receipt } => {
                at.verify(Purpose::Receipt, mesh, &receipt_text(sender, self.id, *end, &self.to), receipt)
            }
        }
    }

    pub(super) fn check(&self) -> Result<(), CodecError> {
        match &self.stage {
            CopyStage::Waiting => {}
            CopyStage::Given { since, .. } => codec::check_numbers(&[*since])?,
            CopyStage::Over { receipt, .. } => check_signature(receipt)?,
        }
        check_text(&self.to)
    }

    pub(super) fn bulk(&self) -> usize {
        size_of::<Self>() + self.to.len() + SIGNATURE
    }
}

/// A signature, or none.
pub(super) fn check_signature(signature: &[u8]) -> Result<(), CodecError> {
    match signature.len() {
        0 | SIGNATURE => Ok(()),
        other => Err(CodecError::malformed(format!("a signature of {other} bytes"))),
    }
}

fn check_names(names: &[String]) -> Result<(), CodecError> {
    names.iter().try_for_each(|name| check_text(name))
}

fn names(names: &[String]) -> usize {
    names.iter().map(|name| name.len() + 2).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::vectors::samples::{MESH, key, letter, node_key};

    fn brought() -> Brought {
        let sealed = letter().seal().expect("seals");
        let to = vec!["audit".to_owned(), "billing".to_owned()];
        let signature = sign_letter(&key(1), MESH, &letter_text(&sealed, &to)).expect("signs");
        let offered = Offered { id: letter().id, attempts: 0, lease: 0, take_back: false, sealed };
        Brought { offered, to, signature }
    }

    #[test]
    fn a_letter_is_its_senders_and_for_those_that_it_was_signed_for() {
        let good = brought();
        assert!(good.is_from(node_key(1), MESH, "billing"));
        assert!(!good.is_from(node_key(2), MESH, "billing"), "of another");
        assert!(!good.is_from(node_key(1), MESH, "shipping"), "for another");
        let wider = Brought { to: [good.to.clone(), vec!["shipping".to_owned()]].concat(), ..good.clone() };
        assert!(!wider.is_from(node_key(1), MESH, "shipping"), "for more");
        let mut other = letter();
        other.time += 1;
        let offered = Offered { sealed: other.seal().expect("seals"), ..good.offered.clone() };
        assert!(!Brought { offered, ..good }.is_from(node_key(1), MESH, "billing"), "with another text");
    }

    #[test]
    fn a_receipt_holds_for_one_sender_one_message_one_end_and_one_recipient() {
        let id = letter().id;
        let text = receipt_text(node_key(1), id, End::Processed, "billing");
        let receipts = sign_receipts(&key(2), MESH, &[Vec::new(), text]).expect("signs");
        assert!(receipts[0].is_empty());
        let receipt = receipts[1].clone();
        let stage = CopyStage::Over { at: node_key(2), end: End::Processed, receipt: receipt.clone() };
        let good = Copied { id, to: "billing".to_owned(), stage };
        assert!(good.holds(node_key(1), MESH));
        assert!(!good.holds(node_key(3), MESH), "another sender's");
        assert!(!Copied { to: "audit".to_owned(), ..good.clone() }.holds(node_key(1), MESH));
        let other = MessageId { counter: id.counter + 1, ..id };
        assert!(!Copied { id: other, ..good.clone() }.holds(node_key(1), MESH));
        for (at, end) in [(node_key(2), End::Poison), (node_key(3), End::Processed)] {
            let stage = CopyStage::Over { at, end, receipt: receipt.clone() };
            assert!(!Copied { stage, ..good.clone() }.holds(node_key(1), MESH));
        }
    }
}
