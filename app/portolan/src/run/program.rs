//! Finds the program before anything is asked of the node, so that a typing error costs nothing and changes nothing.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

/// Why a program cannot be started. The exit codes are those of POSIX shells.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProgramError {
    /// No such file, on `PATH` or at the path given.
    #[error("the command {0:?} was not found{where_}", where_ = .1)]
    NotFound(OsString, &'static str),
    /// A file, but not one that may be executed.
    #[error("{0:?} is not executable: chmod +x it, or name its interpreter first")]
    NotExecutable(PathBuf),
}

impl ProgramError {
    /// 127 for a command not found, 126 for one that cannot be executed.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound(..) => 127,
            Self::NotExecutable(_) => 126,
        }
    }
}

/// The file that `execvp(3)` would take for `name`: the path itself when it has a slash, else the first on `PATH`.
pub(crate) fn find(name: &OsStr) -> Result<PathBuf, ProgramError> {
    find_on(name, env::var_os("PATH").as_deref())
}

fn find_on(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, ProgramError> {
    if name.as_bytes().contains(&b'/') {
        let file = PathBuf::from(name);
        return match is_executable(&file) {
            Some(true) => Ok(file),
            Some(false) => Err(ProgramError::NotExecutable(file)),
            None => Err(ProgramError::NotFound(name.to_owned(), "")),
        };
    }
    let path = path.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"));
    let files: Vec<_> = env::split_paths(path).map(|folder| folder.join(name)).collect();
    if let Some(file) = files.iter().find(|file| is_executable(file) == Some(true)) {
        return Ok(file.clone());
    }
    match files.into_iter().find(|file| is_executable(file).is_some()) {
        Some(file) => Err(ProgramError::NotExecutable(file)),
        None => Err(ProgramError::NotFound(name.to_owned(), " on PATH")),
    }
}

/// `None` when it is no file at all.
fn is_executable(file: &Path) -> Option<bool> {
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    Some(metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_as_the_shell_would() {
        let folder = tempfile::tempdir().unwrap();
        let (program, text) = (folder.path().join("server"), folder.path().join("notes"));
        std::fs::write(&program, "").unwrap();
        std::fs::write(&text, "").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o644)).unwrap();
        let path = Some(folder.path().as_os_str());

        assert_eq!(find_on(OsStr::new("server"), path), Ok(program.clone()));
        assert_eq!(find_on(program.as_os_str(), path), Ok(program));
        assert_eq!(find_on(OsStr::new("notes"), path).unwrap_err().exit_code(), 126);
        assert_eq!(find_on(OsStr::new("nothing"), path).unwrap_err().exit_code(), 127);
        assert_eq!(find_on(folder.path().as_os_str(), path).unwrap_err().exit_code(), 127);
    }
}
