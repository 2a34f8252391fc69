//! How a value becomes the bytes of a payload: the encodings that a topic or service can choose.
//!
//! To the mesh a payload is opaque bytes with a content type beside them.

use bytes::Bytes;

/// Turns values of type `T` into payloads and back.
///
/// Implemented for any serde type by [`Bincode`] and [`Json`], and for [`Bytes`] by [`Raw`]. Implement it for a type of
/// your own to bring another format:
///
/// ```
/// use bytes::Bytes;
/// use pombo::{Encoding, PayloadError, Topic};
///
/// pub enum Text {}
///
/// impl Encoding<String> for Text {
///     const CONTENT_TYPE: &'static str = "text/plain; charset=utf-8";
///
///     fn encode(value: &String) -> Result<Bytes, PayloadError> {
///         Ok(Bytes::copy_from_slice(value.as_bytes()))
///     }
///
///     fn decode(payload: &Bytes) -> Result<String, PayloadError> {
///         String::from_utf8(payload.to_vec()).map_err(PayloadError::new)
///     }
/// }
///
/// pub const LINES: Topic<String, Text> = Topic::new("log.lines");
/// ```
pub trait Encoding<T> {
    /// The content type that receivers are told, unless the publisher names another.
    const CONTENT_TYPE: &'static str;

    /// Makes the payload.
    ///
    /// # Errors
    ///
    /// If the value cannot be written in this encoding.
    fn encode(value: &T) -> Result<Bytes, PayloadError>;

    /// As [`encode`](Self::encode), into a buffer that is used again for the next value, or not at all if the payload is
    /// there already. What the buffer held is gone.
    ///
    /// # Errors
    ///
    /// If the value cannot be written in this encoding.
    #[doc(hidden)]
    fn encode_in<'a>(value: &'a T, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], PayloadError> {
        *buffer = Self::encode(value)?.into();
        Ok(buffer)
    }

    /// Reads the payload back.
    ///
    /// # Errors
    ///
    /// If the bytes are no such value.
    fn decode(payload: &Bytes) -> Result<T, PayloadError>;

    /// As [`decode`](Self::decode), from a part of what came, for encodings that need not keep it.
    ///
    /// # Errors
    ///
    /// If the bytes are no such value.
    #[doc(hidden)]
    fn decode_part(whole: &Bytes, part: &[u8]) -> Result<T, PayloadError> {
        Self::decode(&whole.slice_ref(part))
    }
}

/// The default encoding: compact and fast, for programs that share the Rust types.
///
/// There are no field names in it: both ends need the same fields in the same order, and what reads itself from any
/// format, such as an untagged enum or `serde_json::Value`, cannot be read back. [`Json`] can.
///
/// ```
/// use pombo::{Bincode, Encoding};
/// let payload = Bincode::encode(&(7_u64, "pigeons".to_owned()))?;
/// let (id, item): (u64, String) = Bincode::decode(&payload)?;
/// assert_eq!((id, item.as_str()), (7, "pigeons"));
/// # Ok::<(), pombo::PayloadError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Bincode {}

/// JSON, for topics that other languages or people read.
///
/// ```
/// use pombo::{Encoding, Json, Topic};
/// pub const PRICES: Topic<Vec<u64>, Json> = Topic::new("shop.prices");
///
/// assert_eq!(Json::encode(&vec![250, 99_000])?, "[250,99000]");
/// # Ok::<(), pombo::PayloadError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Json {}

/// The bytes as they are.
///
/// Received ones are a part of the frame that they came in, of up to 60 KiB, and keep it in memory: copy what is kept for long.
///
/// ```
/// use bytes::Bytes;
/// use pombo::{Raw, RawTopic, Topic};
/// const PICTURES: Topic<Bytes, Raw> = Topic::new("camera.pictures");
/// const THE_SAME: RawTopic = Topic::new("camera.pictures");
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Raw {}

/// A value could not be encoded, or a payload not be decoded.
///
/// ```
/// use pombo::{Bincode, Encoding};
/// let error = <Bincode as Encoding<String>>::decode(&"no bincode".into()).err();
/// println!("{}", error.ok_or("it was decoded")?);
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PayloadError(Box<dyn std::error::Error + Send + Sync>);

impl PayloadError {
    /// Wraps the reason: an error, or a text.
    ///
    /// ```
    /// use pombo::PayloadError;
    /// fn celsius(payload: &[u8]) -> Result<f32, PayloadError> {
    ///     let kelvin = f32::from_be_bytes(payload.try_into().map_err(PayloadError::new)?);
    ///     if kelvin < 0.0 { Err(PayloadError::new("colder than can be")) } else { Ok(kelvin - 273.15) }
    /// }
    /// assert!(celsius(&[0; 3]).is_err() && celsius(&(-1.0_f32).to_be_bytes()).is_err());
    /// ```
    pub fn new(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(reason.into())
    }
}

impl<T> Encoding<T> for Json
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    const CONTENT_TYPE: &'static str = "application/json";

    fn encode(value: &T) -> Result<Bytes, PayloadError> {
        serde_json::to_vec(value).map(Bytes::from).map_err(PayloadError::new)
    }

    fn encode_in<'a>(value: &'a T, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], PayloadError> {
        buffer.clear();
        serde_json::to_writer(&mut *buffer, value).map_err(PayloadError::new)?;
        Ok(buffer)
    }

    fn decode(payload: &Bytes) -> Result<T, PayloadError> {
        Self::decode_part(payload, payload)
    }

    fn decode_part(_: &Bytes, part: &[u8]) -> Result<T, PayloadError> {
        serde_json::from_slice(part).map_err(PayloadError::new)
    }
}

impl Encoding<Bytes> for Raw {
    const CONTENT_TYPE: &'static str = "application/octet-stream";

    fn encode(value: &Bytes) -> Result<Bytes, PayloadError> {
        Ok(value.clone())
    }

    fn encode_in<'a>(value: &'a Bytes, _: &'a mut Vec<u8>) -> Result<&'a [u8], PayloadError> {
        Ok(value)
    }

    fn decode(payload: &Bytes) -> Result<Bytes, PayloadError> {
        Ok(payload.clone())
    }
}
