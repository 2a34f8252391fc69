//! How a verb ends when it does not end well: an outcome, which is the exit code, and what to tell the user.

use pombo::{
    AckError, Closed, NameError, Outcome, PublishError, RequestError, StartError, SubscribeError, UndeliveredError,
};

use super::text;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    outcome: Outcome,
    message: String,
    hints: Vec<String>,
}

impl Failure {
    pub(super) fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, message: message.into(), hints: Vec::new() }
    }

    /// Whoever read stdout has gone. That ends the verb, and is nothing to complain about: its outcome is `Ok`.
    pub(super) fn unread() -> Self {
        Self::new(Outcome::Ok, "nobody reads what is printed")
    }

    /// A signal came before the work was done, or before it had any effect.
    pub(super) fn interrupted() -> Self {
        Self::new(Outcome::Failed, "interrupted")
    }

    /// Adds a line about what to do.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same, but after some of the work was done.
    pub(super) fn after(self, done: impl std::fmt::Display) -> Self {
        if self.outcome == Outcome::Ok {
            return self;
        }
        Self { outcome: Outcome::Partial, message: format!("{done}, then: {}", self.message), hints: self.hints }
    }

    pub(super) fn outcome(&self) -> Outcome {
        self.outcome
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn hints(&self) -> &[String] {
        &self.hints
    }
}

macro_rules! from_classed {
    ($($error:ty),+) => { $(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(error.outcome(), error.to_string())
            }
        }
    )+ };
}

from_classed!(StartError, PublishError, SubscribeError, RequestError, AckError, UndeliveredError);

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        let failure = Self::new(Outcome::Rejected, error.to_string());
        if let NameError::BadCharacter { name, character: '/', .. } = &error {
            return failure.hint(format!("dots separate tokens: {}", text::escape(&name.replace('/', "."))));
        }
        failure
    }
}

impl From<Closed> for Failure {
    fn from(error: Closed) -> Self {
        Self::new(Outcome::Failed, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_is_that_of_the_library() {
        let failure = Failure::from(PublishError::Nobody { topic: "a.b".into(), wanted: 2, found: 1 });
        assert_eq!(failure.outcome(), Outcome::Nobody);
        assert_eq!(failure.message(), "1 of 2 peers subscribe to a.b");
    }

    #[test]
    fn slashes_are_answered_with_dots() {
        let error = pombo::RawTopic::parse("sensors/kitchen").unwrap_err();
        assert_eq!(Failure::from(error).hints(), ["dots separate tokens: sensors.kitchen"]);
        let error = pombo::RawTopic::parse("sensors kitchen").unwrap_err();
        assert!(Failure::from(error).hints().is_empty());
    }

    #[test]
    fn what_was_done_before_makes_it_partial() {
        let failure = Failure::new(Outcome::Unknown, "no answer").after("3 messages were published");
        assert_eq!(failure.outcome(), Outcome::Partial);
        assert_eq!(failure.message(), "3 messages were published, then: no answer");
        assert_eq!(Failure::unread().after("3").outcome(), Outcome::Ok);
    }
}
