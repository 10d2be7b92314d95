//! The words of an admission review, `admission.k8s.io/v1`.
//!
//! Only what is needed is read: a Pod with a field that we do not know must not be refused for it.
//! <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#request>

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the API server sends.
#[derive(Debug, Deserialize)]
pub(super) struct Review {
    pub(super) request: Option<Request>,
}

/// The question.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    pub(super) uid: String,
    pub(super) operation: String,
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) resource: Resource,
    #[serde(default)]
    pub(super) sub_resource: Option<String>,
    #[serde(default)]
    pub(super) object: Value,
}

/// What kind of object it is about.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Resource {
    #[serde(default)]
    pub(super) group: String,
    #[serde(default)]
    pub(super) resource: String,
}

impl Request {
    /// Whether a Pod is to be created: with another rule in the configuration other questions could come.
    pub(super) fn is_new_pod(&self) -> bool {
        self.operation == "CREATE"
            && self.resource.group.is_empty()
            && self.resource.resource == "pods"
            && self.sub_resource.as_deref().unwrap_or_default().is_empty()
    }
}

/// What we think of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// Operations of a JSON patch (RFC 6902).
    pub(super) patch: Vec<Value>,
    /// What `kubectl` shows to whoever creates the Pod.
    pub(super) warnings: Vec<String>,
    /// Why it may not be created.
    pub(super) denied: Option<Denied>,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denied {
    /// The HTTP status that the creator gets.
    pub(super) code: u16,
    /// The reason.
    pub(super) message: String,
}

impl Verdict {
    pub(super) fn deny(code: u16, message: String) -> Self {
        Self { denied: Some(Denied { code, message }), ..Self::default() }
    }
}

/// What the API server gets.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    api_version: &'static str,
    kind: &'static str,
    response: Response,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    /// In base 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<ByteString>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Status {
    code: u16,
    message: String,
}

impl Answer {
    pub(super) fn new(uid: String, verdict: Verdict) -> Self {
        let patch = Value::Array(verdict.patch);
        let patched = verdict.denied.is_none() && patch != Value::Array(Vec::new());
        let status = verdict.denied.map(|denied| Status { code: denied.code, message: denied.message });
        Self {
            api_version: "admission.k8s.io/v1",
            kind: "AdmissionReview",
            response: Response {
                uid,
                allowed: status.is_none(),
                status,
                patch_type: patched.then_some("JSONPatch"),
                patch: patched.then(|| ByteString(patch.to_string().into_bytes())),
                warnings: verdict.warnings,
            },
        }
    }
}
