//! The command line: clap types only, so that help, completions and man pages need no engine.
