//! Stands in for `portolan up` in the tests of this crate, to be killed: opens the ports in a folder, leases what it is
//! told, says `leased` with each lease as JSON, and waits.
//!
//! `up FOLDER HOLDER [INSTANCE OWNER_PID SPEC]...`

use std::{io::Write as _, path::PathBuf};

use portolan_ports::{HolderMode, LeaseRequest, Network, Pools, Ports, PortsConfig, owner};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [folder, holder, rest @ ..] = words.as_slice() else { return Err("up FOLDER HOLDER …".into()) };
    let (mut ports, _) = Ports::open(PortsConfig {
        folder: PathBuf::from(folder),
        pools: Pools::default(),
        holder: HolderMode::Spawn { program: PathBuf::from(holder), args: Vec::new() },
        holder_socket: None,
        reserved_ports: Some(portolan_ports::reserve::PATH.into()),
        patience: std::time::Duration::ZERO,
        durable: true,
    })?;
    let mut output = std::io::stdout();
    for lease in rest.chunks(3) {
        let [instance, owner, spec] = lease else { return Err("INSTANCE OWNER_PID SPEC".into()) };
        let lease = ports.lease(LeaseRequest {
            instance: instance.parse()?,
            incarnation: "1".parse()?,
            owner: owner::process(owner.parse()?).ok_or("no such process")?,
            requests: vec![spec.parse()?],
            network: Network::Own,
            v4: None,
            v6: None,
            local: Vec::new(),
            attachment: None,
        })?;
        writeln!(output, "leased {}", serde_json::to_string(&lease)?)?;
    }
    writeln!(output, "waiting")?;
    output.flush()?;
    loop {
        std::thread::park();
    }
}
