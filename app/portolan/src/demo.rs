//! `portolan demo`: the whole of Portolan at once, with the very code of `up` and `run`, and nothing left behind.

use std::{
    fmt::Write as _,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use portolan_cli::{DemoArgs, Global, Restart};
use portolan_model::{CheckSpec, Instance, Name, Network, PortRequest};
use portolan_registry::Registry;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::broadcast,
};
use tokio_util::sync::CancellationToken;

use crate::{
    output::{
        age,
        paint::Tone,
        table::{Table, plain, toned},
    },
    run::{
        self,
        plan::{Output, RunPlan, names},
    },
    up::{Up, UpConfig},
};

/// The name under which DNS knows all copies.
const SERVICE: &str = "port-server";
/// Ages in the table go on although nothing changes.
const REFRESH: Duration = Duration::from_secs(1);

/// Changes that come together are shown together.
const SETTLE: Duration = Duration::from_millis(200);

/// Runs until Ctrl-C.
pub(crate) async fn main(global: Global, args: DemoArgs) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;

    let folder = DemoFolder::new(&global)?;
    let config = UpConfig::new(&Global { data: Some(folder.path.clone()), ..global }, &args.up)?;
    let network = match args.network {
        Some(portolan_cli::Network::Host) => Network::Host,
        Some(portolan_cli::Network::Own) => Network::Own,
        None if config.dataplane => Network::Own,
        None => Network::Host,
    };
    let plan = plan(&args, network, &folder.path)?;
    // A Ctrl-C that comes meanwhile is heard below: what has begun to start is stopped in order.
    let up = Up::start(&config).await?;
    greet(&config);

    let stop = CancellationToken::new();
    let (signals, _) = broadcast::channel(1);
    let copies = run::supervise(&plan, &folder.path, &signals, &stop);
    tokio::pin!(copies);
    let mut screen = Screen::new();
    let mut changes = up.registry().subscribe();
    let mut interval = tokio::time::interval(REFRESH);
    let mut settled = Box::pin(tokio::time::sleep(Duration::ZERO));
    let mut dirty = false;
    // Whatever ends it, everything is taken down again below.
    let failed = loop {
        tokio::select! {
            ended = &mut copies => break ended.map(|_| ()).err(),
            _ = interrupt.recv() => break None,
            _ = terminate.recv() => break None,
            Ok(()) = changes.changed() => {
                settled.as_mut().reset(tokio::time::Instant::now() + SETTLE);
                dirty = true;
            }
            () = &mut settled, if dirty => {
                screen.show(up.registry());
                dirty = false;
            }
            _ = interval.tick() => screen.refresh(up.registry()),
        }
    };
    if failed.is_none() {
        let _ = writeln!(anstream::stderr(), "\nending: nothing will be left behind");
        stop.cancel();
        copies.await?;
    }
    let failures = up.stop().await;
    for failure in &failures {
        crate::output::problem::print(&anyhow::anyhow!("not cleaned up: {failure}"));
    }
    match failed {
        Some(error) => Err(error),
        None if failures.is_empty() => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::FAILURE),
    }
}

/// Three of our own servers, each with a page on a TCP port and an echo on a UDP port.
fn plan(args: &DemoArgs, network: Network, folder: &Path) -> anyhow::Result<RunPlan> {
    let service: Name = SERVICE.parse()?;
    let ports: Vec<PortRequest> = vec!["http".parse()?, "echo/udp".parse()?];
    let check: CheckSpec = "http:/healthz@http,interval=2s,timeout=1s".parse()?;
    Ok(RunPlan {
        names: if args.replicas == 1 { vec![service.clone()] } else { names(&service, args.replicas)? },
        service,
        network,
        ports,
        check: Some(check),
        labels: [("demo".to_owned(), "true".to_owned())].into(),
        restart: Restart::Always,
        socket_activation: false,
        ready_timeout: Duration::ZERO,
        stop_timeout: Duration::from_secs(5),
        program: std::env::current_exe().context("finding this program")?,
        arguments: vec!["serve".into(), "--udp-echo".into()],
        output: Output::Folder(folder.to_owned()),
    })
}

fn greet(config: &UpConfig) {
    let dns = config.dns_listen;
    let lines = [
        format!("page      http://{}/", config.page_listen),
        format!("API       curl http://{}/v1/instances", config.listen),
        format!("names     dig @{} -p {} _http._tcp.{SERVICE}.{} SRV", dns.ip(), dns.port(), config.zone),
        format!("logs      {}/", config.data.display()),
        "          Ctrl-C ends it and leaves nothing behind\n\n".to_owned(),
    ];
    // A closed pipe is no reason to stop the servers.
    let _ = anstream::stdout().write_all(lines.join("\n").as_bytes());
}

/// The table: drawn anew in its place on a terminal; elsewhere printed again only when something other than ages changed.
struct Screen {
    terminal: bool,
    lines: usize,
    last: String,
}

impl Screen {
    fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), lines: 0, last: String::new() }
    }

    /// Something changed.
    fn show(&mut self, registry: &Registry) {
        let snapshot = registry.snapshot();
        let instances: Vec<&Arc<Instance>> = snapshot.iter().collect();
        let facts = instances.iter().fold(String::new(), |mut text, i| {
            let _ = write!(text, "{} {:?} {} {:?};", i.key.name, i.ports, i.state, i.addresses);
            text
        });
        if !self.terminal && facts == self.last {
            return;
        }
        self.last = facts;
        let lines = rows(&instances).lines();
        let mut out = anstream::stdout().lock();
        if self.terminal && self.lines > 0 {
            // Up to the table's first line, and everything from there on cleared (ECMA-48: CPL, ED).
            let _ = write!(out, "\x1b[{}F\x1b[0J", self.lines);
        }
        let end = if self.terminal { "" } else { "\n" };
        // A closed pipe is no reason to stop the servers.
        let _ = writeln!(out, "{}{end}", lines.join("\n")).and_then(|()| out.flush());
        self.lines = lines.len();
    }

    /// Time passed.
    fn refresh(&mut self, registry: &Registry) {
        if self.terminal {
            self.show(registry);
        }
    }
}

/// Instance, node, ports by name, state and age.
fn rows(instances: &[&Arc<Instance>]) -> Table {
    let mut table = Table::new(&["INSTANCE", "NODE", "PORTS", "STATE", "AGE"]);
    for instance in instances {
        table.row([
            plain(instance.key.name.as_str()),
            plain(&*instance.node),
            plain(crate::output::instances::ports(&instance.ports)),
            toned(Tone::from(instance.state), instance.state.as_str()),
            plain(age::since(instance.registered)),
        ]);
    }
    table
}

/// The data folder: the one given, or one of the demo's own that is removed in the end.
struct DemoFolder {
    path: PathBuf,
    own: bool,
}

impl DemoFolder {
    fn new(global: &Global) -> anyhow::Result<Self> {
        if let Some(path) = &global.data {
            return Ok(Self { path: path.clone(), own: false });
        }
        let path = std::env::temp_dir().join(format!("portolan-demo-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("making the data folder {}", path.display()))?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .with_context(|| format!("closing {} to others", path.display()))?;
        Ok(Self { path, own: true })
    }
}

impl Drop for DemoFolder {
    fn drop(&mut self) {
        if self.own
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(folder = %self.path.display(), %error, "cannot remove");
        }
    }
}
