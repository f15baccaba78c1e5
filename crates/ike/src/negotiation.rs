//! Proposals and what is chosen from them (RFC 7296 sections 2.7, 3.3).
//!
//! [`SelectedIke`] and [`SelectedEsp`] have private fields: they come only from a choice of ours among the peer's
//! proposals, or from a peer's choice that was checked against what we offered.

use crate::config::{EspProposal, IkeProposal};
use crate::wire::transform_type::{ENCR, ESN, INTEG, KE, PRF};
use crate::wire::{Proposal, Transform, protocol};
use ferry6_crypto::{Cipher, CipherSuite, Group, Integ, Prf, Spi};

/// What an IKE SA will use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SelectedIke {
    suite: CipherSuite,
    prf: Prf,
    group: Group,
    number: u8,
    spi: u64,
}

impl SelectedIke {
    pub(crate) const fn suite(&self) -> CipherSuite {
        self.suite
    }
    pub(crate) const fn prf(&self) -> Prf {
        self.prf
    }
    pub(crate) const fn group(&self) -> Group {
        self.group
    }
    /// The peer's SPI in the proposal; 0 where it had none (IKE_SA_INIT).
    pub(crate) const fn peer_spi(&self) -> u64 {
        self.spi
    }
    /// As it goes into the response; `spi` is ours when an IKE SA is rekeyed.
    pub(crate) fn to_proposal(self, spi: Option<u64>) -> Proposal {
        let mut transforms = suite_transforms(self.suite);
        transforms.push(Transform::new(PRF, self.prf.transform_id()));
        transforms.push(Transform::new(KE, self.group.transform_id()));
        Proposal {
            number: self.number,
            protocol: protocol::IKE,
            spi: spi.map_or(Vec::new(), |s| s.to_be_bytes().to_vec()),
            transforms,
        }
    }
    /// `AES_GCM_16_256/PRF_HMAC_SHA2_256/CURVE25519`.
    pub(crate) fn names(&self) -> String {
        let prf = Transform::new(PRF, self.prf.transform_id());
        let group = Transform::new(KE, self.group.transform_id());
        format!("{}/{prf}/{group}", self.suite)
    }
    /// Whether this connection's proposals would have allowed it.
    pub(crate) fn allowed_by(&self, proposals: &[IkeProposal]) -> bool {
        proposals.iter().any(|p| {
            p.ciphers.contains(&self.suite.cipher())
                && self.suite.integ().is_none_or(|i| p.integs.contains(&i))
                && p.prfs.contains(&self.prf)
                && p.groups.contains(&self.group)
        })
    }
}

/// What a Child SA will use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SelectedEsp {
    suite: CipherSuite,
    group: Option<Group>,
    esn: Option<bool>,
    number: u8,
    spi: Spi,
}

impl SelectedEsp {
    pub(crate) const fn suite(&self) -> CipherSuite {
        self.suite
    }
    /// The group of a KE payload that must be there; `None` without PFS.
    pub(crate) const fn group(&self) -> Option<Group> {
        self.group
    }
    pub(crate) const fn esn(&self) -> bool {
        matches!(self.esn, Some(true))
    }
    /// The peer's inbound SPI, so our outbound one.
    pub(crate) const fn peer_spi(&self) -> Spi {
        self.spi
    }
    /// As it goes into the response, with our inbound SPI.
    pub(crate) fn to_proposal(self, inbound: Spi) -> Proposal {
        let mut transforms = suite_transforms(self.suite);
        transforms.extend(self.group.map(|g| Transform::new(KE, g.transform_id())));
        transforms.extend(self.esn.map(|esn| Transform::new(ESN, u16::from(esn))));
        Proposal {
            number: self.number,
            protocol: protocol::ESP,
            spi: inbound.to_be_bytes().to_vec(),
            transforms,
        }
    }
}

fn encr(cipher: Cipher) -> Transform {
    let key_length = cipher.key_length_attribute();
    Transform { key_length, ..Transform::new(ENCR, cipher.transform_id()) }
}

fn suite_transforms(suite: CipherSuite) -> Vec<Transform> {
    let mut out = vec![encr(suite.cipher())];
    out.extend(suite.integ().map(|i| Transform::new(INTEG, i.transform_id())));
    out
}

/// Splits ciphers by kind, in the order of the first cipher of each kind (section 3.3: AEADs and ciphers that need an
/// integrity algorithm cannot stand in one proposal).
fn by_kind(ciphers: &[Cipher]) -> Vec<Vec<Cipher>> {
    let (aead, plain): (Vec<Cipher>, Vec<Cipher>) = ciphers.iter().partition(|c| c.is_aead());
    let mut kinds = vec![aead, plain];
    if ciphers.first().is_some_and(|c| !c.is_aead()) {
        kinds.reverse();
    }
    kinds.retain(|k| !k.is_empty());
    kinds
}

fn cipher_transforms(ciphers: &[Cipher], integs: &[Integ]) -> Vec<Transform> {
    let mut out: Vec<Transform> = ciphers.iter().copied().map(encr).collect();
    if ciphers.iter().any(|c| !c.is_aead()) {
        out.extend(integs.iter().map(|i| Transform::new(INTEG, i.transform_id())));
    }
    out
}

fn numbered(proposals: Vec<Proposal>) -> Vec<Proposal> {
    // 255 is more than any configuration has; the rest would not fit into the number's octet.
    proposals.into_iter().zip(1..=u8::MAX).map(|(p, number)| Proposal { number, ..p }).collect()
}

/// Our IKE proposals for the wire; `spi` is ours when an IKE SA is rekeyed.
pub(crate) fn offer_ike(config: &[IkeProposal], spi: Option<u64>) -> Vec<Proposal> {
    let spi = spi.map_or(Vec::new(), |s| s.to_be_bytes().to_vec());
    let mut out = Vec::new();
    for p in config {
        for ciphers in by_kind(&p.ciphers) {
            let mut transforms = cipher_transforms(&ciphers, &p.integs);
            transforms.extend(p.prfs.iter().map(|f| Transform::new(PRF, f.transform_id())));
            transforms.extend(p.groups.iter().map(|g| Transform::new(KE, g.transform_id())));
            out.push(Proposal { number: 0, protocol: protocol::IKE, spi: spi.clone(), transforms });
        }
    }
    numbered(out)
}

/// Our ESP proposals. `with_ke`: in CREATE_CHILD_SA; IKE_AUTH never carries a KE transform (section 1.2).
pub(crate) fn offer_esp(config: &[EspProposal], inbound: Spi, with_ke: bool) -> Vec<Proposal> {
    let mut out = Vec::new();
    for p in config {
        for ciphers in by_kind(&p.ciphers) {
            let mut transforms = cipher_transforms(&ciphers, &p.integs);
            if with_ke {
                transforms.extend(p.groups.iter().map(|g| Transform::new(KE, g.transform_id())));
            }
            let esn: &[bool] = if p.esn.is_empty() { &[false] } else { &p.esn };
            transforms.extend(esn.iter().map(|&e| Transform::new(ESN, u16::from(e))));
            out.push(Proposal {
                number: 0,
                protocol: protocol::ESP,
                spi: inbound.to_be_bytes().to_vec(),
                transforms,
            });
        }
    }
    numbered(out)
}

/// A proposal of the peer, its transforms read. `None` where it must be passed over: a transform type that is not
/// known makes the whole proposal unacceptable, an unknown transform or attribute only that transform (section 3.3.6).
struct Theirs {
    suites: Vec<CipherSuite>,
    prfs: Vec<Prf>,
    groups: Vec<Group>,
    /// Whether it can be taken without a key exchange: no KE transform, or NONE among them.
    ke_optional: bool,
    esn: Vec<bool>,
    has_esn: bool,
}

impl Theirs {
    fn read(proposal: &Proposal) -> Option<Self> {
        let mut ciphers = Vec::new();
        let mut integs = Vec::new();
        let (mut has_integ, mut no_integ) = (false, false);
        let (mut has_ke, mut no_ke) = (false, false);
        let mut out = Self {
            suites: Vec::new(),
            prfs: Vec::new(),
            groups: Vec::new(),
            ke_optional: false,
            esn: Vec::new(),
            has_esn: false,
        };
        for t in &proposal.transforms {
            match t.transform_type {
                ENCR | PRF | INTEG | KE | ESN => {}
                _ => return None,
            }
            out.has_esn |= t.transform_type == ESN;
            has_ke |= t.transform_type == KE;
            has_integ |= t.transform_type == INTEG;
            if t.unknown_attribute {
                continue;
            }
            match (t.transform_type, t.id) {
                (ENCR, id) => ciphers.extend(Cipher::from_transform(id, t.key_length)),
                (PRF, id) => out.prfs.extend(Prf::from_transform(id)),
                (INTEG, 0) => no_integ = true,
                (INTEG, id) => integs.extend(Integ::from_transform(id)),
                (KE, 0) => no_ke = true,
                (KE, id) => out.groups.extend(Group::from_transform(id)),
                (_, id) => out.esn.extend(match id {
                    0 => Some(false),
                    1 => Some(true),
                    _ => None,
                }),
            }
        }
        out.ke_optional = !has_ke || no_ke;
        for cipher in ciphers {
            if cipher.is_aead() {
                // "AUTH NONE" may stand beside an AEAD; a real algorithm alone may not (section 3.3).
                if !has_integ || no_integ {
                    out.suites.extend(CipherSuite::new(cipher, None));
                }
            } else {
                out.suites.extend(integs.iter().filter_map(|&i| CipherSuite::new(cipher, Some(i))));
            }
        }
        Some(out)
    }
}

fn our_suites(ciphers: &[Cipher], integs: &[Integ]) -> Vec<CipherSuite> {
    ciphers
        .iter()
        .flat_map(|&c| {
            let integs: Vec<Option<Integ>> =
                if c.is_aead() { vec![None] } else { integs.iter().copied().map(Some).collect() };
            integs.into_iter().filter_map(move |i| CipherSuite::new(c, i))
        })
        .collect()
}

fn first_common<T: Copy + PartialEq>(ours: &[T], theirs: &[T]) -> Option<T> {
    ours.iter().copied().find(|x| theirs.contains(x))
}

fn spi_u64(spi: &[u8]) -> Option<u64> {
    match spi.len() {
        0 => Some(0),
        8 => spi.try_into().ok().map(u64::from_be_bytes),
        _ => None,
    }
}

fn spi_esp(spi: &[u8]) -> Option<Spi> {
    Spi::new(u32::from_be_bytes(spi.try_into().ok()?))
}

/// Chooses among the peer's IKE proposals: our order decides, but the group for which the peer already sent a KE
/// payload goes first where both allow it, which saves a round trip (section 2.7).
pub(crate) fn select_ike(
    ours: &[IkeProposal],
    theirs: &[Proposal],
    ke_group: Option<Group>,
    rekey: bool,
) -> Option<SelectedIke> {
    for p in ours {
        for t in theirs.iter().filter(|t| t.protocol == protocol::IKE) {
            let Some(spi) = spi_u64(&t.spi).filter(|&s| (s != 0) == rekey) else { continue };
            let Some(offered) = Theirs::read(t).filter(|o| !o.has_esn) else { continue };
            let group = ke_group
                .filter(|g| p.groups.contains(g) && offered.groups.contains(g))
                .or_else(|| first_common(&p.groups, &offered.groups));
            let suite = first_common(&our_suites(&p.ciphers, &p.integs), &offered.suites);
            let prf = first_common(&p.prfs, &offered.prfs);
            if let (Some(suite), Some(prf), Some(group)) = (suite, prf, group) {
                return Some(SelectedIke { suite, prf, group, number: t.number, spi });
            }
        }
    }
    None
}

/// Chooses among the peer's ESP proposals. `ke`: `None` in IKE_AUTH, where KE transforms are passed over; else the
/// group of the peer's KE payload, if there was one.
///
/// Where our configuration has groups, PFS is required. Where it has none, a peer that wants PFS gets it: any group
/// that we know is more than what was asked of us.
pub(crate) fn select_esp(
    ours: &[EspProposal],
    theirs: &[Proposal],
    ke: Option<Option<Group>>,
) -> Option<SelectedEsp> {
    for p in ours {
        for t in theirs.iter().filter(|t| t.protocol == protocol::ESP) {
            let Some(spi) = spi_esp(&t.spi) else { continue };
            let Some(offered) = Theirs::read(t).filter(|o| o.prfs.is_empty()) else { continue };
            let Some(suite) = first_common(&our_suites(&p.ciphers, &p.integs), &offered.suites) else {
                continue;
            };
            let group = match ke {
                None => None,
                Some(ke_group) => {
                    let allowed: &[Group] = if p.groups.is_empty() { &Group::ALL } else { &p.groups };
                    let group = ke_group
                        .filter(|g| allowed.contains(g) && offered.groups.contains(g))
                        .or_else(|| first_common(allowed, &offered.groups));
                    // Without PFS in our configuration, NONE is taken where it is offered.
                    let may_do_without = p.groups.is_empty() && offered.ke_optional;
                    match group {
                        Some(_) if may_do_without && ke_group.is_none() => None,
                        None if !may_do_without => continue,
                        group => group,
                    }
                }
            };
            let esn = if offered.has_esn {
                let ours: &[bool] = if p.esn.is_empty() { &[false] } else { &p.esn };
                match first_common(ours, &offered.esn) {
                    Some(esn) => Some(esn),
                    None => continue,
                }
            } else if p.esn.is_empty() || p.esn.contains(&false) {
                None
            } else {
                continue;
            };
            return Some(SelectedEsp { suite, group, esn, number: t.number, spi });
        }
    }
    None
}

/// The one proposal of a response, each transform type once, every one of them out of what we offered under that
/// number (section 3.3: "exactly one proposal"). Returns it, and what it was chosen from.
fn check_choice<'a>(
    offered: &'a [Proposal],
    answer: &'a [Proposal],
    protocol: u8,
) -> Result<(&'a Proposal, &'a Proposal), &'static str> {
    let [choice] = answer else { return Err("not exactly one proposal was chosen") };
    if choice.protocol != protocol {
        return Err("a proposal of another protocol was chosen");
    }
    let Some(offer) = offered.iter().find(|o| o.number == choice.number) else {
        return Err("a proposal was chosen that was not offered");
    };
    for (i, t) in choice.transforms.iter().enumerate() {
        if choice.transforms[..i].iter().any(|u| u.transform_type == t.transform_type) {
            return Err("two transforms of one type were chosen");
        }
        // NONE as an explicit choice means the same as its absence.
        let none = t.id == 0 && matches!(t.transform_type, INTEG | KE);
        if !none && !offer.transforms.contains(t) {
            return Err("a transform was chosen that was not offered");
        }
    }
    Ok((choice, offer))
}

/// A responder's choice among our IKE proposals.
pub(crate) fn accept_ike(offered: &[Proposal], answer: &[Proposal]) -> Result<SelectedIke, &'static str> {
    let (choice, _) = check_choice(offered, answer, protocol::IKE)?;
    let read = Theirs::read(choice).ok_or("an unknown transform type was chosen")?;
    let rekey = offered.first().is_some_and(|o| !o.spi.is_empty());
    let spi =
        spi_u64(&choice.spi).filter(|&s| (s != 0) == rekey).ok_or("wrong SPI in the chosen proposal")?;
    let missing = "a transform type is missing in the chosen proposal";
    Ok(SelectedIke {
        suite: *read.suites.first().ok_or(missing)?,
        prf: *read.prfs.first().ok_or(missing)?,
        group: *read.groups.first().ok_or(missing)?,
        number: choice.number,
        spi,
    })
}

/// A responder's choice among our ESP proposals.
pub(crate) fn accept_esp(offered: &[Proposal], answer: &[Proposal]) -> Result<SelectedEsp, &'static str> {
    let (choice, offer) = check_choice(offered, answer, protocol::ESP)?;
    let read = Theirs::read(choice).ok_or("an unknown transform type was chosen")?;
    let offer_has_ke = offer.transforms.iter().any(|t| t.transform_type == KE && t.id != 0);
    let group = read.groups.first().copied();
    if offer_has_ke && group.is_none() {
        return Err("no key exchange was chosen though only proposals with one were offered");
    }
    // Left out it means 32-bit sequence numbers.
    if !read.has_esn && !offer.transforms.contains(&Transform::new(ESN, 0)) {
        return Err("no ESN was chosen though only proposals with it were offered");
    }
    Ok(SelectedEsp {
        suite: *read.suites.first().ok_or("no cipher was chosen")?,
        group,
        esn: read.esn.first().copied(),
        number: choice.number,
        spi: spi_esp(&choice.spi).ok_or("wrong SPI in the chosen proposal")?,
    })
}

/// Whether a KE transform of this group stands in what we offered.
pub(crate) fn offers_group(offered: &[Proposal], group: Group) -> bool {
    offered.iter().flat_map(|p| &p.transforms).any(|t| t.transform_type == KE && t.id == group.transform_id())
}

/// The peer's proposals in words, for a log: `ENCR_AES_CBC_128, AUTH_HMAC_SHA2_256_128; ..`. Bounded in length.
pub(crate) fn describe(proposals: &[Proposal]) -> String {
    const SHOWN: usize = 24;
    let mut out = String::new();
    for p in proposals.iter().take(4) {
        if !out.is_empty() {
            out.push_str("; ");
        }
        let names: Vec<String> = p.transforms.iter().take(SHOWN).map(ToString::to_string).collect();
        out.push_str(&names.join(", "));
        if p.transforms.len() > SHOWN {
            out.push_str(", …");
        }
    }
    if out.is_empty() { "nothing".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A responder that leaves the ESN transform out has chosen 32-bit numbers, which must have been offered.
    #[test]
    fn esn_left_out_of_a_choice() {
        for (esn, accepted) in [(vec![true], None), (vec![true, false], Some(false)), (vec![], Some(false))] {
            let ours =
                [EspProposal { ciphers: vec![Cipher::Aes256Gcm16], integs: vec![], groups: vec![], esn }];
            let offered = offer_esp(&ours, Spi::new(0x0100_0001).unwrap(), false);
            let mut answer = offered.clone();
            answer[0].transforms.retain(|t| t.transform_type != ESN);
            assert_eq!(
                accept_esp(&offered, &answer).ok().map(|selected| selected.esn()),
                accepted,
                "{ours:?}"
            );
        }
    }
    /// RFC 8247 sections 2.1 to 2.4 and RFC 8221 sections 4 to 6: what must not, should not or need not be there is chosen by nobody,
    /// whatever the configuration says.
    #[test]
    fn weak_algorithms_are_never_chosen() {
        let ike = [IkeProposal {
            ciphers: Cipher::ALL.to_vec(),
            integs: Integ::ALL.to_vec(),
            prfs: Prf::ALL.to_vec(),
            groups: Group::ALL.to_vec(),
        }];
        let esp = [EspProposal {
            ciphers: Cipher::ALL.to_vec(),
            integs: Integ::ALL.to_vec(),
            groups: Group::ALL.to_vec(),
            esn: vec![true, false],
        }];
        let aes = Transform { key_length: Some(128), ..Transform::new(ENCR, 12) };
        let offer = |protocol, transforms: &[Transform]| {
            let spi = if protocol == protocol::ESP { vec![1, 0, 0, 1] } else { vec![] };
            [Proposal { number: 1, protocol, spi, transforms: transforms.to_vec() }]
        };
        let good_ike = [aes, Transform::new(PRF, 5), Transform::new(INTEG, 12), Transform::new(KE, 14)];
        let good_esp = [aes, Transform::new(INTEG, 12), Transform::new(ESN, 0)];
        let taken = |transforms: &[Transform], protocol| {
            let offer = offer(protocol, transforms);
            if protocol == protocol::ESP {
                select_esp(&esp, &offer, None).is_some()
            } else {
                select_ike(&ike, &offer, None, false).is_some()
            }
        };
        for (protocol, good) in [(protocol::IKE, &good_ike[..]), (protocol::ESP, &good_esp[..])] {
            assert!(taken(good, protocol));
            for (at, transform) in good.iter().enumerate() {
                let weak: &[u16] = match transform.transform_type {
                    // DES_IV64, DES, 3DES, RC5, IDEA, CAST, Blowfish, 3IDEA, DES_IV32, NULL, and a cipher without integrity
                    ENCR => &[1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13],
                    // HMAC_MD5, HMAC_TIGER
                    PRF => &[1, 3],
                    // NONE, HMAC_MD5_96, DES_MAC, KPDK_MD5, HMAC_MD5_128
                    INTEG => &[0, 1, 3, 4, 6],
                    // NONE, MODP of 768, 1024 and 1536 bits, and those with subgroups
                    KE => &[0, 1, 2, 5, 22, 23, 24],
                    _ => &[],
                };
                for &id in weak {
                    let mut other = good.to_vec();
                    other[at] = Transform { id, ..*transform };
                    assert!(!taken(&other, protocol), "{}", other[at]);
                    other[at].key_length = None;
                    assert!(!taken(&other, protocol), "{}", other[at]);
                }
                // And without any of that type: a cipher without integrity is no suite.
                if transform.transform_type != ESN {
                    let mut without = good.to_vec();
                    without.remove(at);
                    assert!(!taken(&without, protocol), "without {transform}");
                }
            }
        }
    }
}
