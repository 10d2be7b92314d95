//! Builds a recipe with Go, into a folder beside its place in the cache, which is then renamed.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Recipe, Say, on_path};
use crate::command;

/// The oldest Go that builds everything here.
const GO: (u32, u32) = (1, 26);
/// How often a build that goes on says so.
const REMINDER: Duration = Duration::from_secs(30);

/// Builds `recipe` into `folder` unless it is there. Two of us at once: the second waits and finds it.
pub(super) fn build(recipe: &Recipe, folder: &Path, say: Say<'_>) -> Result<()> {
    let done = || recipe.programs.iter().all(|program| folder.join(program).is_file());
    if done() {
        return Ok(());
    }
    let go = go()?;
    let above = folder.parent().context("the cache has a folder for tools")?;
    fs::create_dir_all(above).with_context(|| format!("cannot make {}", above.display()))?;
    let lock = File::create(above.join(format!(".{}.lock", recipe.name))).context("cannot write a lock")?;
    if lock.try_lock().is_err() {
        say(&format!("another process builds {}: waiting for it", recipe.name));
        lock.lock().context("cannot wait for a lock")?;
        if done() {
            return Ok(());
        }
    }
    let started = Instant::now();
    say(&format!(
        "building {} {}: {} (up to {} minutes on two cores, once)",
        recipe.name,
        recipe.version,
        recipe.programs.join(", "),
        recipe.minutes
    ));
    let work = above.join(format!(".{}-building", recipe.name));
    let _ = fs::remove_dir_all(&work);
    let out = work.join("out");
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    write_module(recipe, &go, &work)?;

    let mut command = go_command(&go, &work);
    if recipe.test {
        command.args(["test", "-c", "-trimpath", "-ldflags", recipe.flags, "-o"]);
        command.arg(out.join(recipe.programs[0])).arg(recipe.packages[0]);
    } else {
        command.args(["build", "-trimpath", "-ldflags", recipe.flags]);
        if !recipe.tags.is_empty() {
            command.args(["-tags", recipe.tags]);
        }
        // With a slash at its end it is a folder to Go.
        command.arg("-o").arg(format!("{}/", out.display())).args(recipe.packages);
    }
    watch(&mut command, recipe.name, started, say)?;
    let _ = fs::remove_dir_all(folder);
    fs::rename(&out, folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let _ = fs::remove_dir_all(&work);
    if !done() {
        bail!("go built {} without all of {}", recipe.name, recipe.programs.join(", "));
    }
    say(&format!("built {} {} in {} s", recipe.name, recipe.version, started.elapsed().as_secs()));
    Ok(())
}

/// A module that needs the recipe's; for Kubernetes, with its staging modules replaced by the published ones.
fn write_module(recipe: &Recipe, go: &Path, work: &Path) -> Result<()> {
    let (module, version) = (recipe.module, recipe.version);
    let mut text = format!("module tools\n\ngo {}.{}\n\nrequire {module} v{version}\n", GO.0, GO.1);
    if let Some(staging) = recipe.staging() {
        let mut command = go_command(go, work);
        command.env("GO111MODULE", "on").args(["mod", "download", "-json", &format!("{module}@v{version}")]);
        let answer: Value = serde_json::from_str(&command::run(&mut command)?).context("go says no JSON")?;
        let manifest = answer["GoMod"].as_str().context("go names no go.mod")?;
        let manifest = fs::read_to_string(manifest).with_context(|| format!("cannot read {manifest}"))?;
        // Those that its own go.mod takes from ./staging, and only those: others have versions of their own.
        for line in manifest.lines() {
            if let Some((name, target)) = line.trim().trim_start_matches("replace ").split_once(" => ")
                && target.starts_with("./staging")
            {
                text += &format!("replace {name} => {name} {staging}\n");
            }
        }
    }
    fs::write(work.join("go.mod"), text).context("cannot write go.mod")?;
    let mut packages: Vec<&str> = recipe.packages.iter().chain(recipe.beside).copied().collect();
    packages.sort_unstable();
    let imports: String = packages.iter().map(|package| format!("\t_ \"{package}\"\n")).collect();
    fs::write(work.join("tools.go"), format!("//go:build tools\n\npackage tools\n\nimport (\n{imports})\n"))
        .context("cannot write tools.go")?;
    command::run(go_command(go, work).args(["mod", "tidy"])).map(|_| ())
}

fn go_command(go: &Path, work: &Path) -> Command {
    let mut command = Command::new(go);
    command.current_dir(work).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod").env("GOTOOLCHAIN", "local");
    command
}

/// Runs a build, and says from time to time that it goes on.
fn watch(command: &mut Command, name: &str, started: Instant, say: Say<'_>) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command::shown(command)))?;
    let errors = child.stderr.take().context("stderr is piped")?;
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(errors).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let mut last = Vec::new();
    loop {
        match lines.recv_timeout(REMINDER) {
            Ok(line) => last.push(line),
            Err(RecvTimeoutError::Timeout) => {
                say(&format!("building {name}: {} s", started.elapsed().as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().context("cannot wait for go")?;
    if !status.success() {
        let from = last.len().saturating_sub(20);
        bail!("go ended with {status}:\n{}", last[from..].join("\n"));
    }
    Ok(())
}

/// Go, when it is new enough.
fn go() -> Result<PathBuf> {
    let what = format!("install Go {}.{} or newer from https://go.dev/dl/ into /usr/local/go", GO.0, GO.1);
    let Some(go) = on_path("go") else { bail!("the programs of a cluster are built with Go: {what}") };
    let said = command::run(Command::new(&go).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local"))?;
    let mut numbers = said.trim().trim_start_matches("go").split('.').map(|number| number.parse::<u32>());
    let version = (numbers.next().and_then(Result::ok), numbers.next().and_then(Result::ok));
    match version {
        (Some(major), Some(minor)) if (major, minor) >= GO => Ok(go),
        _ => bail!("{} is {}, and older than what is needed: {what}", go.display(), said.trim()),
    }
}

/// Compiles the pause program into the cache unless it is there.
pub(super) fn pause(cache: &Path) -> Result<PathBuf> {
    let source = include_str!("../pause.c");
    let hash: String = Sha256::digest(source).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let folder = cache.join("tools").join(format!("pause-{hash}"));
    let program = folder.join("pause");
    if program.is_file() {
        return Ok(program);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let name = format!("building-{}", std::process::id());
    let (text, made) = (folder.join(format!("{name}.c")), folder.join(name));
    fs::write(&text, source).with_context(|| format!("cannot write {}", text.display()))?;
    command::run(Command::new("cc").args(["-static", "-Os", "-s", "-o"]).arg(&made).arg(&text))?;
    let _ = fs::remove_file(&text);
    fs::rename(&made, &program).with_context(|| format!("cannot make {}", program.display()))?;
    Ok(program)
}
