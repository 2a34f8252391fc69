//! What our own record may hold. Others' records were held to it when they were opened.

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
