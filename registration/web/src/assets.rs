//! The style sheet, the script and the icon, from inside the program.
//!
//! Their addresses in the pages end in a hash of their content, so browsers may keep them for ever and still never
//! mix the page of one version with the script of another.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::LazyLock,
};

use axum::response::{IntoResponse, Response};
use http::header;

const STYLE: &str = include_str!("../assets/portolan.css");
const SCRIPT: &str = include_str!("../assets/portolan.js");
const ICON: &str = include_str!("../assets/portolan.svg");

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    (STYLE, SCRIPT, ICON).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
});

/// What follows `?v=` in the addresses of the assets.
pub(crate) fn version() -> &'static str {
    &VERSION
}

pub(crate) async fn style() -> Response {
    asset("text/css; charset=utf-8", STYLE)
}

pub(crate) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

pub(crate) async fn icon() -> Response {
    asset("image/svg+xml", ICON)
}

fn asset(kind: &'static str, content: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")], content)
        .into_response()
}
