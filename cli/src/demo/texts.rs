//! What is said in the demo. Every text begins with a mark that is new in each run, so that one search
//! finds any of them.

/// Every so many messages one has emoji.
const EMOJI_EVERY: u32 = 5;
/// Every so many messages one has 64 KiB.
const LARGE_EVERY: u32 = 20;
const LARGE: usize = 64 * 1024;
const EMOJI: &str = "🦆💌🔏 ça va? ถึง 👩‍🚀";

pub(crate) struct Texts {
    mark: String,
}

impl Texts {
    pub(crate) fn new() -> Self {
        let mark: [u8; 8] = rand::random();
        Self { mark: format!("secret-{}", hex::encode(mark)) }
    }

    /// What no file of the relay may hold.
    pub(crate) fn needles(&self) -> [Vec<u8>; 2] {
        [self.mark.clone().into_bytes(), EMOJI.as_bytes().to_vec()]
    }

    /// What Alice writes before Bob was ever online.
    pub(crate) fn early(&self) -> Vec<String> {
        ["Are you there?", "I have left the key under the 🪴.", "See you at eight."]
            .map(|line| format!("{} {line}", self.mark))
            .to_vec()
    }

    /// The long conversation of one side.
    pub(crate) fn many(&self, name: &str, count: u32) -> Vec<String> {
        (1..=count).map(|number| self.one(name, number)).collect()
    }

    fn one(&self, name: &str, number: u32) -> String {
        let mut text = format!("{} {name} {number}", self.mark);
        if number.is_multiple_of(EMOJI_EVERY) {
            text.push(' ');
            text.push_str(EMOJI);
        }
        if number.is_multiple_of(LARGE_EVERY) {
            let filler = LARGE - text.len();
            text.extend("lorem ipsum ".chars().cycle().take(filler));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_marked_distinct_and_of_the_promised_size() {
        let texts = Texts::new();
        let many = texts.many("alice", 40);
        assert!(many.iter().all(|text| text.starts_with(&texts.mark)));
        assert_eq!(many.iter().filter(|text| text.len() == LARGE).count(), 2);
        assert_eq!(many.iter().filter(|text| text.contains(EMOJI)).count(), 8);
        let distinct: std::collections::HashSet<_> = many.iter().collect();
        assert_eq!(distinct.len(), many.len());
    }
}
