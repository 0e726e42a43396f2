//! Spans of time and counts as people read them. No clock here: both ends of a span are arguments.

use k8s_openapi::jiff::Timestamp;

/// How long ago, in the form that kubectl gives to ages: `45s`, `3m5s`, `26h`, `12d`.
pub fn since(then: Timestamp, now: Timestamp) -> String {
    span(now.as_second() - then.as_second())
}

/// A span of `seconds`; a negative one (clocks differ) counts as none.
pub fn span(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let seconds = seconds.max(0);
    let pair = |big: i64, big_unit: &str, small: i64, small_unit: &str| match seconds % big / small {
        0 => format!("{}{big_unit}", seconds / big),
        rest => format!("{}{big_unit}{rest}{small_unit}", seconds / big),
    };
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 => pair(MINUTE, "m", 1, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => pair(HOUR, "h", MINUTE, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => pair(DAY, "d", HOUR, "h"),
        _ => format!("{}d", seconds / DAY),
    }
}

/// `1 address`, `2 addresses`.
pub fn count(number: impl Into<i64>, one: &str, many: &str) -> String {
    let number = number.into();
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Text of others on one line: whatever could move the cursor or colour the terminal becomes a space.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_get_coarser_as_they_grow() {
        let table = [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (185, "3m5s"),
            (600, "10m"),
            (10_860, "3h1m"),
            (100_000, "27h"),
            (176_400, "2d1h"),
            (2_000_000, "23d"),
        ];
        for (seconds, text) in table {
            assert_eq!(span(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn text_of_others_cannot_break_the_line_or_steer_the_terminal() {
        assert_eq!(one_line("plugin failed:\n\t no\u{1b}[31m address  "), "plugin failed: no [31m address");
    }
}
