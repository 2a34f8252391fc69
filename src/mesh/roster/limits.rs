//! What a record may contain: the bounds that others' records are refused by and our own are kept within.

use crate::wire::roster::RosterRecord;

pub(super) const NAME: usize = 64;
pub(super) const ADDRESSES: usize = 64;
pub(super) const INTERESTS: usize = 1_024;
pub(super) const SERVICES: usize = 256;
const GROUP: usize = 256;

/// What this node would say of itself is more than a roster record holds. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} {what} are more than a roster record holds: at most {limit}")]
pub(crate) struct TooLarge {
    pub(crate) what: &'static str,
    pub(crate) found: usize,
    pub(crate) limit: usize,
}

pub(super) fn count(what: &'static str, found: usize, limit: usize) -> Result<(), TooLarge> {
    if found > limit { Err(TooLarge { what, found, limit }) } else { Ok(()) }
}

/// Whether others accept a node of this name. Whoever starts a node has to check: the roster takes it as it is.
pub(crate) fn is_node_name(name: &str) -> bool {
    is_label(name, NAME)
}

/// Whether a record's content is within reason. Patterns and services have been checked for their spelling.
pub(super) fn is_sane(record: &RosterRecord) -> bool {
    is_node_name(&record.name)
        && record.addresses.len() <= ADDRESSES
        && record.interests.len() <= INTERESTS
        && record.services.len() <= SERVICES
        && record.interests.iter().filter_map(|interest| interest.group.as_deref()).all(|group| is_label(group, GROUP))
}

/// Control characters would let a stranger write to our users' terminals.
fn is_label(text: &str, limit: usize) -> bool {
    text.len() <= limit && !text.chars().any(char::is_control)
}
