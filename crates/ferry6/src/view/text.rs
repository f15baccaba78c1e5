//! Numbers and names as people read them.

use crate::config::values::show_duration;
use std::time::Duration;

/// What a peer wrote, fit for a terminal or a page: a character that would move the cursor, turn the direction of the text or not be
/// seen is shown as one that cannot. Escaping for HTML comes on top.
pub fn visible(text: &str) -> String {
    text.chars().map(|c| if is_hidden(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Controls, and what Unicode has for direction, joining, variation, and tags.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{3164}' | '\u{feff}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// `12.3 M`: three digits and a prefix of 1000s.
#[allow(clippy::cast_precision_loss)] // for the eye
fn scaled(number: u64) -> (String, &'static str) {
    const PREFIXES: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    let (mut value, mut at) = (number as f64, 0);
    while value >= 999.5 && at + 1 < PREFIXES.len() {
        value /= 1000.0;
        at += 1;
    }
    let digits = if at == 0 || value >= 99.95 { 0 } else { 1 };
    (format!("{value:.digits$}"), PREFIXES[at])
}

/// Octets a second as `12.3 Mbit/s`.
pub fn rate(octets: u64) -> String {
    let (number, prefix) = scaled(octets.saturating_mul(8));
    format!("{number} {prefix}bit/s")
}

/// The same for a narrow column: `12.3M`.
pub fn short_rate(octets: u64) -> String {
    let (number, prefix) = scaled(octets.saturating_mul(8));
    format!("{number}{prefix}")
}

/// `1.2 GB`.
pub fn octets(octets: u64) -> String {
    let (number, prefix) = scaled(octets);
    format!("{number} {prefix}B")
}

/// `1,204`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1h2m`.
pub fn seconds(seconds: u64) -> String {
    if seconds == 0 { "0s".to_owned() } else { show_duration(Duration::from_secs(seconds)) }
}

/// The time of day, UTC, of milliseconds since 1970.
pub fn clock(millis: u64) -> String {
    let seconds = millis / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(
            [0, 124, 125, 1_500_000, 12_500_000_000].map(rate),
            ["0 bit/s", "992 bit/s", "1.0 kbit/s", "12.0 Mbit/s", "100 Gbit/s"]
        );
        assert_eq!(short_rate(1_500_000), "12.0M");
        assert_eq!(
            [0, 999, 1000, 999_499, 999_600, u64::MAX].map(octets),
            ["0 B", "999 B", "1.0 kB", "999 kB", "1.0 MB", "18447 PB"]
        );
        assert_eq!([999, 1204, 1_234_567].map(thousands), ["999", "1,204", "1,234,567"]);
        assert_eq!(clock(86_400_000 + 3_723_999), "01:02:03");
    }

    #[test]
    fn what_cannot_be_seen_is_seen() {
        assert_eq!(visible("eve\x1b[31m\u{202e}moc\u{200b}"), "eve\u{fffd}[31m\u{fffd}moc\u{fffd}");
        assert_eq!(visible("C=DE, CN=Müller & Söhne <a@b>"), "C=DE, CN=Müller & Söhne <a@b>");
    }
}
