//! A deserializer around another that decodes what strangers sent: it bounds what a value may cost by the bytes it has.
//!
//! Bincode trusts lengths. It allocates a text before it looks whether the text is there, loops over a list of a billion
//! elements that take no bytes, and follows a recursive type until the stack ends. This wrapper:
//!
//! - asks for texts and byte strings by reference, so that a length is held against the input before anything is
//!   allocated;
//! - reserves room for a few elements of a list, whatever the list claims;
//! - counts elements, so that the steps are linear in the input, and refuses lists above a limit;
//! - counts levels, so that the stack is bounded.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// How many levels of lists, records, options and variants may stand in each other.
pub(super) const MAX_DEPTH: usize = 128;

/// A list starts with room for no more elements than this, and grows as they arrive.
const RESERVED: usize = 256;

/// Elements that an input may have for each of its bytes. An element takes at least a byte, but a byte may belong to
/// several, one inside the other.
const ELEMENTS_PER_BYTE: usize = 64;

/// What one value may cost.
#[derive(Debug)]
pub(super) struct Bounds {
    elements: Cell<usize>,
    list: usize,
}

impl Bounds {
    /// The bounds of a value in `bytes` bytes of input, of lists with at most `list` elements.
    pub(super) fn new(bytes: usize, list: usize) -> Self {
        Self { elements: Cell::new(bytes.saturating_add(16).saturating_mul(ELEMENTS_PER_BYTE)), list }
    }

    /// Elements that may still come.
    #[cfg(test)]
    pub(super) fn left(&self) -> usize {
        self.elements.get()
    }

    #[inline]
    fn step<E: Error>(&self) -> Result<(), E> {
        let left = self.elements.get().checked_sub(1).ok_or_else(|| E::custom("more elements than bytes"))?;
        self.elements.set(left);
        Ok(())
    }
}

/// Reads a `T` from a deserializer within bounds.
pub(super) struct Root<'b, T> {
    bounds: &'b Bounds,
    value: PhantomData<T>,
}

impl<'b, T> Root<'b, T> {
    pub(super) fn new(bounds: &'b Bounds) -> Self {
        Self { bounds, value: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Root<'_, T> {
    type Value = T;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::deserialize(Guard { inner: deserializer, bounds: self.bounds, depth: MAX_DEPTH })
    }
}

/// Something of serde's, a deserializer or seed or visitor or access, within bounds and with `depth` levels left.
struct Guard<'b, I> {
    inner: I,
    bounds: &'b Bounds,
    depth: usize,
}

impl<'b, I> Guard<'b, I> {
    /// Another part at the same level.
    #[inline]
    fn beside<J>(&self, inner: J) -> Guard<'b, J> {
        Guard { inner, bounds: self.bounds, depth: self.depth }
    }

    /// What visits one level further down.
    #[inline]
    fn below<J, E: Error>(&self, inner: J) -> Result<Guard<'b, J>, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Guard { inner, bounds: self.bounds, depth }),
            None => Err(E::custom("nested too deeply")),
        }
    }
}

macro_rules! pass_on {
    ($($method:ident => $inner:ident,)*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            self.inner.$inner(visitor)
        })*
    };
}

macro_rules! descend {
    ($($method:ident($($name:ident: $type:ty),*);)*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, $($name: $type,)* visitor: V) -> Result<V::Value, Self::Error> {
            let visitor = self.below(visitor)?;
            self.inner.$method($($name,)* visitor)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Guard<'_, D> {
    type Error = D::Error;

    pass_on! {
        deserialize_any => deserialize_any,
        deserialize_bool => deserialize_bool,
        deserialize_i8 => deserialize_i8,
        deserialize_i16 => deserialize_i16,
        deserialize_i32 => deserialize_i32,
        deserialize_i64 => deserialize_i64,
        deserialize_i128 => deserialize_i128,
        deserialize_u8 => deserialize_u8,
        deserialize_u16 => deserialize_u16,
        deserialize_u32 => deserialize_u32,
        deserialize_u64 => deserialize_u64,
        deserialize_u128 => deserialize_u128,
        deserialize_f32 => deserialize_f32,
        deserialize_f64 => deserialize_f64,
        deserialize_char => deserialize_char,
        deserialize_str => deserialize_str,
        deserialize_string => deserialize_str,
        deserialize_bytes => deserialize_bytes,
        deserialize_byte_buf => deserialize_bytes,
        deserialize_unit => deserialize_unit,
        deserialize_identifier => deserialize_identifier,
        deserialize_ignored_any => deserialize_ignored_any,
    }

    descend! {
        deserialize_option();
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Guard<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.beside(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.beside(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        check_length(access.size_hint(), self.bounds)?;
        let access = self.beside(access);
        self.inner.visit_seq(access)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        check_length(access.size_hint(), self.bounds)?;
        let access = self.beside(access);
        self.inner.visit_map(access)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.beside(access);
        self.inner.visit_enum(access)
    }
}

fn check_length<E: Error>(length: Option<usize>, bounds: &Bounds) -> Result<(), E> {
    match length {
        Some(length) if length > bounds.list => Err(too_many(bounds.list)),
        Some(_) | None => Ok(()),
    }
}

fn too_many<E: Error>(limit: usize) -> E {
    E::custom(format_args!("a list has more than {limit} elements"))
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Guard<'_, S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.beside(deserializer);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Guard<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.bounds.step()?;
        let seed = self.beside(seed);
        self.inner.next_element_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint().map(|length| length.min(RESERVED))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Guard<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.bounds.step()?;
        let seed = self.beside(seed);
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.beside(seed);
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint().map(|length| length.min(RESERVED))
    }
}

impl<'de, 'b, A: EnumAccess<'de>> EnumAccess<'de> for Guard<'b, A> {
    type Error = A::Error;
    type Variant = Guard<'b, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let Self { inner, bounds, depth } = self;
        let (value, variant) = inner.variant_seed(seed)?;
        Ok((value, Guard { inner: variant, bounds, depth }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Guard<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.beside(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.below(visitor)?;
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.below(visitor)?;
        self.inner.struct_variant(fields, visitor)
    }
}

/// Reads a list of at most `MAX` elements; for `#[serde(deserialize_with)]`.
pub(super) fn at_most<'de, const MAX: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(AtMost::<MAX, T>(PhantomData))
}

struct AtMost<const MAX: usize, T>(PhantomData<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for AtMost<MAX, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = access.next_element()? {
            if list.len() == MAX {
                return Err(too_many(MAX));
            }
            list.push(element);
        }
        Ok(list)
    }
}
