//! Distinguished names: DER to text and back, and comparison (RFC 5280 sections 4.1.2.4 and 7.1).
//!
//! Text stands in the order of the DER, as strongSwan and iked write it: `C=DE, O=ferry6, CN=client`.

use std::fmt::Write as _;
use x509_parser::der_parser::asn1_rs::{Any, FromDer, Tag};
use x509_parser::x509::X509Name;

/// One attribute: type and value as they stand in DER.
struct Attribute<'a> {
    /// Content octets of the OBJECT IDENTIFIER.
    oid: Vec<u8>,
    /// Dotted.
    dotted: String,
    value: Any<'a>,
}

/// Short names, OIDs, and the string type that RFC 5280 appendix A and RFC 4519 ask for.
const ATTRIBUTES: [(&str, &str, u8); 18] = [
    ("CN", "2.5.4.3", UTF8),
    ("C", "2.5.4.6", PRINTABLE),
    ("O", "2.5.4.10", UTF8),
    ("OU", "2.5.4.11", UTF8),
    ("L", "2.5.4.7", UTF8),
    ("ST", "2.5.4.8", UTF8),
    ("S", "2.5.4.8", UTF8),
    ("STREET", "2.5.4.9", UTF8),
    ("SN", "2.5.4.4", UTF8),
    ("GN", "2.5.4.42", UTF8),
    ("T", "2.5.4.12", UTF8),
    ("serialNumber", "2.5.4.5", PRINTABLE),
    ("dnQualifier", "2.5.4.46", PRINTABLE),
    ("DC", "0.9.2342.19200300.100.1.25", IA5),
    ("UID", "0.9.2342.19200300.100.1.1", UTF8),
    ("emailAddress", "1.2.840.113549.1.9.1", IA5),
    ("E", "1.2.840.113549.1.9.1", IA5),
    ("EMAIL", "1.2.840.113549.1.9.1", IA5),
];

const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const IA5: u8 = 0x16;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// Relative distinguished names, each with its attributes. `None` where `der` is not exactly one Name.
fn parse(der: &[u8]) -> Option<Vec<Vec<Attribute<'_>>>> {
    let (rest, name) = X509Name::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let rdns = name.iter_rdn().map(|rdn| {
        rdn.iter()
            .map(|attribute| {
                let oid = attribute.attr_type().as_bytes().to_vec();
                Some(Attribute { dotted: decode_oid(&oid)?, oid, value: attribute.attr_value().clone() })
            })
            .collect()
    });
    rdns.collect()
}

/// Whether `der` is exactly one Name.
pub(crate) fn is_valid(der: &[u8]) -> bool {
    parse(der).is_some()
}

/// The text of a string type; `None` for other types and for octets that are not of it.
fn text(value: &Any<'_>) -> Option<String> {
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => {
            String::from_utf8(value.data.to_vec()).ok()
        }
        // In practice Latin-1, whatever T.61 once was.
        Tag::T61String => Some(value.data.iter().map(|octet| char::from(*octet)).collect()),
        Tag::BmpString => {
            let (units, rest) = value.data.as_chunks::<2>();
            let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
            if rest.is_empty() { String::from_utf16(&units).ok() } else { None }
        }
        Tag::UniversalString => {
            let (units, rest) = value.data.as_chunks::<4>();
            let chars = units.iter().map(|unit| char::from_u32(u32::from_be_bytes(*unit)));
            if rest.is_empty() { chars.collect() } else { None }
        }
        _ => None,
    }
}

/// Without regard to case, to leading and trailing spaces, and to the number of inner ones (RFC 5280 section 7.1).
fn fold(text: &str) -> String {
    text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

/// A form in which equal names have equal octets: string types are folded, all else is kept. What cannot be read stands
/// for itself.
pub(crate) fn canonical(der: &[u8]) -> Vec<u8> {
    let Some(rdns) = parse(der) else { return der.to_vec() };
    let mut out = vec![];
    for rdn in rdns {
        let mut attributes: Vec<Vec<u8>> = rdn
            .iter()
            .map(|attribute| {
                let value = match text(&attribute.value) {
                    Some(text) => tlv(UTF8, fold(&text).as_bytes()),
                    None => tlv(attribute.value.tag().0.to_le_bytes()[0], attribute.value.data),
                };
                tlv(SEQUENCE, &[tlv(OID, &attribute.oid), value].concat())
            })
            .collect();
        attributes.sort();
        out.extend(tlv(SET, &attributes.concat()));
    }
    out
}

/// Whether two names are equal, where a value of `*` in `pattern` stands for any.
pub(crate) fn matches(der: &[u8], pattern: &[u8]) -> bool {
    let (Some(name), Some(pattern)) = (parse(der), parse(pattern)) else { return false };
    let same = |ours: &Attribute<'_>, theirs: &Attribute<'_>| {
        let wanted = text(&theirs.value);
        ours.oid == theirs.oid
            && (wanted.as_deref() == Some("*")
                || match (text(&ours.value), wanted) {
                    (Some(ours), Some(wanted)) => fold(&ours) == fold(&wanted),
                    _ => ours.value == theirs.value,
                })
    };
    name.len() == pattern.len()
        && name.iter().zip(&pattern).all(|(ours, theirs)| {
            ours.len() == theirs.len()
                && ours.iter().all(|ours| theirs.iter().any(|theirs| same(ours, theirs)))
        })
}

/// `C=DE, O=ferry6, CN=client`. What could be taken for something else is escaped (RFC 4514 section 2.4), control
/// characters too, for names of strangers go to logs.
pub(crate) fn to_text(der: &[u8]) -> String {
    let Some(rdns) = parse(der) else { return format!("#{}", hex(der)) };
    let mut out = String::new();
    for rdn in &rdns {
        for (index, attribute) in rdn.iter().enumerate() {
            if index > 0 {
                out.push('+');
            } else if !out.is_empty() {
                out.push_str(", ");
            }
            let name = ATTRIBUTES.iter().find(|(_, dotted, _)| *dotted == attribute.dotted);
            out.push_str(name.map_or(attribute.dotted.as_str(), |(name, ..)| name));
            out.push('=');
            match text(&attribute.value) {
                Some(text) => escape_into(&text, &mut out),
                None => {
                    let tag = attribute.value.tag().0.to_le_bytes()[0];
                    out.push('#');
                    out.push_str(&hex(&tlv(tag, attribute.value.data)));
                }
            }
        }
    }
    out
}

fn escape_into(text: &str, out: &mut String) {
    let last = text.chars().count().saturating_sub(1);
    for (index, c) in text.chars().enumerate() {
        let edge = index == 0 || index == last;
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' => {
                out.push('\\');
                out.push(c);
            }
            '#' if index == 0 => out.push_str("\\#"),
            c if c.is_control() || is_format(c) || edge && c.is_whitespace() => {
                let mut utf8 = [0; 4];
                for octet in c.encode_utf8(&mut utf8).bytes() {
                    write!(out, "\\{octet:02x}").expect("a String takes all");
                }
            }
            c => out.push(c),
        }
    }
}

/// Characters that change how the text around them looks: bidirectional controls, zero-width, line separators.
pub(crate) const fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(octets.len() * 2), |mut out, octet| {
        write!(out, "{octet:02x}").expect("a String takes all");
        out
    })
}

/// DER of the name that `text` writes: attributes in the order of the text, divided by commas, semicolons, or slashes
/// where the text begins with one; `+` joins the attributes of one RDN.
pub(crate) fn from_text(text: &str) -> Result<Vec<u8>, &'static str> {
    let (text, slashes) = match text.trim().strip_prefix('/') {
        Some(rest) => (rest, true),
        None => (text.trim(), false),
    };
    let mut rdns: Vec<u8> = Vec::new();
    let mut rdn: Vec<Vec<u8>> = Vec::new();
    let mut rest = text;
    loop {
        let (name, after) =
            rest.split_once('=').ok_or("an attribute has the form TYPE=value, for example CN=client")?;
        let (value, end, after) = take_value(after, slashes)?;
        rdn.push(attribute(name.trim(), &value)?);
        if end != Some('+') {
            rdn.sort();
            rdns.extend(tlv(SET, &std::mem::take(&mut rdn).concat()));
        }
        match end {
            None => break,
            Some(_) if after.trim().is_empty() => return Err("it ends in a separator"),
            Some(_) => rest = after,
        }
    }
    Ok(tlv(SEQUENCE, &rdns))
}

enum Value {
    Text(String),
    /// Written as `#` and hexadecimal digits.
    Der(Vec<u8>),
}

const NOT_DER: &str = "a value that begins with # is the hexadecimal DER of the value";

/// The value up to the next separator, that separator, and what stands behind it.
fn take_value(text: &str, slashes: bool) -> Result<(Value, Option<char>, &str), &'static str> {
    const ESCAPE: &str = "a backslash with nothing to escape behind it";
    let mut octets: Vec<u8> = Vec::new();
    // Length up to which trailing spaces are kept, since they were escaped or quoted.
    let mut kept = 0;
    let mut quoted = false;
    let mut chars = text.trim_start().char_indices();
    let text = text.trim_start();
    let (mut end, mut after) = (None, "");
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                kept = octets.len();
            }
            '\\' => {
                let (_, escaped) = chars.next().ok_or(ESCAPE)?;
                match escaped.to_digit(16) {
                    Some(high) => {
                        let (_, low) = chars.next().ok_or(ESCAPE)?;
                        let low = low.to_digit(16).ok_or(ESCAPE)?;
                        octets.push((high * 16 + low).to_le_bytes()[0]);
                    }
                    None => octets.extend_from_slice(escaped.encode_utf8(&mut [0; 4]).as_bytes()),
                }
                kept = octets.len();
            }
            ',' | ';' | '+' if !quoted && !slashes => (end, after) = (Some(c), &text[at + 1..]),
            '/' if !quoted && slashes => (end, after) = (Some(c), &text[at + 1..]),
            c => octets.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        if end.is_some() {
            break;
        }
    }
    if quoted {
        return Err("a quotation mark is not closed");
    }
    while octets.len() > kept && octets.last() == Some(&b' ') {
        octets.pop();
    }
    let value = String::from_utf8(octets).map_err(|_| "an escaped value is not UTF-8")?;
    if value.is_empty() {
        return Err("an attribute is empty");
    }
    let value = match value.strip_prefix('#').filter(|_| text.starts_with('#')) {
        Some(digits) => Value::Der(unhex(digits).ok_or(NOT_DER)?),
        None => Value::Text(value),
    };
    Ok((value, end, after))
}

fn attribute(name: &str, value: &Value) -> Result<Vec<u8>, &'static str> {
    let known = ATTRIBUTES
        .iter()
        .find(|(short, ..)| *short == name)
        .or_else(|| ATTRIBUTES.iter().find(|(short, ..)| short.eq_ignore_ascii_case(name)));
    let (dotted, kind) = known.map_or((name, UTF8), |(_, dotted, kind)| (*dotted, *kind));
    let oid =
        encode_oid(dotted).ok_or("an attribute type is not known; write its OID, for example 2.5.4.3")?;
    if kind != UTF8 && matches!(value, Value::Text(text) if !text.is_ascii()) {
        return Err("C, DC, serialNumber and emailAddress take ASCII only");
    }
    let value = match value {
        Value::Text(text) => tlv(kind, text.as_bytes()),
        Value::Der(der) if Any::from_der(der).is_ok_and(|(rest, _)| rest.is_empty()) => der.clone(),
        Value::Der(_) => return Err(NOT_DER),
    };
    Ok(tlv(SEQUENCE, &[tlv(OID, &oid), value].concat()))
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    // Of digits alone: `from_str_radix` would take a sign.
    if !text.bytes().all(|octet| octet.is_ascii_hexdigit()) || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

fn encode_oid(dotted: &str) -> Option<Vec<u8>> {
    let arcs: Vec<u64> = dotted.split('.').map(|arc| arc.parse().ok()).collect::<Option<_>>()?;
    let (first, rest) = arcs.split_first()?;
    let (second, rest) = rest.split_first()?;
    if *first > 2 || (*first < 2 && *second > 39) {
        return None;
    }
    let mut out = Vec::new();
    let joined = second.checked_add(first * 40)?;
    for arc in std::iter::once(joined).chain(rest.iter().copied()) {
        let groups = (64 - arc.leading_zeros()).div_ceil(7).max(1);
        for group in (0..groups).rev() {
            let octet = (arc >> (group * 7)).to_le_bytes()[0] & 0x7f;
            out.push(if group == 0 { octet } else { octet | 0x80 });
        }
    }
    Some(out)
}

/// `None` where the octets are not an OID in DER, or have an arc above 64 bits.
fn decode_oid(octets: &[u8]) -> Option<String> {
    let mut arcs: Vec<u64> = Vec::new();
    for group in octets.split_inclusive(|octet| octet & 0x80 == 0) {
        if group[0] == 0x80 || group.last().is_none_or(|octet| octet & 0x80 != 0) {
            return None;
        }
        arcs.push(
            group
                .iter()
                .try_fold(0_u64, |arc, octet| Some(arc.checked_mul(128)? | u64::from(octet & 0x7f)))?,
        );
    }
    let (joined, rest) = arcs.split_first()?;
    let first = (joined / 40).min(2);
    let mut out = format!("{first}.{}", joined - first * 40);
    for arc in rest {
        write!(out, ".{arc}").expect("a String takes all");
    }
    Some(out)
}

/// Tag, length, value.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 6);
    out.push(tag);
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let len = content.len().to_be_bytes();
            let skip = len.iter().take_while(|octet| **octet == 0).count();
            out.push(0x80 | u8::try_from(len.len() - skip).expect("at most 8 octets"));
            out.extend_from_slice(&len[skip..]);
        }
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_and_der() {
        let der = from_text("C=DE, O=ferry6, CN=client").unwrap();
        assert_eq!(
            hex(&der),
            "302f310b3009060355040613024445310f300d060355040a0c06666572727936310f300d06035504030c06636c69656e74"
        );
        assert_eq!(to_text(&der), "C=DE, O=ferry6, CN=client");
        for (text, printed) in [
            ("/C=DE/O=ferry6/CN=client", "C=DE, O=ferry6, CN=client"),
            ("cn=a;o=b", "CN=a, O=b"),
            (r#"CN="a, b" , O=c"#, r"CN=a\, b, O=c"),
            (r"CN=a\2c b\ , O=\#x", r"CN=a\, b\20, O=\#x"),
            (r"CN=\c3\a4", "CN=ä"),
            ("CN=a+UID=7, O=b", "UID=7+CN=a, O=b"),
            ("E=a@b, DC=my, DC=domain", "emailAddress=a@b, DC=my, DC=domain"),
            ("1.2.3.4=x", "1.2.3.4=x"),
            ("2.999.70000=x", "2.999.70000=x"),
            ("CN=a\u{7}b", r"CN=a\07b"),
        ] {
            let der = from_text(text).unwrap();
            let sorted_as_der = to_text(&der);
            assert!(
                sorted_as_der == printed || sorted_as_der == "CN=a+UID=7, O=b",
                "{text}: {sorted_as_der}"
            );
            assert_eq!(from_text(&sorted_as_der).unwrap(), der, "{text}");
        }
    }

    #[test]
    fn bad_text() {
        for text in [
            "",
            "CN",
            "CN=",
            "CN=a,",
            "CN=a,,O=b",
            "foo=a",
            "CN=\"a",
            "CN=a\\",
            "C=ä",
            "1=x",
            "3.1=x",
            "1.40=x",
            "CN=#zz",
            "CN=\\ff",
        ] {
            assert!(from_text(text).is_err(), "{text}");
        }
    }

    #[test]
    fn comparison_is_without_regard_to_case_spaces_and_string_type() {
        let utf8 = from_text("O=My  Company, CN=client").unwrap();
        let other = from_text("O=my company, CN=CLIENT").unwrap();
        assert_eq!(canonical(&utf8), canonical(&other));
        let printable = {
            let value = tlv(PRINTABLE, b"My Company");
            let o = tlv(SET, &tlv(SEQUENCE, &[tlv(OID, &[0x55, 4, 10]), value].concat()));
            let value = tlv(0x1e, &[0, b'c', 0, b'l', 0, b'i', 0, b'e', 0, b'n', 0, b't']);
            let cn = tlv(SET, &tlv(SEQUENCE, &[tlv(OID, &[0x55, 4, 3]), value].concat()));
            tlv(SEQUENCE, &[o, cn].concat())
        };
        assert_eq!(canonical(&utf8), canonical(&printable));
        assert_ne!(canonical(&utf8), canonical(&from_text("CN=client, O=My Company").unwrap()));
        assert_ne!(canonical(&utf8), canonical(&from_text("O=My Company, CN=client2").unwrap()));
        assert_ne!(canonical(&utf8), canonical(&from_text("O=MyCompany, CN=client").unwrap()));
        // Attributes cannot run into each other.
        assert_ne!(canonical(&from_text("CN=a+O=b").unwrap()), canonical(&from_text("CN=a, O=b").unwrap()));
    }

    #[test]
    fn what_is_no_name() {
        assert!(!is_valid(b""));
        assert!(!is_valid(b"\x30\x01"));
        let mut der = from_text("CN=a").unwrap();
        assert!(is_valid(&der));
        assert!(is_valid(b"\x30\x00"));
        der.push(0);
        assert!(!is_valid(&der));
        assert_eq!(canonical(&der), der);
        assert_eq!(to_text(b"\x05\x00"), "#0500");
    }

    #[test]
    fn lengths_of_der() {
        assert_eq!(tlv(4, &[0; 127])[..2], [4, 127]);
        assert_eq!(tlv(4, &[0; 128])[..3], [4, 0x81, 128]);
        assert_eq!(tlv(4, &[0; 256])[..4], [4, 0x82, 1, 0]);
    }

    #[test]
    fn object_identifiers() {
        for dotted in ["0.0", "1.39.1", "2.5.4.3", "2.999.1", "2.100000.18446744073709551615"] {
            assert_eq!(decode_oid(&encode_oid(dotted).unwrap()).as_deref(), Some(dotted));
        }
        for octets in [&[][..], &[0x80, 1], &[0x88], &[0xff; 12]] {
            assert_eq!(decode_oid(octets), None);
        }
        for dotted in ["", "1", "1.", "3.1", "0.40", "1.2.x", "2.18446744073709551615"] {
            assert_eq!(encode_oid(dotted), None, "{dotted}");
        }
    }

    proptest! {
        #[test]
        fn any_octets(der in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (is_valid(&der), canonical(&der), to_text(&der));
        }

        #[test]
        fn any_text(text in ".{0,60}") {
            if let Ok(der) = from_text(&text) {
                prop_assert!(is_valid(&der));
                prop_assert_eq!(from_text(&to_text(&der)), Ok(der));
            }
        }

        #[test]
        fn values_round_trip(value in ".{1,20}") {
            let mut text = String::from("CN=");
            escape_into(&value, &mut text);
            let der = from_text(&text).unwrap();
            prop_assert_eq!(&der[der.len() - value.len()..], value.as_bytes());
            prop_assert_eq!(to_text(&der), text);
        }
    }
}
