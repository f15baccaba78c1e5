//! Proposals as strongSwan writes them: `aes256gcm16-prfsha256-x25519`, `aes128-sha256-modp2048`, `default`.

use ferry6_crypto::{Cipher, Group, Integ, Prf};
use ferry6_ike::config::{EspProposal, IkeProposal};

enum Word {
    Cipher(Cipher),
    /// `sha256`: integrity, and the PRF where none is named.
    Integ(Integ),
    Prf(Prf),
    Group(Group),
    Esn(bool),
}

/// Name, and what it is. The first name of each algorithm is the one that is shown.
const WORDS: &[(&[&str], Word)] = &[
    (&["aes256gcm16", "aes256gcm", "aes256gcm128"], Word::Cipher(Cipher::Aes256Gcm16)),
    (&["aes128gcm16", "aes128gcm", "aes128gcm128"], Word::Cipher(Cipher::Aes128Gcm16)),
    (&["chacha20poly1305", "chacha20poly1305compat"], Word::Cipher(Cipher::ChaCha20Poly1305)),
    (&["aes256", "aes256cbc", "aes-256"], Word::Cipher(Cipher::Aes256Cbc)),
    (&["aes128", "aes", "aes128cbc", "aes-128"], Word::Cipher(Cipher::Aes128Cbc)),
    (&["sha256", "sha2_256", "sha256_128", "hmac-sha2-256"], Word::Integ(Integ::HmacSha256_128)),
    (&["sha384", "sha2_384", "hmac-sha2-384"], Word::Integ(Integ::HmacSha384_192)),
    (&["sha512", "sha2_512", "hmac-sha2-512"], Word::Integ(Integ::HmacSha512_256)),
    (&["sha1", "sha", "sha1_96", "hmac-sha1"], Word::Integ(Integ::HmacSha1_96)),
    (&["prfsha256"], Word::Prf(Prf::HmacSha256)),
    (&["prfsha384"], Word::Prf(Prf::HmacSha384)),
    (&["prfsha512"], Word::Prf(Prf::HmacSha512)),
    (&["prfsha1"], Word::Prf(Prf::HmacSha1)),
    (&["x25519", "curve25519"], Word::Group(Group::X25519)),
    (&["ecp256"], Word::Group(Group::Ecp256)),
    (&["ecp384"], Word::Group(Group::Ecp384)),
    (&["modp3072"], Word::Group(Group::Modp3072)),
    (&["modp4096"], Word::Group(Group::Modp4096)),
    (&["modp2048"], Word::Group(Group::Modp2048)),
    (&["esn"], Word::Esn(true)),
    (&["noesn"], Word::Esn(false)),
];

/// Names that people bring along, and why they are not here.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["3des", "des", "blowfish", "cast128", "camellia128", "camellia256"],
        "obsolete; use aes256gcm16 or aes256-sha256",
    ),
    (&["md5", "prfmd5"], "broken; use sha256"),
    (&["modp768", "modp1024", "modp1536"], "too weak (RFC 8247); use x25519, ecp256 or modp2048"),
    (&["aes192", "aes192gcm16", "aes192gcm"], "192-bit keys are not supported; use aes256"),
    (
        &[
            "aes256gcm8",
            "aes128gcm8",
            "aes256gcm12",
            "aes128gcm12",
            "aes256gcm64",
            "aes128gcm64",
            "aes256gcm96",
            "aes128gcm96",
        ],
        "short ICVs are not supported; use aes256gcm16",
    ),
    (&["null", "prfnull"], "no encryption is no tunnel"),
    (&["modpnone", "none"], "leave the group out for no PFS"),
];

fn word(text: &str) -> Result<&'static Word, String> {
    let lower = text.to_ascii_lowercase();
    if let Some((_, word)) = WORDS.iter().find(|(names, _)| names.contains(&lower.as_str())) {
        return Ok(word);
    }
    if let Some((_, why)) = REFUSED.iter().find(|(names, _)| names.contains(&lower.as_str())) {
        return Err(format!("{text:?}: {why}"));
    }
    let names = WORDS.iter().flat_map(|(names, _)| names.iter().copied());
    Err(match super::reader::nearest(&lower, names) {
        Some(near) => format!("unknown algorithm {text:?}; did you mean {near:?}?"),
        None => {
            let all: Vec<&str> = WORDS.iter().map(|(names, _)| names[0]).collect();
            format!("unknown algorithm {text:?}; known: {}", all.join(", "))
        }
    })
}

#[derive(Default)]
struct Words {
    ciphers: Vec<Cipher>,
    integs: Vec<Integ>,
    prfs: Vec<Prf>,
    groups: Vec<Group>,
    esn: Vec<bool>,
}

fn push<T: PartialEq + Copy>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn words(text: &str) -> Result<Words, String> {
    let mut words = Words::default();
    for part in text.strip_suffix('!').unwrap_or(text).split('-') {
        match word(part.trim())? {
            Word::Cipher(c) => push(&mut words.ciphers, *c),
            Word::Integ(i) => push(&mut words.integs, *i),
            Word::Prf(p) => push(&mut words.prfs, *p),
            Word::Group(g) => push(&mut words.groups, *g),
            Word::Esn(e) => push(&mut words.esn, *e),
        }
    }
    if words.ciphers.is_empty() {
        return Err(format!("{text:?} names no cipher; add one, for example aes256gcm16"));
    }
    let cbc = words.ciphers.iter().any(|c| !c.is_aead());
    if cbc && words.integs.is_empty() {
        return Err(format!("{text:?}: AES-CBC needs an integrity algorithm; add one, for example sha256"));
    }
    Ok(words)
}

/// The proposal that a connection without a `proposals` key has.
pub fn default_ike() -> IkeProposal {
    IkeProposal {
        ciphers: Cipher::ALL.to_vec(),
        integs: vec![Integ::HmacSha256_128, Integ::HmacSha512_256, Integ::HmacSha384_192],
        prfs: vec![Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512],
        groups: Group::ALL.to_vec(),
    }
}

/// Likewise for ESP: no SHA-1, no PFS (as strongSwan's default), ESN where the peer has it.
pub fn default_esp() -> EspProposal {
    EspProposal {
        ciphers: Cipher::ALL.to_vec(),
        integs: vec![Integ::HmacSha256_128, Integ::HmacSha512_256, Integ::HmacSha384_192],
        groups: Vec::new(),
        esn: vec![true, false],
    }
}

/// One IKE proposal.
///
/// # Errors
/// What is wrong with it.
pub fn ike(text: &str) -> Result<IkeProposal, String> {
    if text == "default" {
        return Ok(default_ike());
    }
    let mut words = words(text)?;
    if !words.esn.is_empty() {
        return Err(format!("{text:?}: esn and noesn belong to the [child] proposals"));
    }
    if words.prfs.is_empty() {
        // strongSwan: the integrity algorithm names the PRF too.
        words.prfs = words
            .integs
            .iter()
            .map(|i| match i {
                Integ::HmacSha1_96 => Prf::HmacSha1,
                Integ::HmacSha256_128 => Prf::HmacSha256,
                Integ::HmacSha384_192 => Prf::HmacSha384,
                Integ::HmacSha512_256 => Prf::HmacSha512,
            })
            .collect();
    }
    if words.prfs.is_empty() {
        return Err(format!("{text:?} names no PRF; add one, for example prfsha256"));
    }
    if words.groups.is_empty() {
        return Err(format!("{text:?} names no key exchange group; add one, for example x25519"));
    }
    if words.ciphers.iter().all(|c| c.is_aead()) {
        words.integs.clear();
    }
    Ok(IkeProposal { ciphers: words.ciphers, integs: words.integs, prfs: words.prfs, groups: words.groups })
}

/// One ESP proposal.
///
/// # Errors
/// What is wrong with it.
pub fn esp(text: &str) -> Result<EspProposal, String> {
    if text == "default" {
        return Ok(default_esp());
    }
    let mut words = words(text)?;
    if !words.prfs.is_empty() {
        return Err(format!("{text:?}: PRFs belong to the [ike] proposals"));
    }
    if words.ciphers.iter().all(|c| c.is_aead()) {
        words.integs.clear();
    }
    if words.esn.is_empty() {
        words.esn = vec![true, false];
    }
    Ok(EspProposal { ciphers: words.ciphers, integs: words.integs, groups: words.groups, esn: words.esn })
}

/// The proposal in its canonical words, for `--check`.
pub fn show_ike(proposal: &IkeProposal) -> String {
    let mut out: Vec<&str> =
        proposal.ciphers.iter().map(|c| name(|w| matches!(w, Word::Cipher(x) if x == c))).collect();
    out.extend(proposal.integs.iter().map(|i| name(|w| matches!(w, Word::Integ(x) if x == i))));
    out.extend(proposal.prfs.iter().map(|p| name(|w| matches!(w, Word::Prf(x) if x == p))));
    out.extend(proposal.groups.iter().map(|g| name(|w| matches!(w, Word::Group(x) if x == g))));
    out.join("-")
}

/// Likewise for ESP.
pub fn show_esp(proposal: &EspProposal) -> String {
    let mut out: Vec<&str> =
        proposal.ciphers.iter().map(|c| name(|w| matches!(w, Word::Cipher(x) if x == c))).collect();
    out.extend(proposal.integs.iter().map(|i| name(|w| matches!(w, Word::Integ(x) if x == i))));
    out.extend(proposal.groups.iter().map(|g| name(|w| matches!(w, Word::Group(x) if x == g))));
    out.extend(proposal.esn.iter().map(|e| if *e { "esn" } else { "noesn" }));
    out.join("-")
}

fn name(is: impl Fn(&Word) -> bool) -> &'static str {
    WORDS.iter().find(|(_, w)| is(w)).map_or("?", |(names, _)| names[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strongswan_words() {
        let p = &ike("aes256gcm16-prfsha256-x25519").unwrap();
        assert_eq!(p.ciphers, [Cipher::Aes256Gcm16]);
        assert!(p.integs.is_empty());
        assert_eq!((p.prfs.as_slice(), p.groups.as_slice()), (&[Prf::HmacSha256][..], &[Group::X25519][..]));
        let p = &ike("aes128-aes256-sha1-sha2_256-modp2048-ecp256!").unwrap();
        assert_eq!(p.ciphers, [Cipher::Aes128Cbc, Cipher::Aes256Cbc]);
        assert_eq!(p.prfs, [Prf::HmacSha1, Prf::HmacSha256]);
        assert_eq!(show_ike(p), "aes128-aes256-sha1-sha256-prfsha1-prfsha256-modp2048-ecp256");
        // An AEAD with sha256 means prfsha256, as in strongSwan.
        assert_eq!(ike("aes128gcm-sha256-curve25519").unwrap().prfs, [Prf::HmacSha256]);
        let p = &esp("aes256-sha512-noesn").unwrap();
        assert_eq!((p.esn.as_slice(), p.groups.len()), (&[false][..], 0));
        assert_eq!(esp("chacha20poly1305-ecp384").unwrap().esn, [true, false]);
    }

    #[test]
    fn faults() {
        for (text, needle) in [
            ("aes256gcm17-prfsha256-x25519", "did you mean \"aes256gcm16\""),
            ("aes256gcm16-prfsha256", "no key exchange group"),
            ("aes256gcm16-x25519", "no PRF"),
            ("aes256-x25519-prfsha256", "needs an integrity"),
            ("3des-sha1-modp1024", "obsolete"),
            ("aes256-sha256-modp1024", "too weak"),
            ("sha256-x25519", "no cipher"),
            ("", "unknown algorithm"),
            ("aes256gcm16-prfsha256-x25519-esn", "[child]"),
        ] {
            let error = ike(text).unwrap_err();
            assert!(error.contains(needle), "{text}: {error}");
        }
        assert!(esp("aes256gcm16-prfsha256").unwrap_err().contains("[ike]"));
    }
}
