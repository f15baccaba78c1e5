//! The key schedule (RFC 7296 sections 2.13, 2.14, 2.17, 2.18).
//!
//! Each step consumes the last: a shared secret becomes a [`Skeyseed`], that becomes [`IkeKeys`] and is gone. So no
//! key can be derived out of order or twice.

use crate::config::Role;
use crate::negotiation::SelectedIke;
use ferry6_crypto::{CipherSuite, CryptoProvider, PacketKeys, Prf, Secret};

/// SKEYSEED, and nothing else is known yet.
pub(crate) struct Skeyseed {
    secret: Secret,
    selected: SelectedIke,
}

/// The keys of one IKE SA.
pub(crate) struct IkeKeys {
    /// Derives the keys of Child SAs and of the next IKE SA.
    pub(crate) sk_d: SkD,
    /// SK_ei and SK_ai: what the original initiator sends with.
    pub(crate) initiator: PacketKeys,
    /// SK_er and SK_ar.
    pub(crate) responder: PacketKeys,
    /// For AUTH.
    pub(crate) auth: AuthKeys,
}

/// SK_pi and SK_pr (section 2.15); needed in IKE_AUTH only.
pub(crate) struct AuthKeys {
    initiator: Secret,
    responder: Secret,
}

impl AuthKeys {
    /// The key of the signer with this role.
    pub(crate) fn of(&self, role: Role) -> &Secret {
        match role {
            Role::Initiator => &self.initiator,
            Role::Responder => &self.responder,
        }
    }
}

/// SK_d with the PRF that uses it.
pub(crate) struct SkD {
    prf: Prf,
    key: Secret,
}

/// Keys of a Child SA; the roles are those of the exchange that made it.
pub(crate) struct ChildKeys {
    /// What the exchange's initiator sends with.
    pub(crate) initiator: PacketKeys,
    /// What its responder sends with.
    pub(crate) responder: PacketKeys,
}

impl Skeyseed {
    /// SKEYSEED = prf(Ni | Nr, g^ir), section 2.14.
    pub(crate) fn initial(
        crypto: &CryptoProvider,
        selected: SelectedIke,
        ni: &[u8],
        nr: &[u8],
        shared: Secret,
    ) -> Self {
        let key = Secret::new([ni, nr].concat());
        let secret = crypto.hashes.prf(selected.prf(), key.expose()).compute(&[shared.expose()]);
        Self { secret, selected }
    }

    /// SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr), section 2.18; with the old SA's PRF.
    pub(crate) fn rekey(
        crypto: &CryptoProvider,
        old: &SkD,
        selected: SelectedIke,
        ni: &[u8],
        nr: &[u8],
        shared: Secret,
    ) -> Self {
        let secret = crypto.hashes.prf(old.prf, old.key.expose()).compute(&[shared.expose(), ni, nr]);
        Self { secret, selected }
    }

    /// {SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} = prf+ (SKEYSEED, Ni | Nr | SPIi | SPIr).
    pub(crate) fn expand(
        self,
        crypto: &CryptoProvider,
        ni: &[u8],
        nr: &[u8],
        initiator_spi: u64,
        responder_spi: u64,
    ) -> IkeKeys {
        let prf = self.selected.prf();
        let suite = self.selected.suite();
        let integ = suite.integ().map_or(0, |i| i.key_len());
        let encr = suite.cipher().key_material_len();
        let out = prf.output_len();
        let material = crypto.hashes.prf(prf, self.secret.expose()).prf_plus(
            &[ni, nr, &initiator_spi.to_be_bytes(), &responder_spi.to_be_bytes()],
            out + 2 * integ + 2 * encr + 2 * out,
        );
        let mut cut = Cut(material.expose());
        let sk_d = SkD { prf, key: cut.take(out) };
        let (sk_ai, sk_ar) = (cut.take(integ), cut.take(integ));
        let (sk_ei, sk_er) = (cut.take(encr), cut.take(encr));
        IkeKeys {
            sk_d,
            initiator: PacketKeys { suite, encryption: sk_ei, integrity: sk_ai },
            responder: PacketKeys { suite, encryption: sk_er, integrity: sk_ar },
            auth: AuthKeys { initiator: cut.take(out), responder: cut.take(out) },
        }
    }
}

impl SkD {
    /// KEYMAT = prf+ (SK_d, [g^ir (new) |] Ni | Nr), section 2.17: the keys of the initiator's direction come first,
    /// and in each direction encryption before integrity.
    pub(crate) fn child(
        &self,
        crypto: &CryptoProvider,
        suite: CipherSuite,
        shared: Option<Secret>,
        ni: &[u8],
        nr: &[u8],
    ) -> ChildKeys {
        let encr = suite.cipher().key_material_len();
        let integ = suite.integ().map_or(0, |i| i.key_len());
        let shared = shared.as_ref().map_or(&[][..], Secret::expose);
        let material =
            crypto.hashes.prf(self.prf, self.key.expose()).prf_plus(&[shared, ni, nr], 2 * (encr + integ));
        let mut cut = Cut(material.expose());
        let mut direction = || PacketKeys { suite, encryption: cut.take(encr), integrity: cut.take(integ) };
        ChildKeys { initiator: direction(), responder: direction() }
    }
}

/// Cuts keys off a key stream.
struct Cut<'a>(&'a [u8]);

impl Cut<'_> {
    fn take(&mut self, len: usize) -> Secret {
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        Secret::from(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::IkeProposal;
    use crate::negotiation::{offer_ike, select_ike};
    use crate::wire::{Header, Payload, parse_payloads};
    use ferry6_crypto::{Cipher, Group, Integ, aws_lc, rustcrypto};
    use std::collections::HashMap;

    struct Recorded(HashMap<&'static str, Vec<u8>>);

    impl Recorded {
        fn read(text: &'static str) -> Self {
            let lines = text.lines().filter_map(|line| line.split_once(" = "));
            Self(lines.map(|(name, value)| (name, hex::decode(value).unwrap())).collect())
        }
        fn nonce(&self, message: &str) -> Vec<u8> {
            let message = &self.0[message];
            let header = Header::parse(message).unwrap();
            let payloads = parse_payloads(header.next_payload, &message[Header::LEN..]).unwrap();
            payloads.into_iter().find_map(|p| if let Payload::Nonce(n) = p { Some(n) } else { None }).unwrap()
        }
    }

    fn selected(cipher: Cipher, integs: Vec<Integ>, prf: Prf, group: Group) -> SelectedIke {
        let ours = [IkeProposal { ciphers: vec![cipher], integs, prfs: vec![prf], groups: vec![group] }];
        select_ike(&ours, &offer_ike(&ours, None), None, false).unwrap()
    }

    /// Keys of two handshakes of strongSwan with itself (`tests/fixtures/README.md`).
    #[test]
    fn keys_of_strongswan() {
        let cbc = selected(Cipher::Aes128Cbc, vec![Integ::HmacSha256_128], Prf::HmacSha256, Group::X25519);
        let gcm = selected(Cipher::Aes256Gcm16, vec![], Prf::HmacSha384, Group::Ecp256);
        for (text, selected) in [
            (include_str!("../tests/fixtures/strongswan-cbc.txt"), cbc),
            (include_str!("../tests/fixtures/strongswan-gcm.txt"), gcm),
        ] {
            for crypto in [aws_lc::PROVIDER, rustcrypto::PROVIDER] {
                let r = Recorded::read(text);
                let response = Header::parse(&r.0["ike_sa_init_response"]).unwrap();
                let (ni, nr) = (r.nonce("ike_sa_init_request"), r.nonce("ike_sa_init_response"));
                let shared = Secret::from(&r.0["shared_secret"][..]);
                let skeyseed = Skeyseed::initial(&crypto, selected, &ni, &nr, shared);
                assert!(skeyseed.secret.ct_eq(&r.0["skeyseed"]));
                let keys = skeyseed.expand(&crypto, &ni, &nr, response.initiator_spi, response.responder_spi);
                let same = |secret: &Secret, name: &str| {
                    assert!(secret.ct_eq(r.0.get(name).map_or(&[][..], Vec::as_slice)), "{name}");
                };
                same(&keys.sk_d.key, "sk_d");
                same(&keys.initiator.integrity, "sk_ai");
                same(&keys.responder.integrity, "sk_ar");
                same(&keys.initiator.encryption, "sk_ei");
                same(&keys.responder.encryption, "sk_er");
                same(keys.auth.of(Role::Initiator), "sk_pi");
                same(keys.auth.of(Role::Responder), "sk_pr");
            }
        }
    }

    /// Section 2.17 by hand: initiator's direction first, encryption before integrity, the secret of PFS in front.
    #[test]
    fn order_of_child_keys() {
        let crypto = aws_lc::PROVIDER;
        let sk_d = SkD { prf: Prf::HmacSha256, key: Secret::from(&[7_u8; 32][..]) };
        let suite = CipherSuite::new(Cipher::Aes128Cbc, Some(Integ::HmacSha1_96)).unwrap();
        let prf = crypto.hashes.prf(Prf::HmacSha256, &[7; 32]);
        for shared in [None, Some(Secret::from(&b"g^ir"[..]))] {
            let seed: &[u8] = if shared.is_some() { b"g^irNiNr" } else { b"NiNr" };
            let stream = prf.prf_plus(&[seed], 72);
            let keys = sk_d.child(&crypto, suite, shared, b"Ni", b"Nr");
            let cut = |from: usize, to: usize| Secret::from(&stream.expose()[from..to]);
            assert_eq!((keys.initiator.encryption, keys.initiator.integrity), (cut(0, 16), cut(16, 36)));
            assert_eq!((keys.responder.encryption, keys.responder.integrity), (cut(36, 52), cut(52, 72)));
        }
    }

    /// Section 2.18 by hand: the old PRF makes SKEYSEED, the new one expands it.
    #[test]
    fn a_rekey_uses_the_old_prf_and_then_the_new_one() {
        let crypto = rustcrypto::PROVIDER;
        let old = SkD { prf: Prf::HmacSha512, key: Secret::from(&[9_u8; 64][..]) };
        let new = selected(Cipher::Aes256Gcm16, vec![], Prf::HmacSha256, Group::X25519);
        let keys = Skeyseed::rekey(&crypto, &old, new, b"Ni", b"Nr", Secret::from(&b"secret"[..]))
            .expand(&crypto, b"Ni", b"Nr", 1, 2);
        let skeyseed = crypto.hashes.prf(Prf::HmacSha512, &[9; 64]).compute(&[b"secretNiNr"]);
        let spis = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2];
        let stream =
            crypto.hashes.prf(Prf::HmacSha256, skeyseed.expose()).prf_plus(&[b"NiNr", &spis], 32 + 72 + 64);
        assert!(keys.sk_d.key.ct_eq(&stream.expose()[..32]));
        assert!(keys.responder.encryption.ct_eq(&stream.expose()[68..104]));
        assert!(keys.auth.of(Role::Responder).ct_eq(&stream.expose()[136..]));
    }
}
