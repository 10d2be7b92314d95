//! Where a registry listens.

use std::{fmt, path::PathBuf, str::FromStr};

use http::Uri;

/// Where a registry listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `http://HOST:PORT`, with a path before `/v1` if a proxy adds one.
    Http(Uri),
    /// The unix socket of a `portolan up` on this machine.
    Unix(PathBuf),
}

/// A text that is no [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Neither a URL nor a path.
    #[error("{0:?} is no address of a registry: write http://127.0.0.1:10080 or unix:/run/portolan.sock")]
    Syntax(String),
    /// A URL with TLS.
    #[error("{0:?}: TLS is not spoken here: use http:// to a registry on this machine or behind a tunnel")]
    Tls(String),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let syntax = || EndpointError::Syntax(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(syntax()) } else { Ok(Self::Unix(path.into())) };
        }
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        if text.starts_with("https://") {
            return Err(EndpointError::Tls(text.to_owned()));
        }
        // `127.0.0.1:10080` is what people type.
        let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = url.parse().map_err(|_| syntax())?;
        let usable = uri.scheme_str() == Some("http")
            && uri.query().is_none()
            && uri.authority().is_some_and(|a| !a.host().is_empty() && !a.as_str().contains('@'));
        if usable { Ok(Self::Http(uri)) } else { Err(syntax()) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(uri) => f.pad(uri.to_string().trim_end_matches('/')),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_read_and_printed_again() {
        for (text, shown) in [
            ("http://127.0.0.1:10080", "http://127.0.0.1:10080"),
            ("http://127.0.0.1:10080/", "http://127.0.0.1:10080"),
            ("127.0.0.1:10080", "http://127.0.0.1:10080"),
            ("[::1]:10080", "http://[::1]:10080"),
            ("registry.example/portolan", "http://registry.example/portolan"),
            ("/run/portolan.sock", "unix:/run/portolan.sock"),
            ("unix:/run/portolan.sock", "unix:/run/portolan.sock"),
            ("unix:///run/portolan.sock", "unix:/run/portolan.sock"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), shown, "{text}");
            assert_eq!(shown.parse(), Ok(endpoint));
        }
    }

    #[test]
    fn what_is_no_address_is_told_what_is() {
        for text in ["", "unix:", "ftp://x", "http://", "http://u:p@host", "http://h?x=1", "a b"] {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError::Syntax(text.to_owned())));
        }
        assert!(matches!("https://h".parse::<Endpoint>(), Err(EndpointError::Tls(_))));
    }
}
