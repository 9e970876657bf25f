//! Values in messages: cut where they are long, ids told apart from numbers.

use vecino_client::PointId;

/// Most characters of a value that a message quotes.
const QUOTED_CHARS_MAX: usize = 60;

/// A value that somebody gave, cut for a message.
pub fn cut(value: &str) -> String {
    shortened(value, QUOTED_CHARS_MAX)
}

/// An id in a message: text in quotes, cut where it is long.
pub fn quoted_id(id: &PointId) -> String {
    match id {
        PointId::Number(number) => number.to_string(),
        PointId::Text(text) => format!("{:?}", cut(text)),
    }
}

/// `text` in at most this many characters, the last of them `…` where it was cut.
pub fn shortened(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_in_messages_and_short_ones_are_not() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"x".repeat(5_000)).chars().count(), QUOTED_CHARS_MAX);
        assert_eq!(quoted_id(&"x".repeat(500).as_str().into()).chars().count(), QUOTED_CHARS_MAX + 2);
        assert_eq!(quoted_id(&7.into()), "7");
    }
}
