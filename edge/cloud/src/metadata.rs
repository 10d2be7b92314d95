//! The public address of this machine, asked of the cloud's metadata service.
//!
//! | provider | how it is asked | how it is told from another |
//! | --- | --- | --- |
//! | Google Compute Engine | [one GET][gce] with `Metadata-Flavor: Google` | the answer has the same header |
//! | AWS | [IMDSv2][aws]: a PUT for a token, a GET with it | only AWS gives a token |
//! | Azure | [one GET][azure] with `Metadata: true` | only Azure knows the path |
//!
//! [gce]: https://cloud.google.com/compute/docs/metadata/querying-metadata
//! [aws]: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
//! [azure]: https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service

use std::net::IpAddr;

use http::{HeaderValue, Method, StatusCode, Uri, header::HeaderName};

use crate::{
    MetadataError, Provider,
    http::{Answer, ask},
};

/// Where all three providers listen. The address, not `metadata.google.internal`: off a cloud that name costs a walk
/// through resolvers which may take longer than the question itself (Google's own Go library does the same).
const LINK_LOCAL: &str = "http://169.254.169.254";

/// Where the metadata services are: base URLs without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    gce: String,
    /// `None` when the environment says not to ask.
    aws: Option<String>,
    azure: String,
}

impl Default for Endpoints {
    /// Where the providers put them: `http://169.254.169.254`.
    fn default() -> Self {
        Self { gce: LINK_LOCAL.to_owned(), aws: Some(LINK_LOCAL.to_owned()), azure: LINK_LOCAL.to_owned() }
    }
}

impl Endpoints {
    /// The default places, changed by the variables which the providers' own libraries read: `GCE_METADATA_HOST`
    /// (`host[:port]`), `AWS_EC2_METADATA_SERVICE_ENDPOINT` (`http://host[:port]`) and `AWS_EC2_METADATA_DISABLED`.
    pub fn from_env() -> Result<Self, MetadataError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// As [`Endpoints::from_env`], with the variables from anywhere.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, MetadataError> {
        let mut endpoints = Self::default();
        let set = |name| variable(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        if let Some(host) = set("GCE_METADATA_HOST") {
            let url = format!("http://{host}");
            let bare = url.parse::<Uri>().is_ok_and(|uri| uri.path() == "/" && uri.query().is_none());
            if !bare || host.ends_with('/') {
                let expected = "write HOST or HOST:PORT";
                return Err(MetadataError::Endpoint { variable: "GCE_METADATA_HOST", value: host, expected });
            }
            endpoints.gce = url;
        }
        if let Some(url) = set("AWS_EC2_METADATA_SERVICE_ENDPOINT") {
            if !url.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("http")) {
                return Err(MetadataError::Endpoint {
                    variable: "AWS_EC2_METADATA_SERVICE_ENDPOINT",
                    value: url,
                    expected: "write http://HOST or http://HOST:PORT",
                });
            }
            endpoints.aws = Some(url.trim_end_matches('/').to_owned());
        }
        if set("AWS_EC2_METADATA_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            endpoints.aws = None;
        }
        Ok(endpoints)
    }

    /// Azure's place; it has no variable of its own.
    #[must_use]
    pub fn with_azure(mut self, url: impl Into<String>) -> Self {
        self.azure = url.into();
        self
    }

    /// The public address, or why it is not known. Takes 2 s at most for each question when nobody answers.
    pub async fn external_ip(&self, provider: Provider) -> Result<IpAddr, MetadataError> {
        match provider {
            Provider::Gce => self.gce().await,
            Provider::Aws => self.aws().await,
            Provider::Azure => self.azure().await,
            Provider::Auto => self.first_that_knows().await,
        }
    }

    async fn first_that_knows(&self) -> Result<IpAddr, MetadataError> {
        let (gce, aws, azure) = tokio::join!(self.gce(), self.aws(), self.azure());
        let mut failures = Vec::new();
        for outcome in [gce, aws, azure] {
            match outcome {
                Ok(address) => return Ok(address),
                Err(error) => failures.push(error),
            }
        }
        // The provider that is there knows best why there is no address; otherwise the first says that nobody is.
        let telling = failures.iter().position(MetadataError::is_telling).unwrap_or(0);
        Err(failures.swap_remove(telling))
    }

    async fn gce(&self) -> Result<IpAddr, MetadataError> {
        const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");
        let google = HeaderValue::from_static("Google");
        let path = "/computeMetadata/v1/instance/network-interfaces/0/access-configs/0/external-ip";
        let exchange = Exchange { provider: Provider::Gce, endpoint: &self.gce };
        let answer = exchange.ask(Method::GET, path, &[(FLAVOR, google.clone())]).await?;
        if answer.headers.get(FLAVOR) != Some(&google) {
            return Err(exchange.other("its answer has no header Metadata-Flavor: Google"));
        }
        exchange.address(path, &answer)
    }

    async fn aws(&self) -> Result<IpAddr, MetadataError> {
        const TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
        const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
        let endpoint = self.aws.as_deref().ok_or(MetadataError::Disabled)?;
        let exchange = Exchange { provider: Provider::Aws, endpoint };
        let answer =
            exchange.ask(Method::PUT, "/latest/api/token", &[(TTL, HeaderValue::from_static("60"))]).await?;
        let token = HeaderValue::from_str(&answer.text).ok();
        let (StatusCode::OK, Some(token)) = (answer.status, token.filter(|t| !t.is_empty())) else {
            return Err(exchange.other(&format!("it answered {} to the request for a token", answer.status)));
        };
        let path = "/latest/meta-data/public-ipv4";
        exchange.address(path, &exchange.ask(Method::GET, path, &[(TOKEN, token)]).await?)
    }

    async fn azure(&self) -> Result<IpAddr, MetadataError> {
        let metadata = (HeaderName::from_static("metadata"), HeaderValue::from_static("true"));
        let path = "/metadata/instance/network/interface/0/ipv4/ipAddress/0/publicIpAddress?api-version=2021-02-01&format=text";
        let exchange = Exchange { provider: Provider::Azure, endpoint: &self.azure };
        let answer = exchange.ask(Method::GET, path, &[metadata]).await?;
        // Nothing identifies Azure but that it knows this path: elsewhere it is a 404 or an error page.
        if !answer.status.is_success() {
            return Err(exchange.other(&format!("it answered {}", answer.status)));
        }
        exchange.address(path, &answer)
    }
}

/// The public address, with the endpoints that the environment says.
pub async fn external_ip(provider: Provider) -> Result<IpAddr, MetadataError> {
    Endpoints::from_env()?.external_ip(provider).await
}

/// Who is asked where.
struct Exchange<'a> {
    provider: Provider,
    endpoint: &'a str,
}

impl Exchange<'_> {
    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Answer, MetadataError> {
        let nobody = |cause| MetadataError::NoService { endpoint: self.endpoint.to_owned(), cause };
        let uri: Uri = format!("{}{path}", self.endpoint).parse().map_err(|e| nobody(format!("{e}")))?;
        let answer = ask(method, &uri, headers).await;
        match &answer {
            Ok(answer) => tracing::debug!(%uri, status = %answer.status, "metadata service answered"),
            Err(cause) => tracing::debug!(%uri, %cause, "no metadata service"),
        }
        answer.map_err(nobody)
    }

    fn other(&self, sign: &str) -> MetadataError {
        MetadataError::Other {
            provider: self.provider,
            endpoint: self.endpoint.to_owned(),
            sign: sign.to_owned(),
        }
    }

    /// The address in the answer. All three say 404 or nothing for an instance without one.
    fn address(&self, path: &str, answer: &Answer) -> Result<IpAddr, MetadataError> {
        let provider = self.provider;
        let url = || format!("{}{path}", self.endpoint);
        match answer.status {
            StatusCode::NOT_FOUND => Err(MetadataError::NoExternalAddress { provider }),
            StatusCode::OK if answer.text.is_empty() => Err(MetadataError::NoExternalAddress { provider }),
            StatusCode::OK => answer.text.parse().map_err(|_| MetadataError::NoAddress {
                provider,
                url: url(),
                text: answer.text.chars().take(64).collect(),
            }),
            status => Err(MetadataError::Refused { provider, url: url(), status }),
        }
    }
}

#[cfg(test)]
mod tests;
