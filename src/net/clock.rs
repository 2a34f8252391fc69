//! The one place where clocks are read for the mesh.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::mesh::time::{Mono, Now, Span, Wall};

/// Reads both clocks. Monotonic time counts from the moment the clock was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is where clocks are read")]
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        Now { mono: self.mono(), wall: Self::wall() }
    }

    pub(crate) fn mono(&self) -> Mono {
        Mono(Span::from(self.start.elapsed()).0)
    }

    #[expect(clippy::disallowed_methods, reason = "this is where clocks are read")]
    pub(crate) fn wall() -> Wall {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Wall(Span::from(wall).0)
    }

    /// When that moment comes.
    pub(crate) fn instant(&self, at: Mono) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.start + Duration::from_micros(at.0))
    }
}
