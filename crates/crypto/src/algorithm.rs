//! The algorithms by their IANA names and numbers ("Internet Key Exchange Version 2 (IKEv2) Parameters").

use std::fmt;

/// Encryption algorithm, transform type 1, with its key length where the number alone leaves it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// ENCR_AES_GCM_16 (20), 128-bit key: RFC 4106, RFC 5282.
    Aes128Gcm16,
    /// ENCR_AES_GCM_16 (20), 256-bit key.
    Aes256Gcm16,
    /// ENCR_CHACHA20_POLY1305 (28): RFC 7634.
    ChaCha20Poly1305,
    /// ENCR_AES_CBC (12), 128-bit key: RFC 3602.
    Aes128Cbc,
    /// ENCR_AES_CBC (12), 256-bit key.
    Aes256Cbc,
}

impl Cipher {
    /// All, strongest and fastest first.
    pub const ALL: [Self; 5] =
        [Self::Aes256Gcm16, Self::Aes128Gcm16, Self::ChaCha20Poly1305, Self::Aes256Cbc, Self::Aes128Cbc];

    /// The transform ID.
    pub const fn transform_id(self) -> u16 {
        match self {
            Self::Aes128Gcm16 | Self::Aes256Gcm16 => 20,
            Self::ChaCha20Poly1305 => 28,
            Self::Aes128Cbc | Self::Aes256Cbc => 12,
        }
    }

    /// The Key Length attribute in bits (RFC 7296 section 3.3.5); `None` where it must be absent.
    pub const fn key_length_attribute(self) -> Option<u16> {
        match self {
            Self::Aes128Gcm16 | Self::Aes128Cbc => Some(128),
            Self::Aes256Gcm16 | Self::Aes256Cbc => Some(256),
            Self::ChaCha20Poly1305 => None,
        }
    }

    /// The cipher with this transform ID and Key Length attribute.
    pub fn from_transform(id: u16, key_length: Option<u16>) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.transform_id() == id && c.key_length_attribute() == key_length)
    }

    /// Whether integrity is built in, so that no INTEG transform goes with it.
    pub const fn is_aead(self) -> bool {
        matches!(self, Self::Aes128Gcm16 | Self::Aes256Gcm16 | Self::ChaCha20Poly1305)
    }

    /// Octets taken from KEYMAT: key and, for AEADs, the 4-octet salt behind it.
    pub const fn key_material_len(self) -> usize {
        match self {
            Self::Aes128Gcm16 => 16 + 4,
            Self::Aes256Gcm16 | Self::ChaCha20Poly1305 => 32 + 4,
            Self::Aes128Cbc => 16,
            Self::Aes256Cbc => 32,
        }
    }

    /// Octets of the IV that stands in each packet.
    pub const fn iv_len(self) -> usize {
        if self.is_aead() { 8 } else { 16 }
    }

    /// The ciphertext is a multiple of this many octets (ESP raises it to 4: RFC 4303 section 2.4).
    pub const fn block_len(self) -> usize {
        if self.is_aead() { 1 } else { 16 }
    }
}

/// Integrity algorithm, transform type 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Integ {
    /// AUTH_HMAC_SHA1_96 (2): RFC 2404.
    HmacSha1_96,
    /// AUTH_HMAC_SHA2_256_128 (12): RFC 4868.
    HmacSha256_128,
    /// AUTH_HMAC_SHA2_384_192 (13).
    HmacSha384_192,
    /// AUTH_HMAC_SHA2_512_256 (14).
    HmacSha512_256,
}

impl Integ {
    /// All, the usual first choice first.
    pub const ALL: [Self; 4] =
        [Self::HmacSha256_128, Self::HmacSha512_256, Self::HmacSha384_192, Self::HmacSha1_96];

    /// The transform ID.
    pub const fn transform_id(self) -> u16 {
        match self {
            Self::HmacSha1_96 => 2,
            Self::HmacSha256_128 => 12,
            Self::HmacSha384_192 => 13,
            Self::HmacSha512_256 => 14,
        }
    }

    /// The algorithm with this transform ID.
    pub fn from_transform(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.transform_id() == id)
    }

    /// Octets of key.
    pub const fn key_len(self) -> usize {
        match self {
            Self::HmacSha1_96 => 20,
            Self::HmacSha256_128 => 32,
            Self::HmacSha384_192 => 48,
            Self::HmacSha512_256 => 64,
        }
    }

    /// Octets of the truncated ICV.
    pub const fn icv_len(self) -> usize {
        match self {
            Self::HmacSha1_96 => 12,
            Self::HmacSha256_128 => 16,
            Self::HmacSha384_192 => 24,
            Self::HmacSha512_256 => 32,
        }
    }
}

/// What protects a packet: an AEAD, or a cipher and an integrity algorithm. Nothing else can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CipherSuite {
    cipher: Cipher,
    integ: Option<Integ>,
}

/// By the IANA names: `AES_GCM_16_256`, `AES_CBC_256/HMAC_SHA2_256_128`.
impl fmt::Display for CipherSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.cipher {
            Cipher::Aes128Gcm16 => "AES_GCM_16_128",
            Cipher::Aes256Gcm16 => "AES_GCM_16_256",
            Cipher::ChaCha20Poly1305 => "CHACHA20_POLY1305",
            Cipher::Aes128Cbc => "AES_CBC_128",
            Cipher::Aes256Cbc => "AES_CBC_256",
        })?;
        f.write_str(match self.integ {
            None => "",
            Some(Integ::HmacSha1_96) => "/HMAC_SHA1_96",
            Some(Integ::HmacSha256_128) => "/HMAC_SHA2_256_128",
            Some(Integ::HmacSha384_192) => "/HMAC_SHA2_384_192",
            Some(Integ::HmacSha512_256) => "/HMAC_SHA2_512_256",
        })
    }
}

impl CipherSuite {
    /// `None` where an AEAD comes with an integrity algorithm, or CBC without one (RFC 7296 section 3.3).
    pub const fn new(cipher: Cipher, integ: Option<Integ>) -> Option<Self> {
        if cipher.is_aead() == integ.is_some() { None } else { Some(Self { cipher, integ }) }
    }

    /// Every suite, for tests and benches.
    pub fn all() -> impl Iterator<Item = Self> {
        Cipher::ALL.into_iter().flat_map(|cipher| {
            std::iter::once(None)
                .chain(Integ::ALL.into_iter().map(Some))
                .filter_map(move |integ| Self::new(cipher, integ))
        })
    }

    /// The encryption part.
    pub const fn cipher(self) -> Cipher {
        self.cipher
    }

    /// The integrity part; `None` for an AEAD.
    pub const fn integ(self) -> Option<Integ> {
        self.integ
    }

    /// Whether it is an AEAD.
    pub const fn is_aead(self) -> bool {
        self.cipher.is_aead()
    }

    /// Octets of the Integrity Check Value behind the ciphertext.
    pub const fn icv_len(self) -> usize {
        match self.integ {
            None => 16,
            Some(integ) => integ.icv_len(),
        }
    }
}

/// Pseudorandom function, transform type 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prf {
    /// PRF_HMAC_SHA1 (2).
    HmacSha1,
    /// PRF_HMAC_SHA2_256 (5).
    HmacSha256,
    /// PRF_HMAC_SHA2_384 (6).
    HmacSha384,
    /// PRF_HMAC_SHA2_512 (7).
    HmacSha512,
}

impl Prf {
    /// All, the usual first choice first.
    pub const ALL: [Self; 4] = [Self::HmacSha256, Self::HmacSha384, Self::HmacSha512, Self::HmacSha1];

    /// The transform ID.
    pub const fn transform_id(self) -> u16 {
        match self {
            Self::HmacSha1 => 2,
            Self::HmacSha256 => 5,
            Self::HmacSha384 => 6,
            Self::HmacSha512 => 7,
        }
    }

    /// The function with this transform ID.
    pub fn from_transform(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.transform_id() == id)
    }

    /// Octets of output; the preferred key length too (RFC 7296 section 2.14).
    pub const fn output_len(self) -> usize {
        match self {
            Self::HmacSha1 => 20,
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }
}

/// Key exchange method, transform type 4 (once "Diffie-Hellman group").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// 2048-bit MODP (14): RFC 3526.
    Modp2048,
    /// 3072-bit MODP (15).
    Modp3072,
    /// 4096-bit MODP (16).
    Modp4096,
    /// 256-bit random ECP (19): RFC 5903.
    Ecp256,
    /// 384-bit random ECP (20).
    Ecp384,
    /// Curve25519 (31): RFC 8031.
    X25519,
}

impl Group {
    /// All, the usual first choice first.
    pub const ALL: [Self; 6] =
        [Self::X25519, Self::Ecp256, Self::Ecp384, Self::Modp3072, Self::Modp4096, Self::Modp2048];

    /// The transform ID.
    pub const fn transform_id(self) -> u16 {
        match self {
            Self::Modp2048 => 14,
            Self::Modp3072 => 15,
            Self::Modp4096 => 16,
            Self::Ecp256 => 19,
            Self::Ecp384 => 20,
            Self::X25519 => 31,
        }
    }

    /// The group with this transform ID.
    pub fn from_transform(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|g| g.transform_id() == id)
    }

    /// Octets of the public value in a KE payload.
    pub const fn public_len(self) -> usize {
        match self {
            Self::Modp2048 => 256,
            Self::Modp3072 => 384,
            Self::Modp4096 => 512,
            Self::Ecp256 => 64,
            Self::Ecp384 => 96,
            Self::X25519 => 32,
        }
    }
}

/// Hash function: of signatures (SIGNATURE_HASH_ALGORITHMS, RFC 7427 section 7) and of NAT detection (SHA-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    /// SHA1 (1). For NAT detection and CERTREQ; never offered for signatures (RFC 8247 section 3).
    Sha1,
    /// SHA2-256 (2).
    Sha256,
    /// SHA2-384 (3).
    Sha384,
    /// SHA2-512 (4).
    Sha512,
    /// Identity (5): the algorithm hashes by itself, as Ed25519 does (RFC 8420).
    Identity,
}

impl HashAlgorithm {
    /// The IANA number in SIGNATURE_HASH_ALGORITHMS.
    pub const fn id(self) -> u16 {
        match self {
            Self::Sha1 => 1,
            Self::Sha256 => 2,
            Self::Sha384 => 3,
            Self::Sha512 => 4,
            Self::Identity => 5,
        }
    }

    /// The hash with this number.
    pub fn from_id(id: u16) -> Option<Self> {
        [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512, Self::Identity]
            .into_iter()
            .find(|h| h.id() == id)
    }
}

/// A signature algorithm with its hash: key type, padding and hash are one choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureScheme {
    /// RSASSA-PKCS1-v1_5 with SHA-1: only in the classic method 1 (RFC 7296 section 2.15), never in RFC 7427.
    RsaPkcs1Sha1,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RsaPkcs1Sha512,
    /// RSASSA-PSS, SHA-256, MGF1 with SHA-256, salt of 32 octets.
    RsaPssSha256,
    /// RSASSA-PSS, SHA-384, salt of 48 octets.
    RsaPssSha384,
    /// RSASSA-PSS, SHA-512, salt of 64 octets.
    RsaPssSha512,
    /// ECDSA on P-256 with SHA-256; signatures are DER (the classic method 9 takes r | s: see `ike`).
    EcdsaP256Sha256,
    /// ECDSA on P-256 with SHA-384.
    EcdsaP256Sha384,
    /// ECDSA on P-384 with SHA-256.
    EcdsaP384Sha256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaP384Sha384,
    /// Ed25519 (RFC 8032, RFC 8420).
    Ed25519,
}

impl SignatureScheme {
    /// The hash that a peer must have listed in SIGNATURE_HASH_ALGORITHMS.
    pub const fn hash(self) -> HashAlgorithm {
        match self {
            Self::RsaPkcs1Sha1 => HashAlgorithm::Sha1,
            Self::RsaPkcs1Sha256 | Self::RsaPssSha256 | Self::EcdsaP256Sha256 | Self::EcdsaP384Sha256 => {
                HashAlgorithm::Sha256
            }
            Self::RsaPkcs1Sha384 | Self::RsaPssSha384 | Self::EcdsaP384Sha384 | Self::EcdsaP256Sha384 => {
                HashAlgorithm::Sha384
            }
            Self::RsaPkcs1Sha512 | Self::RsaPssSha512 => HashAlgorithm::Sha512,
            Self::Ed25519 => HashAlgorithm::Identity,
        }
    }
}
