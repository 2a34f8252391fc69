//! Messages in a frame's body, written and read by hand.
//!
//! Every message that is published or received passes here. By serde, as all else, it would take several times as long.
//! The bytes are the same, as are the limits: the tests hold both ways against each other.

use super::codec::{self, CodecError, Extension};
use super::frame::{Entry, Fragment, MAX_CHOICES};
use crate::Headers;

/// Numbers up to this one take a byte. Those beyond it follow a byte that says how many bytes they have.
const SINGLE: u8 = 250;
const TWO: u8 = 251;
const FOUR: u8 = 252;
const EIGHT: u8 = 253;

impl<'a> Entry<'a> {
    /// Appends it to a body.
    pub(super) fn write(&self, body: &mut Vec<u8>) {
        write_number(body, self.topic.into());
        write_number(body, self.content_type.into());
        write_number(body, self.counter);
        write_number(body, self.time);
        match self.fragment {
            None => body.push(0),
            Some(Fragment { index, count }) => {
                body.push(1);
                write_number(body, index.into());
                write_number(body, count.into());
            }
        }
        write_length(body, self.choices.len());
        for choice in &self.choices {
            write_number(body, (*choice).into());
        }
        write_length(body, self.headers.len());
        for (name, value) in &self.headers {
            write_bytes(body, name.as_bytes());
            write_bytes(body, value.as_bytes());
        }
        write_length(body, self.extensions.len());
        for Extension { tag, value } in &self.extensions {
            body.push(*tag);
            write_bytes(body, value);
        }
        write_bytes(body, self.payload);
    }

    /// Reads one from the start of `bytes`, and says how many bytes it took.
    #[inline]
    pub(super) fn read(bytes: &'a [u8]) -> Result<(Self, usize), CodecError> {
        let mut input = Input { rest: bytes };
        let entry = Self {
            topic: input.small()?,
            content_type: input.small()?,
            counter: input.number()?,
            time: input.number()?,
            fragment: input.fragment()?,
            choices: input.list(MAX_CHOICES, Input::small)?,
            headers: input.list(Headers::MAX_COUNT, |input| Ok((input.text()?, input.text()?)))?,
            extensions: input.list(codec::MAX_EXTENSIONS, Input::extension)?,
            payload: input.bytes()?,
        };
        Ok((entry, bytes.len() - input.rest.len()))
    }
}

/// Most numbers take a byte, so that alone stands in line.
#[inline(always)]
fn write_number(body: &mut Vec<u8>, number: u64) {
    match u8::try_from(number) {
        Ok(number @ 0..=SINGLE) => body.push(number),
        Ok(_) | Err(_) => write_wide(body, number),
    }
}

#[inline(never)]
fn write_wide(body: &mut Vec<u8>, number: u64) {
    let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
    if u16::try_from(number).is_ok() {
        body.extend_from_slice(&[TWO, a, b]);
    } else if u32::try_from(number).is_ok() {
        body.extend_from_slice(&[FOUR, a, b, c, d]);
    } else {
        body.extend_from_slice(&[EIGHT, a, b, c, d, e, f, g, h]);
    }
}

#[inline]
fn write_length(body: &mut Vec<u8>, length: usize) {
    // No list or text is as long as that: it would not fit into memory.
    write_number(body, u64::try_from(length).unwrap_or(u64::MAX));
}

#[inline]
fn write_bytes(body: &mut Vec<u8>, bytes: &[u8]) {
    write_length(body, bytes.len());
    body.extend_from_slice(bytes);
}

/// What is not read yet.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    #[inline(always)]
    fn byte(&mut self) -> Result<u8, CodecError> {
        let (byte, rest) = self.rest.split_first().ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(*byte)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(*array)
    }

    /// A number of at most 32 bits.
    #[inline(always)]
    fn small(&mut self) -> Result<u32, CodecError> {
        match self.byte()? {
            number @ 0..=SINGLE => Ok(number.into()),
            // Eight bytes are refused whatever stands in them.
            EIGHT => Err(no_number()),
            width => u32::try_from(self.wide(width)?).map_err(|_| no_number()),
        }
    }

    /// A number of at most 64 bits.
    #[inline(always)]
    fn number(&mut self) -> Result<u64, CodecError> {
        match self.byte()? {
            number @ 0..=SINGLE => Ok(number.into()),
            width => self.wide(width),
        }
    }

    #[inline(never)]
    fn wide(&mut self, width: u8) -> Result<u64, CodecError> {
        match width {
            TWO => Ok(u16::from_le_bytes(self.array()?).into()),
            FOUR => Ok(u32::from_le_bytes(self.array()?).into()),
            EIGHT => Ok(u64::from_le_bytes(self.array()?)),
            _ => Err(no_number()),
        }
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let length = usize::try_from(self.number()?).map_err(|_| cut_short())?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<&'a str, CodecError> {
        str::from_utf8(self.bytes()?).map_err(|error| CodecError::malformed(error.to_string()))
    }

    #[inline]
    fn fragment(&mut self) -> Result<Option<Fragment>, CodecError> {
        match self.byte()? {
            0 => Ok(None),
            1 => Ok(Some(Fragment { index: self.small()?, count: self.small()? })),
            _ => Err(CodecError::malformed("neither a fragment nor none")),
        }
    }

    fn extension(&mut self) -> Result<Extension, CodecError> {
        Ok(Extension { tag: self.byte()?, value: self.bytes()?.to_vec() })
    }

    /// A list of at most `most`. Most are empty.
    #[inline(always)]
    fn list<T>(
        &mut self,
        most: usize,
        read: impl Fn(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        match self.number()? {
            0 => Ok(Vec::new()),
            length => self.elements(length, most, read),
        }
    }

    /// The list grows with what is there, whatever length it claims.
    #[inline(never)]
    fn elements<T>(
        &mut self,
        length: u64,
        most: usize,
        read: impl Fn(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        if usize::try_from(length).map_or(true, |length| length > most) {
            return Err(CodecError::malformed(format!("a list has more than {most} elements")));
        }
        let mut list = Vec::new();
        for _ in 0..length {
            list.push(read(self)?);
        }
        Ok(list)
    }
}

#[cold]
fn cut_short() -> CodecError {
    CodecError::malformed("cut short")
}

#[cold]
fn no_number() -> CodecError {
    CodecError::malformed("a number is larger than can be, or none")
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::*;
    use crate::wire::properties::{changes, mutate};

    /// What an entry borrows.
    #[derive(Clone, Debug)]
    struct Parts {
        numbers: (u32, u32, u64, u64),
        fragment: Option<(u32, u32)>,
        choices: Vec<u32>,
        headers: Vec<(String, String)>,
        extensions: Vec<(u8, Vec<u8>)>,
        payload: Vec<u8>,
    }

    impl Parts {
        fn entry(&self) -> Entry<'_> {
            let (topic, content_type, counter, time) = self.numbers;
            let extension = |(tag, value): &(u8, Vec<u8>)| Extension { tag: *tag, value: value.clone() };
            Entry {
                topic,
                content_type,
                counter,
                time,
                fragment: self.fragment.map(|(index, count)| Fragment { index, count }),
                choices: self.choices.clone(),
                headers: self.headers.iter().map(|(name, value)| (&**name, &**value)).collect(),
                extensions: self.extensions.iter().map(extension).collect(),
                payload: &self.payload,
            }
        }
    }

    /// All widths, and their bounds.
    fn number() -> impl Strategy<Value = u64> {
        let bounds = [0, 250, 251, 252, 253, 254, 255, 256, 65_535, 65_536, 0xffff_ffff, 0x1_0000_0000, u64::MAX];
        prop_oneof![select(bounds.to_vec()), any::<u64>(), 0..300u64, 0..100_000u64]
    }

    fn small() -> impl Strategy<Value = u32> {
        number().prop_map(|number| u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// A length of a list: mostly short, at times around what is allowed.
    fn length(most: usize) -> impl Strategy<Value = usize> {
        prop_oneof![8 => 0..4usize, 1 => most - 1..most + 2, 1 => Just(300)]
    }

    fn parts() -> impl Strategy<Value = Parts> {
        let text = prop_oneof![9 => "\\PC{0,12}", 1 => "[a-z]{249,257}"];
        let value = prop_oneof![9 => vec(any::<u8>(), 0..12), 1 => vec(any::<u8>(), 249..257)];
        (
            (small(), small(), number(), number()),
            proptest::option::of((small(), small())),
            length(MAX_CHOICES).prop_flat_map(|length| vec(small(), length)),
            length(Headers::MAX_COUNT).prop_flat_map(move |length| vec((text.clone(), text.clone()), length)),
            length(codec::MAX_EXTENSIONS).prop_flat_map(move |length| vec((any::<u8>(), value.clone()), length)),
            prop_oneof![vec(any::<u8>(), 0..300), vec(any::<u8>(), 65_530..65_540)],
        )
            .prop_map(|(numbers, fragment, choices, headers, extensions, payload)| Parts {
                numbers,
                fragment,
                choices,
                headers,
                extensions,
                payload,
            })
    }

    fn written(entry: &Entry<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        entry.write(&mut bytes);
        bytes
    }

    /// Both ways take the same bytes, for the same value, and refuse the same.
    fn both_agree(bytes: &[u8]) -> Result<(), TestCaseError> {
        match (Entry::read(bytes), codec::decode_prefix::<Entry<'_>>(bytes)) {
            (Ok(by_hand), Ok(by_serde)) => prop_assert_eq!(by_hand, by_serde),
            (Err(CodecError::Malformed(_)), Err(CodecError::Malformed(_))) => {}
            (by_hand, by_serde) => prop_assert!(false, "{by_hand:?} and {by_serde:?}"),
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn the_same_bytes_are_written(parts in parts()) {
            let mut by_serde = Vec::new();
            codec::encode_into(&parts.entry(), &mut by_serde).expect("encodes");
            prop_assert_eq!(written(&parts.entry()), by_serde);
        }

        #[test]
        fn what_was_written_is_read_by_both(parts in parts(), after in vec(any::<u8>(), 0..5)) {
            let bytes = [written(&parts.entry()), after].concat();
            both_agree(&bytes)?;
            let lists = [
                (parts.choices.len(), MAX_CHOICES),
                (parts.headers.len(), Headers::MAX_COUNT),
                (parts.extensions.len(), codec::MAX_EXTENSIONS),
            ];
            prop_assert_eq!(Entry::read(&bytes).is_ok(), lists.iter().all(|(length, most)| length <= most));
        }

        #[test]
        fn what_was_changed_or_cut_is_judged_alike(parts in parts(), changes in changes(), cut in any::<Index>()) {
            let mut bytes = written(&parts.entry());
            both_agree(&bytes[..cut.index(bytes.len() + 1)])?;
            mutate(&mut bytes, &changes);
            both_agree(&bytes)?;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn arbitrary_bytes_are_judged_alike(
            start in vec(prop_oneof![3 => 0..4u8, 1 => 247..=255u8, 1 => any::<u8>()], 0..40), rest in vec(any::<u8>(), 0..80),
        ) {
            both_agree(&[start, rest].concat())?;
        }
    }
}
