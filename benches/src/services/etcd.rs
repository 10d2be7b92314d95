//! Objects written where the API server reads them: ten thousand requests to the API take a minute, this a second.
//!
//! etcd's JSON door (`/v3/kv`), some hundred objects in each transaction. The API server hears of them as of any change.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use portolan_testkit::net::Namespace;
use serde_json::{Value, json};

/// As many as etcd takes in one transaction (`--max-txn-ops`).
const TOGETHER: usize = 120;

/// The etcd of a cluster.
#[derive(Debug)]
pub(crate) struct Etcd {
    control: Namespace,
}

impl Etcd {
    /// That of the cluster with this name.
    pub(crate) fn of(cluster: &str) -> Self {
        Self { control: Namespace::existing(&format!("cluster-{cluster}-control")) }
    }

    /// Writes all of these.
    pub(crate) fn put(&self, objects: impl Iterator<Item = (String, Value)> + Send) -> Result<()> {
        self.control.run(|| {
            let mut connection = Connection::open()?;
            let mut puts = Vec::with_capacity(TOGETHER);
            for (key, value) in objects {
                let put =
                    json!({ "key": base64(key.as_bytes()), "value": base64(value.to_string().as_bytes()) });
                puts.push(json!({ "requestPut": put }));
                if puts.len() == TOGETHER {
                    connection.post("/v3/kv/txn", &json!({ "success": std::mem::take(&mut puts) }))?;
                }
            }
            if !puts.is_empty() {
                connection.post("/v3/kv/txn", &json!({ "success": puts }))?;
            }
            Ok(())
        })
    }

    /// Deletes this key.
    pub(crate) fn delete_one(&self, key: &str) -> Result<()> {
        let key = json!({ "key": base64(key.as_bytes()) });
        self.control.run(|| Connection::open()?.post("/v3/kv/deleterange", &key))
    }

    /// Deletes everything whose key begins so.
    pub(crate) fn delete(&self, prefix: &str) -> Result<()> {
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let range = json!({ "key": base64(prefix.as_bytes()), "range_end": base64(&end) });
        self.control.run(|| Connection::open()?.post("/v3/kv/deleterange", &range))
    }
}

struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open() -> Result<Self> {
        let stream = TcpStream::connect("127.0.0.1:2379").context("no etcd")?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    fn post(&mut self, path: &str, body: &Value) -> Result<()> {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: etcd\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let stream = self.0.get_mut();
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let (mut status, mut length, mut chunked) = (String::new(), 0, false);
        self.0.read_line(&mut status).context("etcd does not answer")?;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(number) = line.strip_prefix("content-length:") {
                length = number.trim().parse()?;
            }
            chunked |= line.starts_with("transfer-encoding:") && line.ends_with("chunked");
        }
        let mut answer = Vec::new();
        loop {
            let mut size = length;
            if chunked {
                let mut line = String::new();
                self.0.read_line(&mut line)?;
                size = usize::from_str_radix(line.trim(), 16).context("a chunk without a size")?;
            }
            let start = answer.len();
            answer.resize(start + size, 0);
            self.0.read_exact(&mut answer[start..])?;
            if chunked {
                self.0.read_line(&mut String::new())?;
            }
            if !chunked || size == 0 {
                break;
            }
        }
        if !status.contains(" 200 ") {
            bail!("etcd: {} {}", status.trim(), String::from_utf8_lossy(&answer));
        }
        Ok(())
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits =
            three.iter().enumerate().fold(0u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        for at in 0..4 {
            let index = (bits >> (18 - 6 * at) & 63) as usize;
            text.push(if at <= three.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_that_of_rfc_4648() {
        let encoded =
            ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| super::base64(text.as_bytes()));
        assert_eq!(encoded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }
}
