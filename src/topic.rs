//! Names: topics, the patterns that match them, services, and the rules for their spelling.
//!
//! This file knows text only. Who listens to what is the mesh's business.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use crate::payload::{Bincode, Raw};

/// The longest topic, pattern or service name, in bytes.
///
/// ```
/// use pombo::{MAX_NAME, RawTopic};
/// assert!(RawTopic::parse(&"a".repeat(MAX_NAME)).is_ok());
/// assert!(RawTopic::parse(&"a".repeat(MAX_NAME + 1)).is_err());
/// ```
pub const MAX_NAME: usize = 256;

/// Why a text is no topic, pattern or service name.
///
/// ```
/// use pombo::{NameError, RawTopic};
/// let error = RawTopic::parse("orders..created").err();
/// assert_eq!(error, Some(NameError::EmptyToken { name: "orders..created".to_owned(), position: 2 }));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// There is no text at all.
    #[error("the name is empty: write tokens separated by dots, such as orders.eu.created")]
    Empty,
    /// Longer than [`MAX_NAME`].
    #[error("the name has {length} bytes, at most {MAX_NAME} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// Two dots in a row, or a dot at an end.
    #[error("token {position} of \"{name}\" is empty: remove the stray dot")]
    EmptyToken {
        /// The whole name.
        name: String,
        /// Which token, counted from 1.
        position: usize,
    },
    /// A character outside `A-Z a-z 0-9 _ -`.
    #[error("token \"{token}\" of \"{name}\" has the character {character:?}: tokens are made of A-Z a-z 0-9 _ -")]
    BadCharacter {
        /// The whole name.
        name: String,
        /// The token that has it.
        token: String,
        /// The character.
        character: char,
    },
    /// `*` or `>` where one exact name is needed.
    #[error("\"{name}\" has the wildcard \"{token}\": wildcards are for subscribing, this needs one exact name")]
    Wildcard {
        /// The whole name.
        name: String,
        /// `*` or `>`.
        token: String,
    },
    /// `>` anywhere but at the end.
    #[error("\"{name}\" has \">\" before its end: \">\" stands for all the rest and can only be the last token")]
    RestNotLast {
        /// The whole name.
        name: String,
    },
}

/// What a name may contain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wildcards {
    Refused,
    Allowed,
}

fn check(name: &str, wildcards: Wildcards) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME {
        return Err(NameError::TooLong { length: name.len() });
    }
    let mut tokens = name.split('.').enumerate().peekable();
    while let Some((index, token)) = tokens.next() {
        if token.is_empty() {
            return Err(NameError::EmptyToken { name: name.to_owned(), position: index + 1 });
        }
        if token == "*" || token == ">" {
            if wildcards == Wildcards::Refused {
                return Err(NameError::Wildcard { name: name.to_owned(), token: token.to_owned() });
            }
            if token == ">" && tokens.peek().is_some() {
                return Err(NameError::RestNotLast { name: name.to_owned() });
            }
            continue;
        }
        if let Some(character) = token.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '_' && *c != '-') {
            return Err(NameError::BadCharacter { name: name.to_owned(), token: token.to_owned(), character });
        }
    }
    Ok(())
}

/// The same rules as [`check`] without wildcards, for names that are checked while compiling.
const fn is_exact(name: &[u8]) -> bool {
    if name.is_empty() || name.len() > MAX_NAME {
        return false;
    }
    let mut index = 0;
    let mut token_is_empty = true;
    while index < name.len() {
        match name[index] {
            b'.' if token_is_empty => return false,
            b'.' => token_is_empty = true,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => token_is_empty = false,
            _ => return false,
        }
        index += 1;
    }
    !token_is_empty
}

/// A checked name without wildcards, cheap to clone.
#[derive(Clone)]
pub(crate) enum Name {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Name {
    pub(crate) fn parse(text: &str) -> Result<Self, NameError> {
        check(text, Wildcards::Refused)?;
        Ok(Self::Shared(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
        }
    }
}

/// A topic: its name and the type of what is published on it.
///
/// Define it once, share the constant between the two ends, and the compiler checks that they agree. A bad name does not
/// compile:
///
/// ```
/// # use serde::{Serialize, Deserialize};
/// use pombo::Topic;
///
/// #[derive(Serialize, Deserialize)]
/// pub struct Order { id: u64, item: String }
///
/// pub const ORDERS: Topic<Order> = Topic::new("orders.eu.created");
/// ```
///
/// ```compile_fail
/// pub const BAD: pombo::Topic<u64> = pombo::Topic::new("orders..created");
/// ```
///
/// Payloads travel as [`Bincode`] unless the second parameter says otherwise: [`Json`](crate::Json), or [`Raw`] for bytes
/// that are passed on as they are.
pub struct Topic<T, E = Bincode> {
    pub(crate) name: Name,
    types: PhantomData<fn() -> (T, E)>,
}

impl<T, E> Topic<T, E> {
    /// A topic whose name is known when compiling.
    ///
    /// # Panics
    ///
    /// If `name` is no topic name. In a `const` that is an error of the compiler. For names that are known only at run
    /// time there is [`Topic::parse`].
    ///
    /// ```
    /// use pombo::{Json, Topic};
    /// const ORDERS: Topic<u64, Json> = Topic::new("orders.eu.created");
    /// ```
    pub const fn new(name: &'static str) -> Self {
        assert!(
            is_exact(name.as_bytes()),
            "not a topic name: dot-separated tokens of A-Z a-z 0-9 _ -, at most 256 bytes"
        );
        Self { name: Name::Static(name), types: PhantomData }
    }

    /// A topic whose name is known only at run time.
    ///
    /// # Errors
    ///
    /// [`NameError`] names the token that is wrong.
    ///
    /// ```
    /// use pombo::{RawTopic, NameError};
    /// assert!(RawTopic::parse("orders.eu").is_ok());
    /// assert!(matches!(RawTopic::parse("orders.*"), Err(NameError::Wildcard { .. })));
    /// ```
    pub fn parse(name: &str) -> Result<Self, NameError> {
        Ok(Self { name: Name::parse(name)?, types: PhantomData })
    }

    /// The name.
    ///
    /// ```
    /// assert_eq!(pombo::RawTopic::new("orders.eu").name(), "orders.eu");
    /// ```
    pub fn name(&self) -> &str {
        self.name.as_str()
    }
}

/// A topic for bytes that pombo passes on as they are.
///
/// ```
/// let topic: pombo::RawTopic = "camera.pictures".parse()?;
/// # Ok::<(), pombo::NameError>(())
/// ```
pub type RawTopic = Topic<bytes::Bytes, Raw>;

impl<T, E> Clone for Topic<T, E> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), types: PhantomData }
    }
}

impl<T, E> fmt::Debug for Topic<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({})", self.name())
    }
}

impl<T, E> fmt::Display for Topic<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl<T, E> FromStr for Topic<T, E> {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

/// What a subscriber listens to: a topic in which `*` may stand for one token and a last `>` for one or more.
///
/// ```
/// use pombo::RawPattern;
/// let pattern = RawPattern::parse("orders.*.created")?;
/// assert!(pattern.matches("orders.eu.created"));
/// assert!(!pattern.matches("orders.created"));
/// assert!(RawPattern::parse("orders.>")?.matches("orders.eu.created"));
/// assert!(!RawPattern::parse("orders.>")?.matches("orders"));
/// # Ok::<(), pombo::NameError>(())
/// ```
pub struct Pattern<T, E = Bincode> {
    text: Arc<str>,
    types: PhantomData<fn() -> (T, E)>,
}

/// A pattern for bytes that pombo passes on as they are.
///
/// ```
/// let everything: pombo::RawPattern = ">".parse()?;
/// # Ok::<(), pombo::NameError>(())
/// ```
pub type RawPattern = Pattern<bytes::Bytes, Raw>;

impl<T, E> Pattern<T, E> {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// [`NameError`] names the token that is wrong.
    ///
    /// ```
    /// use pombo::{Json, NameError, Pattern};
    /// let prices = Pattern::<u64, Json>::parse("shop.*.price")?;
    /// assert!(matches!(Pattern::<u64>::parse("shop.>.price"), Err(NameError::RestNotLast { .. })));
    /// # Ok::<(), NameError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_pattern(text)?;
        Ok(Self { text: text.into(), types: PhantomData })
    }

    /// Its text.
    ///
    /// ```
    /// use pombo::{Pattern, Topic};
    /// const ORDERS: Topic<u64> = Topic::new("orders.eu");
    /// assert_eq!(Pattern::from(ORDERS).as_str(), "orders.eu");
    /// ```
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a message on `topic` is meant, which is taken to be a topic's name.
    ///
    /// ```
    /// let pattern = pombo::RawPattern::parse("orders.>")?;
    /// let topics = ["orders", "orders.eu", "orders.eu.created"];
    /// assert_eq!(topics.map(|topic| pattern.matches(topic)), [false, true, true]);
    /// # Ok::<(), pombo::NameError>(())
    /// ```
    pub fn matches(&self, topic: &str) -> bool {
        matches(&self.text, topic)
    }

    pub(crate) fn text(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }
}

impl<T, E> Clone for Pattern<T, E> {
    fn clone(&self) -> Self {
        Self { text: self.text(), types: PhantomData }
    }
}

impl<T, E> fmt::Debug for Pattern<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({})", self.text)
    }
}

impl<T, E> fmt::Display for Pattern<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl<T, E> FromStr for Pattern<T, E> {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl<T, E> From<Topic<T, E>> for Pattern<T, E> {
    fn from(topic: Topic<T, E>) -> Self {
        Self { text: topic.name().into(), types: PhantomData }
    }
}

/// Checks the spelling of a pattern that came from outside.
pub(crate) fn check_pattern(text: &str) -> Result<(), NameError> {
    check(text, Wildcards::Allowed)
}

/// Checks the spelling of a topic or service name that came from outside.
pub(crate) fn check_name(text: &str) -> Result<(), NameError> {
    check(text, Wildcards::Refused)
}

/// Whether `pattern` means `topic`. Both are taken to be well formed.
pub(crate) fn matches(pattern: &str, topic: &str) -> bool {
    let mut topic_tokens = topic.split('.');
    for token in pattern.split('.') {
        match (token, topic_tokens.next()) {
            (_, None) => return false,
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (token, Some(found)) if token == found => {}
            (_, Some(_)) => return false,
        }
    }
    topic_tokens.next().is_none()
}

/// Types that a name stands for and no value of which it holds.
type Types<Q, R, E> = PhantomData<fn() -> (Q, R, E)>;

/// A service: its name and the types of question and answer.
///
/// Both travel as [`Bincode`] unless the third parameter says otherwise, as with [`Topic`].
///
/// ```
/// use pombo::Service;
/// pub const UPPER: Service<String, String> = Service::new("text.upper");
/// ```
pub struct Service<Q, R, E = Bincode> {
    pub(crate) name: Name,
    types: Types<Q, R, E>,
}

/// A service whose questions and answers are bytes that pombo passes on as they are.
///
/// ```
/// let service: pombo::RawService = "text.upper".parse()?;
/// # Ok::<(), pombo::NameError>(())
/// ```
pub type RawService = Service<bytes::Bytes, bytes::Bytes, Raw>;

impl<Q, R, E> Service<Q, R, E> {
    /// A service whose name is known when compiling.
    ///
    /// # Panics
    ///
    /// If `name` breaks the rules of [`Topic::new`]. In a `const` that is an error of the compiler.
    ///
    /// ```
    /// use pombo::{Json, Service};
    /// const PRICE: Service<String, Option<u64>, Json> = Service::new("shop.price");
    /// ```
    pub const fn new(name: &'static str) -> Self {
        assert!(
            is_exact(name.as_bytes()),
            "not a service name: dot-separated tokens of A-Z a-z 0-9 _ -, at most 256 bytes"
        );
        Self { name: Name::Static(name), types: PhantomData }
    }

    /// A service whose name is known only at run time.
    ///
    /// # Errors
    ///
    /// [`NameError`] names the token that is wrong.
    ///
    /// ```
    /// use pombo::{NameError, RawService};
    /// assert!(matches!(RawService::parse("text upper"), Err(NameError::BadCharacter { character: ' ', .. })));
    /// ```
    pub fn parse(name: &str) -> Result<Self, NameError> {
        Ok(Self { name: Name::parse(name)?, types: PhantomData })
    }

    /// The name.
    ///
    /// ```
    /// assert_eq!(pombo::RawService::new("text.upper").name(), "text.upper");
    /// ```
    pub fn name(&self) -> &str {
        self.name.as_str()
    }
}

impl<Q, R, E> Clone for Service<Q, R, E> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), types: PhantomData }
    }
}

impl<Q, R, E> fmt::Debug for Service<Q, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service({})", self.name())
    }
}

impl<Q, R, E> fmt::Display for Service<Q, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl<Q, R, E> FromStr for Service<Q, R, E> {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_the_token_is_named() {
        assert_eq!(check_name("orders.eu_1.a-b"), Ok(()));
        assert_eq!(check_name(""), Err(NameError::Empty));
        assert_eq!(check_name(&"a".repeat(257)), Err(NameError::TooLong { length: 257 }));
        assert_eq!(check_name("a..b"), Err(NameError::EmptyToken { name: "a..b".into(), position: 2 }));
        assert_eq!(check_name("a."), Err(NameError::EmptyToken { name: "a.".into(), position: 2 }));
        assert_eq!(
            check_name("a.bé"),
            Err(NameError::BadCharacter { name: "a.bé".into(), token: "bé".into(), character: 'é' })
        );
        assert_eq!(check_name("a.>"), Err(NameError::Wildcard { name: "a.>".into(), token: ">".into() }));
        assert_eq!(check_pattern("a.>.b"), Err(NameError::RestNotLast { name: "a.>.b".into() }));
        assert!(matches!(check_pattern("a.b*"), Err(NameError::BadCharacter { character: '*', .. })));
    }

    #[test]
    fn the_compile_time_check_agrees_with_the_other() {
        for name in ["a", "a.b", "", ".", "a.", ".a", "a..b", "a*", "*", ">", "a b", "é", "A-Z_0.9"] {
            assert_eq!(is_exact(name.as_bytes()), check_name(name).is_ok(), "{name:?}");
        }
        let (longest, longer) = ("a".repeat(256), "a".repeat(257));
        assert!(is_exact(longest.as_bytes()) && !is_exact(longer.as_bytes()));
    }

    #[test]
    fn patterns_follow_the_rules_of_nats() {
        let table = [
            ("a.b", "a.b", true),
            ("a.b", "a", false),
            ("a", "a.b", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("*.b", "a.b", true),
            (">", "a", true),
            (">", "a.b.c", true),
            ("a.>", "a", false),
            ("a.>", "a.b.c", true),
            ("a.*.>", "a.b", false),
            ("a.*.>", "a.b.c", true),
        ];
        for (pattern, topic, expected) in table {
            assert_eq!(matches(pattern, topic), expected, "{pattern} on {topic}");
        }
    }
}
