//! The certificates themselves: an authority that signs one certificate and is forgotten.
//!
//! The authority's key is never stored, so nobody can sign with it later. A renewal is a new authority; the old one's
//! certificate stays in the bundle until the next, so that the API server believes replicas which still show the old
//! certificate.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// How long a certificate is valid.
pub(super) const VALID: Duration = Duration::from_secs(365 * 24 * 3600);
/// When it is renewed, with two thirds of its time gone.
pub(super) const RENEW: Duration = Duration::from_secs(243 * 24 * 3600);
/// Clocks of control planes may be behind ours.
const SKEW: Duration = Duration::from_secs(3600);

/// A server's certificate and who to believe, all in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Paper {
    /// The authority's certificate, and the one before it.
    pub(super) authorities: String,
    /// The server's certificate.
    pub(super) certificate: String,
    /// Its key.
    pub(super) key: String,
    /// When it should be renewed, in seconds since 1970.
    pub(super) renew: u64,
    /// The names and addresses it is for, separated by commas.
    pub(super) names: String,
}

impl Paper {
    /// A new certificate for `names` by a new authority; `before` is the bundle of the one that it replaces.
    pub(super) fn new(names: &[String], before: &str, now: SystemTime) -> Result<Self, rcgen::Error> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // Each authority has a name of its own: two of one name in a bundle confuse verifiers.
        authority
            .distinguished_name
            .push(DnType::CommonName, format!("Portolan webhook {:08x}", rand::random::<u32>()));
        authority.not_before = (now - SKEW).into();
        authority.not_after = (now + VALID).into();
        let authority_key = KeyPair::generate()?;
        let authority_certificate = authority.self_signed(&authority_key)?;
        let mut server = CertificateParams::new(names.to_vec())?;
        server.distinguished_name.push(DnType::CommonName, "Portolan webhook");
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.use_authority_key_identifier_extension = true;
        server.not_before = (now - SKEW).into();
        server.not_after = (now + VALID).into();
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &Issuer::new(authority, authority_key))?;
        Ok(Self {
            authorities: format!("{}{}", authority_certificate.pem(), newest(before)),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            renew: seconds(now + RENEW),
            names: names.join(","),
        })
    }

    /// Whether it can be used for `names` for some time to come.
    pub(super) fn is_good(&self, names: &[String], now: SystemTime) -> bool {
        self.names == names.join(",") && seconds(now) < self.renew && !self.authorities.is_empty()
    }
}

/// The first certificate of a bundle.
fn newest(bundle: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----";
    bundle.find(END).map_or("", |at| bundle[..at + END.len()].trim_start())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_keeps_one_authority_before_it_and_no_more() {
        let (names, now) = (["webhook.portolan.svc".to_owned()], SystemTime::now());
        let first = Paper::new(&names, "", now).unwrap();
        let second = Paper::new(&names, &first.authorities, now).unwrap();
        let third = Paper::new(&names, &second.authorities, now).unwrap();
        let count = |paper: &Paper| paper.authorities.matches("BEGIN CERTIFICATE").count();
        assert_eq!([&first, &second, &third].map(count), [1, 2, 2]);
        assert!(second.authorities.ends_with(first.authorities.trim_end()));
        assert!(!third.authorities.contains(first.authorities.trim_end()));
    }

    #[test]
    fn a_certificate_is_good_for_its_names_and_two_thirds_of_its_time() {
        let (names, now) = (["127.0.0.1".to_owned()], SystemTime::now());
        let paper = Paper::new(&names, "", now).unwrap();
        assert!(paper.is_good(&names, now) && paper.is_good(&names, now + RENEW / 2));
        assert!(!paper.is_good(&names, now + RENEW) && !paper.is_good(&["other".to_owned()], now));
    }
}
