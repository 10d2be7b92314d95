//! A holder for the tests and measurements of this crate: what `portolan holder --socket PATH` is in the product.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use portolan_ports::holder::{IDLE, ServeOptions, serve};

fn main() -> ExitCode {
    let mut options = ServeOptions { socket: PathBuf::new(), idle: IDLE, limit: None };
    let mut words = std::env::args().skip(1);
    while let (Some(word), Some(value)) = (words.next(), words.next()) {
        match word.as_str() {
            "--socket" => options.socket = value.into(),
            "--idle-ms" => options.idle = Duration::from_millis(value.parse().unwrap_or_default()),
            "--limit" => options.limit = value.parse().ok(),
            _ => return ExitCode::from(2),
        }
    }
    if serve(&options).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
