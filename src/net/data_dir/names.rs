//! Names for nodes that nobody has named: two words, easy to say and to type.

const FIRST: [&str; 40] = [
    "amber", "ashen", "bold", "brave", "bright", "calm", "clever", "copper", "coral", "crisp", "dusky", "eager",
    "early", "fair", "fleet", "gentle", "gilded", "glad", "golden", "hardy", "hazel", "humble", "ivory", "jolly",
    "keen", "lively", "lucky", "merry", "misty", "noble", "quick", "quiet", "ruby", "silver", "steady", "sunny",
    "swift", "tidy", "violet", "wise",
];

const SECOND: [&str; 40] = [
    "avocet", "bunting", "crane", "curlew", "dipper", "dove", "dunlin", "egret", "falcon", "finch", "gannet", "godwit",
    "grebe", "gull", "heron", "hoopoe", "ibis", "jackdaw", "jay", "kestrel", "kite", "lapwing", "lark", "linnet",
    "magpie", "martin", "merlin", "oriole", "osprey", "owl", "petrel", "pipit", "plover", "puffin", "robin", "siskin",
    "starling", "swallow", "tern", "wren",
];

/// The name that these bytes stand for.
pub(super) fn name_of(bytes: [u8; 4]) -> String {
    let number = usize::try_from(u32::from_le_bytes(bytes)).unwrap_or_default();
    let (first, second) = (number % FIRST.len(), number / FIRST.len() % SECOND.len());
    format!("{}-{}", FIRST[first], SECOND[second])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_pair_of_words_occurs_and_is_a_valid_name() {
        let names: BTreeSet<_> = (0..1600_u32).map(|number| name_of(number.to_le_bytes())).collect();
        assert_eq!(names.len(), 1600);
        assert!(names.iter().all(|name| super::super::check_name("node", name).is_ok()));
    }
}
