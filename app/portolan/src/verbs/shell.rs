//! `portolan completions` and `portolan man`: the command line, told to shells and to `man`.

use std::{io::Write, process::ExitCode};

use anyhow::Context;
use portolan_cli::{CompletionsArgs, ManArgs, pages};

/// Prints the completions of a shell.
pub(crate) fn completions(args: CompletionsArgs) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(&pages::completions(args.shell))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the man page of `portolan`, or writes one page per verb into a folder.
pub(crate) fn man(args: ManArgs) -> anyhow::Result<ExitCode> {
    let pages = pages::man().context("cannot write the man pages")?;
    let Some(folder) = args.dir else {
        let [first, ..] = pages.as_slice() else { return Ok(ExitCode::SUCCESS) };
        std::io::stdout().write_all(&first.text)?;
        return Ok(ExitCode::SUCCESS);
    };
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    for page in pages {
        let path = folder.join(&page.file);
        std::fs::write(&path, &page.text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
