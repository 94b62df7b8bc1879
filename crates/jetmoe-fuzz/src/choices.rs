//! Where a mutation takes its choices from.

use fastrand::Rng;

/// A sequence of choices: random ones by a seed, or those of a fuzzer's bytes.
#[derive(Debug)]
pub struct Choices<'b>(Source<'b>);

#[derive(Debug)]
enum Source<'b> {
    Seed(Rng),
    Bytes(&'b [u8]),
}

impl<'b> Choices<'b> {
    /// Random choices; the same for the same seed.
    pub fn of_seed(seed: u64) -> Self {
        Choices(Source::Seed(Rng::with_seed(seed)))
    }

    /// The choices of a fuzzer, two bytes each. After the last byte every choice is the first of its alternatives.
    pub fn of_bytes(bytes: &'b [u8]) -> Self {
        Choices(Source::Bytes(bytes))
    }

    /// Whether the bytes are used up. Never for a seed.
    pub fn is_exhausted(&self) -> bool {
        matches!(self.0, Source::Bytes([]))
    }

    /// A number below `limit`; 0 for a limit of 0.
    pub fn below(&mut self, limit: usize) -> usize {
        match &mut self.0 {
            _ if limit < 2 => 0,
            Source::Seed(random) => random.usize(..limit),
            Source::Bytes(bytes) => {
                let (taken, rest) = bytes.split_at(bytes.len().min(2));
                *bytes = rest;
                let number = taken.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte));
                number % limit
            }
        }
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        (0..4).fold(0, |bits, _| bits << 16 | self.below(1 << 16) as u64)
    }

    /// True once in `times`, and where the bytes are used up.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of the items; `None` if there is none.
    pub fn pick<'i, T>(&mut self, items: &'i [T]) -> Option<&'i T> {
        items.get(self.below(items.len()))
    }

    /// One of the items, to change it; `None` if there is none.
    pub fn pick_mut<'i, T>(&mut self, items: &'i mut [T]) -> Option<&'i mut T> {
        let index = self.below(items.len());
        items.get_mut(index)
    }

    /// An integer in place of another one: extreme, close to it, or small.
    pub fn integer(&mut self, current: i64) -> i64 {
        match self.below(8) {
            0 => current.wrapping_add(1),
            1 => current.wrapping_sub(1),
            2 => current.wrapping_mul(2),
            3 => current / 2,
            4 => current.wrapping_neg(),
            5 => self.below(9) as i64,
            6 => 1 << self.below(63),
            _ => self.pick(&EXTREMES).copied().unwrap_or(0),
        }
    }

    /// A text in place of another one: empty, long, a path, with control characters, or a changed one.
    pub fn text(&mut self, current: &str) -> String {
        match self.below(8) {
            0 => String::new(),
            1 => self.pick(&PATHS).map_or_else(String::new, |path| (*path).to_owned()),
            2 => self.pick(&CONTROLS).map_or_else(String::new, |control| format!("{current}{control}")),
            3 => "a".repeat(1 << self.below(18)),
            4 if current.len() < MAX_DOUBLED => format!("{current}{current}"),
            5 => current.chars().take(self.below(current.chars().count())).collect(),
            6 => self.bits().to_string(),
            _ => self.changed(current),
        }
    }

    /// A text with another character in one place.
    fn changed(&mut self, current: &str) -> String {
        let place = self.below(current.chars().count());
        let other = self.pick(&CHARACTERS).copied().unwrap_or('a');
        current
            .chars()
            .enumerate()
            .map(|(index, letter)| if index == place { other } else { letter })
            .collect()
    }
}

/// Longer texts are not doubled, in bytes.
const MAX_DOUBLED: usize = 1 << 16;

/// Integers around which sizes overflow.
const EXTREMES: [i64; 20] = [
    0,
    1,
    -1,
    2,
    -2,
    127,
    128,
    255,
    256,
    65_535,
    65_536,
    1 << 24,
    i32::MAX as i64,
    i32::MIN as i64,
    u32::MAX as i64,
    1 << 32,
    1 << 40,
    i64::MAX - 1,
    i64::MAX,
    i64::MIN,
];

/// Paths that lead out of a folder, or that another system reads otherwise.
const PATHS: [&str; 20] = [
    "../outside/kept.txt",
    "../outside",
    "../../kept.txt",
    "../kept.txt",
    "/dev/zero",
    "/dev/stdin",
    "/proc/self/environ",
    "C:\\kept.txt",
    "\\\\host\\share",
    ".",
    "..",
    "/",
    "./config.json",
    "onnx",
    "onnx/",
    "onnx/../config.json",
    "config.json",
    "config.json/",
    "onnx/model.onnx",
    "export.partial/lock",
];

/// Characters that a terminal obeys or that change the direction of a text.
const CONTROLS: [&str; 8] = ["\u{1b}[31m", "\0", "\r", "\n", "\u{7f}", "\u{202e}", "\u{85}", "\u{feff}"];

/// Characters of one to four bytes.
const CHARACTERS: [char; 12] = ['a', 'Z', '0', ' ', '_', '"', '{', '/', 'é', '▁', '𝄞', '\u{301}'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_choices() {
        let choices = || {
            let mut choices = Choices::of_seed(7);
            (0..50).map(|limit| choices.below(limit)).collect::<Vec<_>>()
        };
        assert_eq!(choices(), choices());
        assert_ne!(choices(), vec![0; 50]);
    }

    #[test]
    fn bytes_are_choices_until_they_are_used_up() {
        let mut choices = Choices::of_bytes(&[3, 1, 5]);
        assert_eq!(choices.below(1000), 259);
        assert!(!choices.is_exhausted());
        assert_eq!(choices.below(4), 1);
        assert!(choices.is_exhausted());
        assert_eq!((choices.below(9), choices.bits(), choices.pick(&[7, 8])), (0, 0, Some(&7)));
    }

    #[test]
    fn every_text_can_be_changed() {
        for seed in 0..200 {
            Choices::of_seed(seed).text("");
            Choices::of_seed(seed).text("é▁𝄞");
        }
    }
}
