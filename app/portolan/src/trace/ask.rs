//! Who is asked for the Services of this machine: `portolan proxy`, `portolan up`, or both where both run.

use std::path::{Path, PathBuf};

use anyhow::bail;
use http::Method;
use portolan_cli::{Global, PROXY_SOCKET, TraceArgs};
use portolan_client::{Client, ClientError, Endpoint};

use super::state::{PATH, State};
use crate::{
    output::problem::{Hint as _, hinted},
    run::SOCKET,
};

/// What to do where nobody answers.
const OTHERWISE: &str = "--from FILE reads Services from a file, --table NAME the rules that the kernel has";

/// All that answer; with `--socket` the one that is meant.
pub(super) async fn ask(global: &Global, args: &TraceArgs) -> anyhow::Result<Vec<State>> {
    if let Some(path) = &args.socket {
        let hint = format!(
            "--socket names that of `portolan proxy`, or the file {SOCKET} in the data folder of `portolan up`; {OTHERWISE}"
        );
        return Ok(vec![get(path).await.hint(hint)?]);
    }
    let asked =
        [("portolan proxy", PathBuf::from(PROXY_SOCKET)), ("portolan up", global.data_dir().join(SOCKET))];
    let (mut states, mut failures) = (Vec::new(), Vec::new());
    for (who, path) in &asked {
        match get(path).await {
            Ok(state) => states.push(state),
            // Most machines have one of the two.
            Err(ClientError::NobodyThere { .. }) => {}
            Err(error) => failures.push((who, error)),
        }
    }
    if states.is_empty() && failures.is_empty() {
        let [(_, proxy), (_, up)] = &asked;
        let hint = format!(
            "start one of them, as root, or name its socket by --socket, the data folder of `portolan up` by --data; {OTHERWISE}"
        );
        let neither = format!(
            "nobody serves Services here: neither `portolan proxy` answers at {} nor `portolan up` at {}",
            proxy.display(),
            up.display()
        );
        return Err(hinted(anyhow::Error::msg(neither), hint));
    }
    if states.is_empty() {
        let told = failures.iter().map(|(who, error)| format!("`{who}`: {error}"));
        bail!("{}", told.collect::<Vec<_>>().join("; "));
    }
    for (who, error) in &failures {
        tracing::warn!("the Services of `{who}` are left out: {error}");
    }
    Ok(states)
}

async fn get(path: &Path) -> Result<State, ClientError> {
    let client = Client::new(Endpoint::Unix(path.to_owned()), None);
    client.request_json(Method::GET, PATH, None::<&()>).await
}
