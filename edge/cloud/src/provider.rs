//! Whose metadata service is asked, and why there may be no answer. [`crate::metadata`] asks.

use std::{fmt, str::FromStr};

use http::StatusCode;

/// Whose metadata service to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Google Compute Engine.
    Gce,
    /// Amazon EC2, by IMDSv2.
    Aws,
    /// Microsoft Azure.
    Azure,
    /// All of them at once; the first that knows an address wins.
    Auto,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Gce => "Google Compute Engine",
            Self::Aws => "AWS",
            Self::Azure => "Azure",
            Self::Auto => "any cloud",
        })
    }
}

impl FromStr for Provider {
    type Err = String;
    /// Reads `gce`, `aws`, `azure` or `auto`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "gce" => Ok(Self::Gce),
            "aws" => Ok(Self::Aws),
            "azure" => Ok(Self::Azure),
            "auto" => Ok(Self::Auto),
            _ => Err(format!("{text:?} is no cloud provider: use gce, aws, azure or auto")),
        }
    }
}

/// Why no public address is known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Nobody there.
    #[error(
        "no cloud metadata service answers at {endpoint} ({cause}): this machine seems not to be a cloud instance; give the address by -advertised-ip"
    )]
    NoService {
        /// Where it should be.
        endpoint: String,
        /// What the connection said.
        cause: String,
    },
    /// Somebody is there who is not the provider.
    #[error(
        "what answers at {endpoint} is not the metadata service of {provider} ({sign}); give the address by -advertised-ip"
    )]
    Other {
        /// Who was expected.
        provider: Provider,
        /// Where.
        endpoint: String,
        /// What gave it away.
        sign: String,
    },
    /// A cloud instance without a public address.
    #[error(
        "the metadata service of {provider} knows no external address of this instance: give it one, or give the address that clients use by -advertised-ip"
    )]
    NoExternalAddress {
        /// Who says so.
        provider: Provider,
    },
    /// The service does not want to say.
    #[error(
        "the metadata service of {provider} answered {status} to {url}; give the address by -advertised-ip"
    )]
    Refused {
        /// Who.
        provider: Provider,
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: StatusCode,
    },
    /// Something else than an address.
    #[error(
        "the metadata service of {provider} answered {text:?} to {url}, which is no address; give the address by -advertised-ip"
    )]
    NoAddress {
        /// Who.
        provider: Provider,
        /// What was asked.
        url: String,
        /// The first characters of the answer.
        text: String,
    },
    /// An environment variable that says where the service is, and is no URL.
    #[error("{variable}={value:?} is no address of a metadata service: {expected}")]
    Endpoint {
        /// Its name.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What it should look like.
        expected: &'static str,
    },
    /// `AWS_EC2_METADATA_DISABLED=true`.
    #[error(
        "AWS_EC2_METADATA_DISABLED is true, so the AWS metadata service is not asked: unset it, or give the address by -advertised-ip"
    )]
    Disabled,
}

impl MetadataError {
    /// Whether it says more about this machine than "that provider is not here".
    pub(crate) const fn is_telling(&self) -> bool {
        !matches!(self, Self::NoService { .. } | Self::Other { .. } | Self::Disabled)
    }
}
