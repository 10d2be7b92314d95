//! The `portolan` program: one process type, many verbs. This file only reads the command line and hands over;
//! each verb has a folder or a file of its own here.
//!
//! * a node: [`up`], [`run`], [`holder`], [`launch`], [`demo`]; its [`catalog`] alone: [`registry`];
//! * a server to try it with: [`serve`];
//! * a container runtime's plugin: [`cni`];
//! * questions: [`verbs`], printed by [`output`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agent;
mod catalog;
mod cni;
mod demo;
mod ending;
mod expose;
mod holder;
mod launch;
mod loopback;
mod memory;
mod node;
mod output;
mod proxy;
mod registry;
mod relay;
mod rights;
mod rollout;
mod run;
mod serve;
mod services;
mod trace;
mod up;
mod verbs;
mod webhook;

use std::process::ExitCode;

use anyhow::Context;
use portolan_cli::{Cli, Global, LogFormat, LogLevel, ParseError, Verb};
use portolan_plugin::call;
use portolan_telemetry::logs::{self, Form};

use output::problem;

fn main() -> ExitCode {
    // Where `portolan-cni` was not beside this program, this one is the plugin. Before the command line is read: each
    // start of a container waits for this.
    if call::is_called() {
        return call::main();
    }
    let cli = match portolan_cli::parse() {
        Ok(cli) => cli,
        Err(ParseError::Usage(error)) => error.exit(),
        Err(ParseError::Config(error)) => {
            problem::print(&error.into());
            return ExitCode::from(2);
        }
    };
    output::colors(cli.global.color);
    match start(cli) {
        Ok(code) => code,
        Err(error) if problem::is_closed_stdout(&error) => ExitCode::SUCCESS,
        Err(error) => {
            problem::print(&error);
            ExitCode::FAILURE
        }
    }
}

/// Two verbs become something else and need no runtime: its threads would be in their way.
fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.verb {
        Verb::Holder(args) => holder::main(cli.global, args),
        Verb::Launch(args) => launch::main(cli.global, args),
        verb => {
            log_to_stderr(&cli.global, &verb)?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let done = runtime.block_on(dispatch(cli.global, verb));
            // A blocked name look-up or terminal read must not keep the process from ending.
            runtime.shutdown_background();
            done
        }
    }
}

async fn dispatch(global: Global, verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Demo(args) => demo::main(global, *args).await,
        Verb::Up(args) => up::main(global, *args).await,
        Verb::Registry(args) => registry::main(global, *args).await,
        Verb::Run(args) => run::main(global, *args).await,
        Verb::Serve(args) => serve::main(global, *args).await,
        Verb::List(args) => verbs::list::main(global, args).await,
        Verb::Get(args) => verbs::get::main(global, args).await,
        Verb::Expose(args) => expose::main(global, *args).await,
        Verb::Delete(args) => expose::delete(global, args).await,
        Verb::Relay(args) => relay::main(global, *args).await,
        Verb::Watch(args) => verbs::watch::main(global, args).await,
        Verb::Resolve(args) => verbs::resolve::main(args).await,
        Verb::Ports(args) => verbs::ports::main(global, args).await,
        Verb::Doctor(args) => verbs::doctor::main(global, args).await,
        Verb::Agent(args) => agent::main(global, *args).await,
        Verb::Cni(args) => cni::verb::main(global, args),
        Verb::Proxy(args) => proxy::main(global, *args).await,
        Verb::Trace(args) => trace::main(global, *args).await,
        Verb::Webhook(args) => webhook::main(global, *args).await,
        Verb::Await(args) => rollout::main(global, args).await,
        Verb::Completions(args) => verbs::shell::completions(args),
        Verb::Man(args) => verbs::shell::man(args),
        Verb::Holder(args) => holder::main(global, args),
        Verb::Launch(args) => launch::main(global, args),
    }
}

fn log_to_stderr(global: &Global, verb: &Verb) -> anyhow::Result<()> {
    // The demo's stdout is a live table: what goes well is in it.
    let talks = matches!(
        verb,
        Verb::Up(_)
            | Verb::Await(_)
            | Verb::Registry(_)
            | Verb::Relay(_)
            | Verb::Run(_)
            | Verb::Serve(_)
            | Verb::Agent(_)
            | Verb::Proxy(_)
            | Verb::Webhook(_)
            | Verb::Cni(_)
    );
    let level = global.level(if talks { LogLevel::Info } else { LogLevel::Warn });
    let form = match global.log_format {
        LogFormat::Text => Form::Text,
        LogFormat::Json => Form::Json,
    };
    logs::start(level.as_str(), form, output::stderr_has_color()).context("in the variable PORTOLAN_LOG")
}
