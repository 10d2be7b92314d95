//! Completions and man pages, made from the same types as the help.

use std::io;

use clap_complete::Shell;

/// A man page.
pub struct Page {
    /// Its file's name, such as `portolan-run.1`.
    pub file: String,
    /// In roff.
    pub text: Vec<u8>,
}

/// What a shell sources to complete `portolan`.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut crate::command(), "portolan", &mut text);
    text
}

/// The page of `portolan` first, then one for each verb that is not hidden.
pub fn man() -> io::Result<Vec<Page>> {
    let mut command = crate::command();
    command.build();
    let mut pages = vec![page(command.clone(), "portolan".to_owned())?];
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        pages.push(page(verb.clone(), format!("portolan-{}", verb.get_name()))?);
    }
    Ok(pages)
}

fn page(command: clap::Command, name: String) -> io::Result<Page> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.name(name.clone())).render(&mut text)?;
    Ok(Page { file: format!("{name}.1"), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page_and_the_hidden_have_none() {
        let files: Vec<_> = man().unwrap().into_iter().map(|page| page.file).collect();
        assert_eq!(files[0], "portolan.1");
        for file in ["portolan-run.1", "portolan-up.1", "portolan-doctor.1"] {
            assert!(files.iter().any(|f| f == file), "{file} in {files:?}");
        }
        assert!(!files.iter().any(|f| f.contains("holder") || f.contains("launch")), "{files:?}");
    }

    #[test]
    fn each_shell_has_completions_that_know_the_verbs() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell, Shell::Elvish] {
            let text = String::from_utf8(completions(shell)).unwrap();
            assert!(text.contains("resolve"), "{shell}");
        }
    }
}
