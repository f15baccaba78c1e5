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
