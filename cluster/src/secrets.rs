//! Certificates, tokens and kubeconfigs.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::layout::{CONTROL_V4, CONTROL_V6, Layout, MOST_NODES, node_name};

/// Who may talk to the API, apart from the nodes: user, groups.
const USERS: [(&str, &str); 4] = [
    ("admin", "system:masters"),
    ("system:kube-controller-manager", ""),
    ("system:kube-scheduler", ""),
    ("system:kube-proxy", ""),
];

/// Writes everything anew: nothing of a cluster is of use to another.
pub(crate) fn make(layout: &Layout) -> Result<()> {
    let folder = layout.secrets();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;

    let key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    authority.distinguished_name.push(DnType::CommonName, "kubernetes");
    let certificate = authority.self_signed(&key)?;
    write(&folder.join("ca.crt"), &certificate.pem())?;
    let issuer = Issuer::new(authority, key);

    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
    let addresses = [CONTROL_V4.to_string(), CONTROL_V6.to_string()];
    let addresses = addresses.into_iter().chain(["10.96.0.1", "127.0.0.1"].map(str::to_owned));
    let server =
        CertificateParams::new(names.map(str::to_owned).into_iter().chain(addresses).collect::<Vec<_>>())?;
    sign(&folder, "apiserver", server, "kube-apiserver", None, &issuer)?;
    let client = CertificateParams::new(Vec::new())?;
    sign(&folder, "apiserver-kubelet", client, "kube-apiserver-kubelet", Some("system:masters"), &issuer)?;

    let service_accounts = KeyPair::generate()?;
    write(&folder.join("service-accounts.key"), &service_accounts.serialize_pem())?;
    write(&folder.join("service-accounts.pub"), &service_accounts.public_key_pem())?;

    let mut table = String::new();
    for (user, groups) in USERS {
        let token = token()?;
        write(&folder.join(format!("{user}.token")), &token)?;
        table += &format!("{token},{user},{user},\"{groups}\"\n");
    }
    // The API server reads the table once: a node that joins later is in it already.
    for node in 1..=MOST_NODES {
        let (name, token) = (node_name(node), token()?);
        write(&folder.join(format!("{name}.token")), &token)?;
        table += &format!("{token},system:node:{name},{name},\"system:nodes\"\n");
    }
    write(&folder.join("tokens.csv"), &table)
}

/// The text of a kubeconfig for one of [`USERS`] or a node, with the authority's certificate at `authority`.
pub(crate) fn kubeconfig(layout: &Layout, user: &str, server: &str, authority: &Path) -> Result<String> {
    let file = layout.secrets().join(format!("{user}.token"));
    let token = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let (name, authority) = (&layout.name, authority.display());
    Ok(format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {name}\n\
         clusters: [{{name: {name}, cluster: {{server: \"{server}\", certificate-authority: \"{authority}\"}}}}]\n\
         users: [{{name: \"{user}\", user: {{token: \"{token}\"}}}}]\n\
         contexts: [{{name: {name}, context: {{cluster: {name}, user: \"{user}\"}}}}]\n"
    ))
}

/// Writes a file that only its owner may read.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let file = options.create(true).write(true).truncate(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn sign(
    folder: &Path,
    name: &str,
    mut params: CertificateParams,
    user: &str,
    group: Option<&str>,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<()> {
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    let key = KeyPair::generate()?;
    write(&folder.join(format!("{name}.crt")), &params.signed_by(&key, issuer)?.pem())?;
    write(&folder.join(format!("{name}.key")), &key.serialize_pem())
}

fn token() -> Result<String> {
    let mut bytes = [0; 16];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
