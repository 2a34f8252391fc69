//! Time as the mesh is told it: two clocks, as integers, always an argument.

use std::ops::{Add, Sub};

/// Microseconds of a clock that never jumps, from an arbitrary start. Timers run on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Mono(pub(crate) u64);

/// Microseconds since 1970 by a clock that people set, and that may jump. Ages of what others wrote are judged by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Wall(pub(crate) u64);

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) mono: Mono,
    pub(crate) wall: Wall,
}

/// A length of time in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Span(pub(crate) u64);

impl Span {
    pub(crate) const fn millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    pub(crate) const fn secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }
}

impl From<std::time::Duration> for Span {
    fn from(duration: std::time::Duration) -> Self {
        Self(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
}

impl Add<Span> for Mono {
    type Output = Self;

    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub for Mono {
    type Output = Span;

    fn sub(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Span> for Wall {
    type Output = Self;

    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub for Wall {
    type Output = Span;

    fn sub(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}
