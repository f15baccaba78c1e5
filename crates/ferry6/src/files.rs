//! Reading files that somebody names: never more than a bound, whatever is behind the name.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use zeroize::Zeroizing;

/// Larger than this is nothing that ferry6 reads as text, in octets.
pub const LARGEST_TEXT: usize = 1 << 20;

/// Reads a file of text.
///
/// # Errors
/// It cannot be read, is longer than [`LARGEST_TEXT`], or is not UTF-8 (with the line).
pub fn read_text(path: &Path) -> io::Result<Zeroizing<String>> {
    text_of(File::open(path)?)
}

/// The same for what is open already.
///
/// # Errors
/// As [`read_text`].
pub fn text_of(file: impl Read) -> io::Result<Zeroizing<String>> {
    let wrong = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    // The bound is this capacity, right from the start: growth would leave copies of a secret behind, and what a file's
    // length says binds no device and no pipe.
    let mut octets = Zeroizing::new(Vec::with_capacity(LARGEST_TEXT + 2));
    file.take(LARGEST_TEXT as u64 + 1).read_to_end(&mut octets)?;
    if octets.len() > LARGEST_TEXT {
        return Err(wrong(format!("longer than {LARGEST_TEXT} octets")));
    }
    String::from_utf8(std::mem::take(&mut octets)).map(Zeroizing::new).map_err(|e| {
        let valid = e.utf8_error().valid_up_to();
        let octets = Zeroizing::new(e.into_bytes());
        let line = 1 + octets[..valid].iter().filter(|b| **b == b'\n').count();
        wrong(format!("line {line}: not UTF-8 text"))
    })
}

/// The end of a log, 16 KiB at most; empty where it cannot be read.
pub fn tail(path: &Path) -> String {
    const MOST: u64 = 16 << 10;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
        let mut octets = Vec::new();
        file.take(MOST).read_to_end(&mut octets)?;
        Ok(octets)
    };
    read().map_or_else(|_| String::new(), |octets| String::from_utf8_lossy(&octets).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_refused() {
        let error = read_text(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.to_string(), "longer than 1048576 octets");
        assert!(text_of(io::repeat(b'a').take(LARGEST_TEXT as u64)).is_ok(), "the bound itself is fine");
    }

    #[test]
    fn what_is_no_text_names_its_line() {
        let error = text_of(&b"a\nb\xff\n"[..]).unwrap_err();
        assert_eq!(error.to_string(), "line 2: not UTF-8 text");
    }

    #[test]
    fn a_tail_is_the_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        std::fs::write(&log, "x".repeat(20 << 10) + "\nthe end\n").expect("written");
        let tail = tail(&log);
        assert_eq!((tail.len(), tail.lines().last()), (16 << 10, Some("the end")));
        assert_eq!(super::tail(&dir.path().join("none")), "");
    }
}
