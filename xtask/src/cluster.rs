//! `cargo xtask cluster`: the command line of the crate in `cluster/`; docs/cluster.md is its manual.

use std::{
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use portolan_cluster::{Cluster, RECIPES, Status, Tools, down, images};

pub(crate) use self::words::Up;
use self::words::{Name, Output, Verb, Words};

mod words;

/// Progress is talk: standard error.
pub(crate) fn say(line: &str) {
    eprintln!("[{line}]");
}

pub(crate) fn run(words: &[&str]) -> Result<ExitCode> {
    let words = match Words::try_parse_from(std::iter::once("cluster").chain(words.iter().copied())) {
        Ok(words) => words,
        Err(error) => {
            error.print()?;
            return Ok(ExitCode::from(if error.use_stderr() { 2 } else { 0 }));
        }
    };
    match words.verb {
        Verb::Up(up) => {
            let cluster = Cluster::up(&up.name.name.clone(), up.options(), &say)?;
            println!("export KUBECONFIG={}", cluster.kubeconfig().display());
        }
        Verb::Down(name) => down(&name.name, &say)?,
        Verb::Status { name, output } => show(&find(&name)?.status()?, output)?,
        Verb::List => Cluster::names().iter().for_each(|name| println!("{name}")),
        Verb::Kubectl { name, arguments } => return become_it(find(&name)?.kubectl_command(&arguments)?),
        Verb::Load { name, images } => load(&find(&name)?, &images)?,
        Verb::Shell { name, place, command } => return become_it(shell(&find(&name)?, &place, command)?),
        Verb::Start { name, program, install, command } => {
            for node in find(&name)?.nodes() {
                node.stop(&program)?;
                if let Some(file) = &install {
                    node.install(file)?;
                }
                node.start(&program, &command)?;
            }
        }
        Verb::Logs { name, log } => return logs(&name, log.as_deref()),
        Verb::Join(name) => println!("node{}", find(&name)?.join(&say)?),
        Verb::Reboot { name, node } => find_node(&find(&name)?, &node)?.reboot()?,
        Verb::With { up, command } => return with(*up, &command),
        Verb::Build { recipes } => {
            let all: Vec<&str> = RECIPES.iter().map(|recipe| recipe.name).collect();
            let chosen: Vec<&str> = recipes.iter().map(String::as_str).collect();
            let tools = Tools::new()?;
            tools.build(if chosen.is_empty() { &all } else { &chosen }, &say)?;
            for recipe in RECIPES.iter().filter(|one| chosen.is_empty() || chosen.contains(&one.name)) {
                println!("{}", tools.folder(recipe).display());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends as the command ends.
fn with(up: Up, command: &[String]) -> Result<ExitCode> {
    let name = up.name.name.clone();
    let found = Cluster::find(&name);
    let ours = found.is_none();
    let cluster = match found {
        Some(cluster) => Ok(cluster),
        None => Cluster::up(&name, up.options(), &say),
    };
    let done = cluster.and_then(|cluster| {
        let mut child = Command::new(&command[0]);
        child.args(&command[1..]).env("KUBECONFIG", cluster.kubeconfig()).env("PORTOLAN_TEST_CLUSTER", &name);
        portolan_cluster::without_package(&mut child)
            .status()
            .with_context(|| format!("cannot start {}", command[0]))
    });
    if ours {
        down(&name, &say)?;
    }
    let code = done?.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

fn find(name: &Name) -> Result<Cluster> {
    let name = &name.name;
    Cluster::find(name)
        .with_context(|| format!("the cluster {name} is not up: cargo xtask cluster up --name {name}"))
}

fn find_node<'a>(cluster: &'a Cluster, name: &str) -> Result<portolan_cluster::Node<'a>> {
    cluster
        .nodes()
        .find(|node| node.name() == name)
        .with_context(|| format!("{} has no {name}", cluster.name()))
}

fn show(status: &Status, output: Output) -> Result<()> {
    if matches!(output, Output::Json) {
        println!("{}", serde_json::to_string_pretty(status)?);
        return Ok(());
    }
    let words = |good: bool, yes: &'static str, no: &'static str| if good { yes } else { no };
    let versions: Vec<String> =
        status.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    println!("name        {}", status.name);
    println!("API server  {} ({})", status.server, words(status.ready, "ready", "not ready"));
    println!("kubeconfig  {}", status.kubeconfig);
    println!("memory      {} MiB", status.memory_bytes >> 20);
    println!("versions    {}", versions.join(", "));
    for node in &status.nodes {
        let state = if node.up { words(node.ready, "ready", "not ready") } else { "down" };
        println!("{:<10}  {:<12} {state}, {} Pods", node.name, node.address, node.pods);
    }
    Ok(())
}

fn load(cluster: &Cluster, images: &[String]) -> Result<()> {
    let tools = Tools::new()?;
    for image in images {
        let archive = match image.as_str() {
            "portolan" => crate::image::build(&crate::root(), "release", None)?,
            "agnhost" => images::agnhost(&tools, &say)?,
            "debian-tools" => images::debian_tools(&tools, &say)?,
            "regression" => images::regression(&tools, &say)?,
            file => PathBuf::from(file),
        };
        cluster.load(&archive)?;
        say(&format!("{} is on every node of {}", archive.display(), cluster.name()));
    }
    Ok(())
}

fn shell(cluster: &Cluster, place: &str, command: Vec<String>) -> Result<Command> {
    let mut enter = match place {
        "client" => cluster.client(),
        "control" => cluster.control(),
        node => find_node(cluster, node)?.nsenter()?,
    };
    match command.is_empty() {
        true => enter.args(["env", &format!("PS1={place}# "), "sh", "-i"]),
        false => enter.args(command),
    };
    Ok(enter)
}

fn logs(name: &Name, log: Option<&str>) -> Result<ExitCode> {
    let cluster = find(name)?;
    let folder = cluster.folder().join("log");
    let Some(log) = log else {
        let mut command = Command::new("ls");
        command.arg("-l").arg(&folder);
        return become_it(command);
    };
    let file = folder.join(format!("{log}.log"));
    if !file.is_file() {
        bail!("there is no {}", file.display());
    }
    let mut command = Command::new("tail");
    command.args(["-n", "100"]).arg(file);
    become_it(command)
}

/// Becomes the command, which so gets our terminal and our signals.
fn become_it(mut command: Command) -> Result<ExitCode> {
    Err(command.exec()).with_context(|| format!("cannot start {}", command.get_program().display()))
}
