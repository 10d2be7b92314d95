//! The page: the tutorial's elements (`title`, `h1` with the name, `p` with the address), and what else helps to see
//! which copy answered. Nothing is loaded from elsewhere.

use std::fmt::Write as _;

use super::about::About;
use crate::output::age;

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--soft:#777}\
body{font:16px/1.5 system-ui,sans-serif;margin:0;min-height:100vh;display:grid;place-items:center}\
main{padding:2rem 3rem;border:1px solid var(--line);border-radius:1rem;max-width:90vw}\
h1{margin:0;font-size:1.6rem;overflow-wrap:anywhere}\
p{margin:.25rem 0 1.5rem;font:1.25rem/1.5 ui-monospace,monospace}\
dl{display:grid;grid-template-columns:auto 1fr;gap:.25rem 1.5rem;margin:0}\
dt{color:var(--soft)}dd{margin:0;font-family:ui-monospace,monospace;overflow-wrap:anywhere}";

/// The page as HTML.
pub(crate) fn render(about: &About) -> String {
    let addresses: Vec<_> = about.addresses.iter().map(ToString::to_string).collect();
    let ports: Vec<_> = about
        .ports
        .iter()
        .map(|port| match port.container {
            Some(inside) => format!("{} {}/{} (inside {inside})", port.name, port.port, port.protocols),
            None => format!("{} {}/{}", port.name, port.port, port.protocols),
        })
        .collect();
    let rows = [
        ("node", about.node.clone()),
        ("addresses", addresses.join(", ")),
        ("ports", ports.join(", ")),
        ("pid", std::process::id().to_string()),
        ("uptime", age::text(about.started.elapsed())),
        ("health", if about.is_healthy() { "healthy".to_owned() } else { "unhealthy".to_owned() }),
    ];
    let mut list = String::new();
    for (term, text) in rows {
        // Writing to a String does not fail.
        let _ = write!(list, "<dt>{term}</dt><dd>{}</dd>", escape(&text));
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>Dynamic Port Server</title><style>{STYLE}</style></head>\n\
         <body><main><h1>{}</h1><p>{}</p><dl>{list}</dl></main></body></html>\n",
        escape(&about.name),
        escape(&about.endpoint())
    )
}

/// Text as HTML text or attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_become_html() {
        assert_eq!(escape("<script>'&\"</script>"), "&lt;script&gt;&#39;&amp;&quot;&lt;/script&gt;");
    }
}
