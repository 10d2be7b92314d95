//! A holder for the tests and measurements of this crate: what `portolan holder --socket PATH` is in the product.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use portolan_ports::holder::{ServeOptions, serve};

fn main() -> ExitCode {
    let quarter = Some(Duration::from_secs(15 * 60));
    let mut options = ServeOptions { socket: PathBuf::new(), idle: quarter, abandoned: quarter, limit: None };
    let mut words = std::env::args().skip(1);
    while let (Some(word), Some(value)) = (words.next(), words.next()) {
        match word.as_str() {
            "--socket" => options.socket = value.into(),
            "--idle-ms" => options.idle = value.parse().map(Duration::from_millis).ok(),
            "--abandoned-ms" => options.abandoned = value.parse().map(Duration::from_millis).ok(),
            "--limit" => options.limit = value.parse().ok(),
            _ => return ExitCode::from(2),
        }
    }
    if serve(&options).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
