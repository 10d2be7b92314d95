//! Who sends a request.

use http::{HeaderMap, header};
use subtle::ConstantTimeEq;

use super::{Admission, Caller, Peer, Refusal};

/// Headers by which a proxy says for whom it asks (RFC 7239, and what was there before it).
const FORWARDING: [&str; 3] = ["forwarded", "x-forwarded-for", "x-real-ip"];

impl Admission {
    /// On whose behalf a request that writes is made, or why it may not.
    ///
    /// A loopback address alone is not enough, as two kinds of strangers have one: whoever a proxy on this machine
    /// passes on, and any web page that is open in a browser here, which may send a "simple" `POST` anywhere without
    /// asking first. Proxies and browsers both say so in headers, which neither lets its user forge.
    pub(crate) fn caller(&self, peer: Peer, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let (address, open) = match peer {
            Peer::Unix => return Ok(Caller::Unix),
            Peer::Address(address) => (address, false),
            Peer::Open(address) => (address, true),
        };
        if let Some(token) = bearer(headers) {
            let ours = self.token.as_deref().ok_or(Refusal::NoToken)?;
            // Unequal lengths are told apart at once: the length of the token is no secret.
            return if bool::from(token.ct_eq(ours.as_bytes())) {
                Ok(Caller::Token(address))
            } else {
                Err(Refusal::WrongToken)
            };
        }
        let may = address.is_loopback() || open && self.anonymous.includes(address);
        if !may {
            return Err(Refusal::Stranger(address));
        }
        if let Some(header) = FORWARDING.into_iter().find(|header| headers.contains_key(*header)) {
            return Err(Refusal::Proxied(header));
        }
        match headers.get(header::ORIGIN) {
            Some(origin) if !is_own_page(origin, headers) => {
                Err(Refusal::ForeignPage(String::from_utf8_lossy(origin.as_bytes()).into_owned()))
            }
            _ if address.is_loopback() => Ok(Caller::Loopback(address)),
            _ => Ok(Caller::Anonymous(address)),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Whether a page that says this `Origin` was served by this listener: origin and host agree, and the host is a
/// number or `localhost`. A name would not do, since whoever owns a name can point it here (DNS rebinding).
fn is_own_page(origin: &http::HeaderValue, headers: &HeaderMap) -> bool {
    let Some(origin) = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://")) else {
        return false;
    };
    let same = headers.get(header::HOST).is_some_and(|host| host.as_bytes() == origin.as_bytes());
    let host = origin.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let host = host.map_or(origin, |(host, _)| host);
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    same && (bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok())
}
