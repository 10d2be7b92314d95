//! The original's flags begin with one dash (`-advertised-ip 192.0.2.1`, as Go's `flag` package has it). Clap would
//! read that as a cluster of short flags, so it gets the second dash before.

use std::ffi::{OsStr, OsString};

/// The flags of the tutorial's `dynamic-port-server/main.go`.
const SERVER: &[&str] =
    &["advertised-ip", "service-registry", "register-instance-external-ip", "service-instance-name"];

/// The flags of its `service-registry/main.go`.
const REGISTRY: &[&str] = &["api", "http"];

/// The arguments, with two dashes before each of the original's flags after the verbs `serve` and `registry`.
pub(crate) fn rewrite(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut flags: &[&str] = &[];
    let mut over = false;
    arguments
        .into_iter()
        .map(|argument| {
            over |= argument == "--";
            if over {
                return argument;
            }
            if flags.is_empty() {
                flags = match argument.to_str() {
                    Some("serve") => SERVER,
                    Some("registry") => REGISTRY,
                    _ => &[],
                };
            }
            double_dash(&argument, flags).unwrap_or(argument)
        })
        .collect()
}

fn double_dash(argument: &OsStr, flags: &[&str]) -> Option<OsString> {
    let flag = argument.to_str()?.strip_prefix('-')?;
    let name = flag.split_once('=').map_or(flag, |(name, _)| name);
    flags.contains(&name).then(|| format!("--{flag}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(line: &str) -> String {
        let words = rewrite(line.split(' ').map(OsString::from));
        words.iter().map(|w| w.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_originals_flags_get_a_second_dash() {
        assert_eq!(
            rewritten("portolan serve -advertised-ip 1.2.3.4 -register-instance-external-ip=true -v"),
            "portolan serve --advertised-ip 1.2.3.4 --register-instance-external-ip=true -v"
        );
        assert_eq!(
            rewritten("portolan registry -api=0.0.0.0:10080 -http=0.0.0.0:80 -v"),
            "portolan registry --api=0.0.0.0:10080 --http=0.0.0.0:80 -v"
        );
    }

    #[test]
    fn nothing_else_is_touched() {
        for line in [
            "portolan run -p http -- portolan serve -advertised-ip 1.2.3.4",
            "portolan list -l advertised-ip=x",
            "portolan serve --advertised-ip 1.2.3.4 -advertised-ipx",
            "portolan serve -api=0.0.0.0:10080",
        ] {
            assert_eq!(rewritten(line), line);
        }
    }
}
