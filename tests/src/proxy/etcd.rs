//! etcd behind the API server: what no API server would be asked for, and writes by the thousand.

use std::fmt::Write as _;

use portolan_cluster::Cluster;
use portolan_testkit::programs;
use serde_json::{Value, json};

use super::api::Api;

/// `embed.DefaultMaxTxnOps` of etcd is 128.
const AT_ONCE: usize = 100;

/// A call of its gateway of JSON, in the namespace of the control plane: `call(cluster, "range", &json!({..}))`.
#[track_caller]
pub fn call(cluster: &Cluster, what: &str, body: &Value) -> Value {
    call_with(cluster, what, &body.to_string())
}

#[track_caller]
fn call_with(cluster: &Cluster, what: &str, data: &str) -> Value {
    let url = format!("http://127.0.0.1:2379/v3/kv/{what}");
    let mut command = cluster.control();
    command.arg(programs::need("curl")).args(["-sS", "--fail-with-body", "-d", data, &url]);
    let said = programs::run(&mut command);
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// Writes objects as the API server keeps them, by their keys (`/registry/services/specs/NAMESPACE/NAME`). It takes some
/// 14 ms of a processor for each that it is asked to create, and watchers hear of these as of its own.
#[track_caller]
pub fn put(api: &Api, objects: &[(String, Value)]) {
    let file = api.file("written");
    for objects in objects.chunks(AT_ONCE) {
        let put = |(key, object): &(String, Value)| {
            let (key, value) = (base64(key.as_bytes()), base64(object.to_string().as_bytes()));
            json!({"request_put": {"key": key, "value": value}})
        };
        let body = json!({"success": objects.iter().map(put).collect::<Vec<_>>()});
        // Longer than a word of a command may be.
        std::fs::write(&file, body.to_string()).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let answer = call_with(api.cluster(), "txn", &format!("@{}", file.display()));
        assert_eq!(answer["succeeded"], true, "{answer}");
    }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits =
            three.iter().chain(&[0, 0]).take(3).fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        for place in 0..4 {
            let letter = if place > three.len() { b'=' } else { LETTERS[bits >> (18 - 6 * place) & 63] };
            let _ = text.write_char(char::from(letter));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_that_of_rfc_4648() {
        let vectors = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")];
        for (text, expected) in vectors {
            assert_eq!(super::base64(text.as_bytes()), expected);
        }
    }
}
