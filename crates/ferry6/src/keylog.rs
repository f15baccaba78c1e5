//! `--keylog DIR`: the keys of all SAs, in the files that Wireshark and tshark read from their profile directory.
//!
//! Whoever has such a file and a capture reads all traffic. So they are for finding faults, are never written unless asked
//! for, belong to their owner alone, and both log and `status` warn for as long as they are written.

use anyhow::{Context as _, ensure};
use ferry6_crypto::{Cipher, CipherSuite, Integ, PacketKeys, Secret, Spi};
use ferry6_ike::event::IkeKeyLog;
use ferry6_tun_router::RouterEvent;
use ferry6_tun_router::router::ChildKeys;
use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Wireshark's names of the two files.
const IKE_FILE: &str = "ikev2_decryption_table";
const ESP_FILE: &str = "esp_sa";

/// Both files, open.
#[derive(Debug)]
pub struct KeyLog {
    dir: PathBuf,
    ike: File,
    esp: File,
    failed: bool,
}

impl KeyLog {
    /// Opens both files in `dir`, which is made with mode 0700 where it is missing; keys are put behind those of earlier
    /// runs. Warns in the log.
    ///
    /// # Errors
    /// The directory or a file cannot be made, is another user's, or is no plain file.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("--keylog {}: cannot make the directory", dir.display()))?;
        let open = |name: &str| {
            let path = dir.join(name);
            append(&path).with_context(|| format!("--keylog: cannot write {}", path.display()))
        };
        let this = Self { dir: dir.into(), ike: open(IKE_FILE)?, esp: open(ESP_FILE)?, failed: false };
        tracing::warn!(
            "ALL KEYS ARE WRITTEN to {}: whoever reads {IKE_FILE} and {ESP_FILE} there can read all traffic. Remove them, \
             and run without --keylog, when the fault is found",
            dir.display()
        );
        Ok(this)
    }

    /// Where.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes the keys of an event that has some.
    pub fn event(&mut self, event: &RouterEvent) {
        let written = match event {
            RouterEvent::IkeKeys(keys) => self.ike.write_all(ike_line(keys).as_bytes()),
            RouterEvent::ChildKeys(keys) => self.esp.write_all(esp_lines(keys).as_bytes()),
            _ => Ok(()),
        };
        if let Err(error) = written
            && !std::mem::replace(&mut self.failed, true)
        {
            tracing::warn!("cannot write keys to {}: {error}; traffic goes on", self.dir.display());
        }
    }
}

/// A file for us alone: no link is followed, and what others could read or is another's is refused.
fn append(path: &Path) -> anyhow::Result<File> {
    let file =
        OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let metadata = file.metadata()?;
    ensure!(metadata.is_file(), "it is no plain file");
    if metadata.permissions().mode() & 0o177 != 0 {
        file.set_permissions(Permissions::from_mode(0o600)).map_err(|error: io::Error| {
            anyhow::anyhow!("others may read it, and its mode cannot be set to 0600: {error}")
        })?;
    }
    Ok(file)
}

/// Lower-case hex; wiped when dropped.
fn hex(secret: &Secret) -> Zeroizing<String> {
    // With all its room from the start, no copy is left behind by growing.
    let mut text = Zeroizing::new(String::with_capacity(2 * secret.len()));
    for octet in secret.expose() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{octet:02x}");
    }
    text
}

/// One line of `ikev2_decryption_table`: SPIs, SK_ei, SK_er, encryption, SK_ai, SK_ar, integrity.
fn ike_line(keys: &IkeKeyLog) -> Zeroizing<String> {
    let suite = keys.initiator.suite;
    let (encryption, integrity) = ike_names(suite);
    let comment = comment(encryption.is_none());
    let (ei, er) = (hex(&keys.initiator.encryption), hex(&keys.responder.encryption));
    let (ai, ar) = (hex(&keys.initiator.integrity), hex(&keys.responder.integrity));
    let mut line = Zeroizing::new(String::with_capacity(1024));
    let _ = writeln!(
        line,
        "{comment}{:016x},{:016x},{},{},\"{}\",{},{},\"{integrity}\"",
        keys.initiator_spi,
        keys.responder_spi,
        *ei,
        *er,
        encryption.unwrap_or(UNKNOWN),
        *ai,
        *ar,
    );
    line
}

/// Two lines of `esp_sa`, in and out. The SPI tells which SA it is; addresses are left open, for they change in a NAT.
fn esp_lines(keys: &ChildKeys) -> Zeroizing<String> {
    let mut lines = Zeroizing::new(String::with_capacity(1024));
    for (spi, half) in [&keys.inbound, &keys.outbound] {
        esp_line(&mut lines, *spi, half, keys.esn);
    }
    lines
}

fn esp_line(lines: &mut String, spi: Spi, keys: &PacketKeys, esn: bool) {
    let (encryption, integrity) = esp_names(keys.suite, esn);
    let (encryption_key, integrity_key) = (hex(&keys.encryption), hex(&keys.integrity));
    let quote = if integrity_key.is_empty() { "" } else { "0x" };
    let _ = writeln!(
        lines,
        "{}\"IPv4\",\"*\",\"*\",\"0x{:08x}\",\"{}\",\"0x{}\",\"{integrity}\",\"{quote}{}\"",
        comment(encryption.is_none()),
        spi.get(),
        encryption.unwrap_or(UNKNOWN),
        *encryption_key,
        *integrity_key,
    );
}

/// One line that Wireshark does not understand would cost it the whole file.
const fn comment(unknown: bool) -> &'static str {
    if unknown { "# not known to Wireshark 4.0: " } else { "" }
}

const UNKNOWN: &str = "ChaCha20-Poly1305 [RFC7634]";

/// Wireshark's words in `ikev2_decryption_table`.
fn ike_names(suite: CipherSuite) -> (Option<&'static str>, &'static str) {
    let encryption = match suite.cipher() {
        Cipher::Aes128Gcm16 => Some("AES-GCM-128 with 16 octet ICV [RFC5282]"),
        Cipher::Aes256Gcm16 => Some("AES-GCM-256 with 16 octet ICV [RFC5282]"),
        Cipher::ChaCha20Poly1305 => None,
        Cipher::Aes128Cbc => Some("AES-CBC-128 [RFC3602]"),
        Cipher::Aes256Cbc => Some("AES-CBC-256 [RFC3602]"),
    };
    let integrity = match suite.integ() {
        None => "NONE [RFC4306]",
        Some(Integ::HmacSha1_96) => "HMAC_SHA1_96 [RFC2404]",
        Some(Integ::HmacSha256_128) => "HMAC_SHA2_256_128 [RFC4868]",
        Some(Integ::HmacSha384_192) => "HMAC_SHA2_384_192 [RFC4868]",
        Some(Integ::HmacSha512_256) => "HMAC_SHA2_512_256 [RFC4868]",
    };
    (encryption, integrity)
}

/// Wireshark's words in `esp_sa`. It does not know extended sequence numbers: their high half is covered by the ICV of a
/// packet but is not in the packet, so it is told the length of an HMAC alone and leaves the check out. For AES-GCM it has
/// no such word: there it decrypts, and calls the ICV wrong.
fn esp_names(suite: CipherSuite, esn: bool) -> (Option<&'static str>, &'static str) {
    let encryption = match suite.cipher() {
        Cipher::Aes128Gcm16 | Cipher::Aes256Gcm16 => Some("AES-GCM with 16 octet ICV [RFC4106]"),
        Cipher::ChaCha20Poly1305 => None,
        Cipher::Aes128Cbc | Cipher::Aes256Cbc => Some("AES-CBC [RFC3602]"),
    };
    let integrity = match (suite.integ(), esn) {
        (None, _) => "NULL",
        (Some(Integ::HmacSha1_96), false) => "HMAC-SHA-1-96 [RFC2404]",
        (Some(Integ::HmacSha256_128), false) => "HMAC-SHA-256-128 [RFC4868]",
        (Some(Integ::HmacSha384_192), false) => "HMAC-SHA-384-192 [RFC4868]",
        (Some(Integ::HmacSha512_256), false) => "HMAC-SHA-512-256 [RFC4868]",
        (Some(Integ::HmacSha1_96), true) => "ANY 96 bit authentication [no checking]",
        (Some(Integ::HmacSha256_128), true) => "ANY 128 bit authentication [no checking]",
        (Some(Integ::HmacSha384_192), true) => "ANY 192 bit authentication [no checking]",
        (Some(Integ::HmacSha512_256), true) => "ANY 256 bit authentication [no checking]",
    };
    (encryption, integrity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry6_ike::event::{IkeSaId, Reqid};
    use std::os::unix::fs::symlink;

    fn keys(suite: CipherSuite, fill: u8) -> PacketKeys {
        PacketKeys {
            suite,
            encryption: Secret::new(vec![fill; suite.cipher().key_material_len()]),
            integrity: Secret::new(vec![fill + 1; suite.integ().map_or(0, Integ::key_len)]),
        }
    }

    fn ike(suite: CipherSuite) -> RouterEvent {
        RouterEvent::IkeKeys(Box::new(IkeKeyLog {
            ike: IkeSaId(1),
            initiator_spi: 0x11,
            responder_spi: 0x8899_aabb_ccdd_eeff,
            initiator: keys(suite, 0xa0),
            responder: keys(suite, 0xb0),
        }))
    }

    fn child(suite: CipherSuite, esn: bool) -> RouterEvent {
        RouterEvent::ChildKeys(Box::new(ChildKeys {
            ike: IkeSaId(1),
            reqid: Reqid(1),
            esn,
            inbound: (Spi::new(0xc0ff_ee01).unwrap(), keys(suite, 0x10)),
            outbound: (Spi::new(0x101).unwrap(), keys(suite, 0x20)),
        }))
    }

    fn read(dir: &Path, name: &str) -> String {
        std::fs::read_to_string(dir.join(name)).unwrap()
    }

    #[test]
    fn lines_as_wireshark_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let mut log = KeyLog::open(&path).unwrap();
        let gcm = CipherSuite::new(Cipher::Aes128Gcm16, None).unwrap();
        let cbc = CipherSuite::new(Cipher::Aes256Cbc, Some(Integ::HmacSha1_96)).unwrap();
        for suite in [gcm, cbc] {
            log.event(&ike(suite));
            log.event(&child(suite, false));
        }
        log.event(&child(cbc, true));
        let (a20, b20) = ("a0".repeat(20), "b0".repeat(20));
        let (a32, b32, a1, b1) = ("a0".repeat(32), "b0".repeat(32), "a1".repeat(20), "b1".repeat(20));
        assert_eq!(
            read(&path, IKE_FILE),
            format!(
                "0000000000000011,8899aabbccddeeff,{a20},{b20},\"AES-GCM-128 with 16 octet ICV [RFC5282]\",,,\"NONE [RFC4306]\"\n\
                 0000000000000011,8899aabbccddeeff,{a32},{b32},\"AES-CBC-256 [RFC3602]\",{a1},{b1},\"HMAC_SHA1_96 [RFC2404]\"\n"
            )
        );
        let esp = read(&path, ESP_FILE);
        let lines: Vec<&str> = esp.lines().collect();
        assert_eq!(
            lines[0],
            format!(
                "\"IPv4\",\"*\",\"*\",\"0xc0ffee01\",\"AES-GCM with 16 octet ICV [RFC4106]\",\"0x{}\",\"NULL\",\"\"",
                "10".repeat(20)
            )
        );
        assert_eq!(
            lines[3],
            format!(
                "\"IPv4\",\"*\",\"*\",\"0x00000101\",\"AES-CBC [RFC3602]\",\"0x{}\",\"HMAC-SHA-1-96 [RFC2404]\",\"0x{}\"",
                "20".repeat(32),
                "21".repeat(20)
            )
        );
        assert!(lines[4].contains("\"ANY 96 bit authentication [no checking]\""), "{}", lines[4]);
    }

    #[test]
    fn what_wireshark_does_not_know_is_a_comment() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = KeyLog::open(dir.path()).unwrap();
        let chacha = CipherSuite::new(Cipher::ChaCha20Poly1305, None).unwrap();
        log.event(&ike(chacha));
        log.event(&child(chacha, true));
        for name in [IKE_FILE, ESP_FILE] {
            assert!(read(dir.path(), name).lines().all(|line| line.starts_with("# ")), "{name}");
        }
    }

    #[test]
    fn the_files_are_their_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        drop(KeyLog::open(&path).unwrap());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        for name in [IKE_FILE, ESP_FILE] {
            assert_eq!(mode(&path.join(name)), 0o600);
        }
        // One that others may read is closed to them before anything is written.
        std::fs::set_permissions(path.join(ESP_FILE), Permissions::from_mode(0o644)).unwrap();
        KeyLog::open(&path).unwrap().event(&child(CipherSuite::all().next().unwrap(), false));
        assert_eq!(mode(&path.join(ESP_FILE)), 0o600);
        assert!(!read(&path, ESP_FILE).is_empty());
        // A link leads anywhere.
        std::fs::remove_file(path.join(IKE_FILE)).unwrap();
        symlink("/dev/null", path.join(IKE_FILE)).unwrap();
        assert!(format!("{:#}", KeyLog::open(&path).unwrap_err()).contains(IKE_FILE));
    }
}
