//! `portolan expose` and `portolan delete service`: a Service of copies in the catalog, with the flags of `kubectl`.
//!
//! [`object`] makes the Service; `up` checks it, gives it numbers and serves it before the answer comes
//! ([`crate::services`]).

mod object;

use std::process::ExitCode;

use http::Method;
use portolan_cli::{DeleteArgs, DryRun, ExposeArgs, Global, ObjectFormat};
use portolan_model::Listing;
use serde_json::Value;

use crate::{
    output::{problem::Hint, structured},
    services::shown::Shown,
    verbs::api,
};

/// Asks and prints.
pub(crate) async fn main(global: Global, args: ExposeArgs) -> anyhow::Result<ExitCode> {
    let node = api::node(&global);
    let listing: Listing = node.request_json(Method::GET, "/v1/instances", None::<&()>).await?;
    let object = match object::service(&args, &listing.instances) {
        Ok(object) => object,
        Err(error) => {
            let hint = error.hint();
            return Err(error).hint(hint);
        }
    };
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let (object, done): (Value, &str) = match args.dry_run {
        DryRun::Client => (object, "exposed (dry run)"),
        DryRun::None => {
            let shown: Shown = node.request_json(Method::POST, "/v1/services", Some(&object)).await?;
            (shown.object(), "exposed")
        }
    };
    match args.output {
        Some(ObjectFormat::Yaml) => structured::yaml(&object)?,
        Some(ObjectFormat::Json) => structured::json(&object)?,
        Some(ObjectFormat::Name) => anstream::println!("service/{name}"),
        None => anstream::println!("service/{name} {done}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// `portolan delete service NAME`.
pub(crate) async fn delete(global: Global, args: DeleteArgs) -> anyhow::Result<ExitCode> {
    let words: Vec<&str> = args.what.iter().flat_map(|word| word.split('/')).collect();
    let name = match words.as_slice() {
        ["service" | "services" | "svc", name] => *name,
        _ => {
            return Err(anyhow::anyhow!("{:?} is nothing that can be deleted", args.what.join(" ")))
                .hint("write `portolan delete service NAME`; instances end with their `portolan run`");
        }
    };
    let path = format!("/v1/services/{}/{name}", args.namespace);
    api::node(&global).request_empty(Method::DELETE, &path).await?;
    anstream::println!("service \"{name}\" deleted");
    Ok(ExitCode::SUCCESS)
}
