//! What a subscriber receives.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

pub(crate) use crate::wire::MessageId;

/// A message as a subscriber receives it. Dereferences to its payload.
///
/// ```
/// # async fn f(node: pombo::Node) -> Result<(), Box<dyn std::error::Error>> {
/// # use futures::StreamExt;
/// let mut lines = node.subscribe(pombo::RawPattern::parse("log.>")?).await?;
/// while let Some(line) = lines.next().await {
///     let line = line?;
///     println!("{} from {}: {} bytes", line.topic(), line.source(), line.len());
/// }
/// # Ok(())
/// # }
/// ```
///
/// What came with it:
///
/// ```
/// fn log<T: std::fmt::Debug>(message: &pombo::Message<T>) {
///     println!("{:?} {} on {} from {}", message.time(), message.id(), message.topic(), message.source());
///     println!("tenant {:?}, {}: {:?}", message.headers().get("tenant"), message.content_type(), **message);
/// }
/// ```
#[derive(Clone)]
pub struct Message<T> {
    pub(crate) origin: Arc<Origin>,
    pub(crate) id: MessageId,
    pub(crate) time: SystemTime,
    pub(crate) headers: Headers,
    pub(crate) payload: T,
}

/// What messages that came together have in common. Shared by them, so that each is small: it is moved several times.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) topic: String,
    pub(crate) source: PeerId,
    pub(crate) content_type: String,
}

impl<T> Message<T> {
    /// The topic that it was published on.
    pub fn topic(&self) -> &str {
        &self.origin.topic
    }

    /// Its id, unique in the mesh.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// The node that published it. Its signature was checked.
    pub fn source(&self) -> PeerId {
        self.origin.source
    }

    /// When it was published, by the publisher's clock, to the microsecond.
    pub fn time(&self) -> SystemTime {
        self.time
    }

    /// What the payload is, as the publisher says, such as `application/json`.
    pub fn content_type(&self) -> &str {
        &self.origin.content_type
    }

    /// What the publisher attached.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The payload, taken out.
    ///
    /// ```
    /// fn keep(orders: &mut Vec<String>, order: pombo::Message<String>) {
    ///     orders.push(order.into_payload());
    /// }
    /// ```
    pub fn into_payload(self) -> T {
        self.payload
    }
}

impl<T: fmt::Debug> fmt::Debug for Message<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { topic, source, content_type } = &*self.origin;
        f.debug_struct("Message")
            .field("topic", topic)
            .field("id", &self.id)
            .field("source", source)
            .field("time", &self.time)
            .field("content_type", content_type)
            .field("headers", &self.headers)
            .field("payload", &self.payload)
            .finish()
    }
}

impl<T> Deref for Message<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.payload
    }
}

/// Names and values that travel beside a payload, in the order in which they were added.
///
/// Any number can be added here; a message or request with more than [`MAX_COUNT`](Self::MAX_COUNT) or
/// [`MAX_BYTES`](Self::MAX_BYTES) is not sent.
///
/// ```
/// let headers: pombo::Headers = [("tenant", "acme")].into_iter().collect();
/// assert_eq!(headers.get("tenant"), Some("acme"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The most headers that one message or request may have.
    pub const MAX_COUNT: usize = 64;
    /// The most bytes that names and values may have together.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// Adds one. A name that is there already stays; [`get`](Self::get) finds the first.
    ///
    /// ```
    /// let mut headers = pombo::Headers::default();
    /// headers.add("tag", "red");
    /// headers.add("tag", "round");
    /// assert_eq!((headers.len(), headers.get("tag")), (2, Some("red")));
    /// ```
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// The first value of that name. Upper and lower case are different.
    ///
    /// ```
    /// let headers: pombo::Headers = [("tenant", "acme")].into_iter().collect();
    /// assert_eq!((headers.get("tenant"), headers.get("Tenant")), (Some("acme"), None));
    /// ```
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// All of them, as name and value.
    ///
    /// ```
    /// let headers: pombo::Headers = [("tag", "red"), ("tag", "round")].into_iter().collect();
    /// let tags: Vec<&str> = headers.iter().filter(|(name, _)| *name == "tag").map(|(_, value)| value).collect();
    /// assert_eq!(tags, ["red", "round"]);
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there are none.
    ///
    /// ```
    /// let mut headers = pombo::Headers::default();
    /// assert!(headers.is_empty());
    /// headers.add("tenant", "acme");
    /// assert_eq!(headers.len(), 1);
    /// ```
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes of all names and values.
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Whether they keep to [`MAX_COUNT`](Self::MAX_COUNT) and [`MAX_BYTES`](Self::MAX_BYTES).
    pub(crate) fn fit(&self) -> bool {
        self.len() <= Self::MAX_COUNT && self.bytes() <= Self::MAX_BYTES
    }
}

impl Headers {
    /// Adds those, after these.
    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}
