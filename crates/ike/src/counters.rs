//! Counters of what the endpoint dropped, refused or had to repeat: one cause, one counter. They grow with nothing that a
//! stranger sends, so that an operator can see an attack without a log that it fills.

use std::collections::BTreeMap;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// What is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum Counter { $($(#[doc = $doc])+ $variant,)+ }

        impl Counter {
            /// All of them, in the order of a message's way.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name in `status`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

counters! {
    // --- any message
    /// No IKE message, or one whose first payloads cannot be read.
    Malformed = "malformed",
    /// Another major version (RFC 7296 section 2.5).
    OtherVersion = "other_version",
    /// No IKE SA of ours has this SPI. It is not answered (section 2.21.4 leaves that open).
    UnknownSpi = "unknown_spi",
    // --- IKE_SA_INIT
    /// A first message, and no connection answers strangers.
    NotAResponder = "not_a_responder",
    /// A first message of more than 4,096 octets.
    InitTooLong = "init_too_long",
    /// The same request again, answered again (section 2.1).
    InitRepeated = "init_repeated",
    /// A first message without a cookie that was passed over: there are more than is listened to.
    InitLimited = "init_rate_limited",
    /// COOKIE was asked for, and nothing stored (section 2.6).
    CookieSent = "cookie_sent",
    /// A cookie that is not ours, is too old, or was another's.
    CookieWrong = "cookie_wrong",
    /// A cookie that came back right.
    CookieRight = "cookie_right",
    /// Its source, which is where it says, opens more IKE SAs a second than it may.
    SourceLimited = "source_rate_limited",
    /// None of its proposals fits.
    NoProposal = "no_proposal",
    /// Another group was asked for (section 1.3).
    OtherGroup = "other_group_asked",
    /// A public value that the group does not allow, or no randomness.
    KeyExchange = "key_exchange_refused",
    // --- half-open IKE SAs
    /// IKE_AUTH never came.
    HalfOpenExpired = "half_open_expired",
    /// The oldest one made room for one whose sender repeated a cookie.
    HalfOpenForgotten = "half_open_forgotten",
    /// The oldest one of those that are over and only repeat their last answer made room.
    LingeringForgotten = "lingering_forgotten",
    // --- protected messages
    /// A message ID outside of the window, a role that is ours, or SPIs that do not belong together.
    OutOfWindow = "out_of_window",
    /// The integrity check fails, or what it protects is no payload.
    NotAuthentic = "not_authentic",
    /// A fragment that contradicts the others.
    FragmentRefused = "fragment_refused",
    /// An incomplete message made room for a younger one.
    FragmentsForgotten = "fragments_forgotten",
    /// A request that was answered before: its response went out again.
    ResponseRepeated = "response_repeated",
    /// A request of ours that went out again, for want of an answer.
    RequestRepeated = "request_repeated",
    /// A request of ours that was given up.
    NoAnswer = "no_answer",
    // --- IKE_AUTH
    /// No connection is for this identity, or none with these algorithms.
    AuthIdentity = "auth_no_connection",
    /// It authenticates in a way that the connection does not take.
    AuthMethod = "auth_method",
    /// Another pre-shared key.
    AuthPsk = "auth_psk",
    /// Its certificate: another CA, another identity, expired, not for IKE.
    AuthCertificate = "auth_certificate",
    /// Its certificate is revoked, or whether it is was not to be learned.
    AuthRevoked = "auth_revoked",
    /// It does not hold the key of its certificate.
    AuthSignature = "auth_signature",
    /// It is who it says, and is not let in.
    AuthBarred = "auth_barred",
    /// Refused for another cause: a second tunnel of its identity, a NAT, no credential of ours that it takes.
    AuthRefused = "auth_refused",
}

/// One number per [`Counter`].
#[derive(Clone, Debug)]
pub struct Counters([u64; Counter::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; Counter::ALL.len()])
    }
}

impl Counters {
    pub(crate) fn count(&mut self, counter: Counter) {
        let count = &mut self.0[counter as usize];
        *count = count.wrapping_add(1);
    }

    /// The count so far.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// Those that are not zero, by name, for `status`.
    pub fn collect(&self) -> BTreeMap<String, u64> {
        let counted = Counter::ALL.iter().filter(|c| self.get(**c) > 0);
        counted.map(|c| (c.name().to_owned(), self.get(*c))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_only_what_was_counted_is_told() {
        let names: HashSet<_> = Counter::ALL.iter().map(|c| c.name()).collect();
        assert_eq!(names.len(), Counter::ALL.len());
        let mut counters = Counters::default();
        assert!(counters.collect().is_empty());
        counters.count(Counter::AuthPsk);
        counters.count(Counter::AuthPsk);
        assert_eq!(counters.collect().into_iter().collect::<Vec<_>>(), [("auth_psk".to_owned(), 2)]);
    }
}
