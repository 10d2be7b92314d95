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
    let (mut over, mut proxy, mut verbosity) = (false, false, false);
    let mut rewritten = Vec::new();
    for argument in arguments {
        over |= argument == "--";
        if over {
            rewritten.push(argument);
            continue;
        }
        if proxy {
            let text = argument.to_str();
            // `-v 2`: what follows is a number only where it is a level.
            if let Some(level) = text.filter(|_| std::mem::take(&mut verbosity)).and_then(level) {
                rewritten.pop();
                rewritten.push(level.into());
                continue;
            }
            verbosity = matches!(text, Some("-v" | "--v"));
            let value = text.and_then(|text| text.strip_prefix("--v=").or_else(|| text.strip_prefix("-v=")));
            if let Some(level) = value.and_then(level) {
                rewritten.push(level.into());
                continue;
            }
            if let Some(format) = text.and_then(|text| text.strip_prefix("--logging-format=")) {
                rewritten.push(format!("--log-format={format}").into());
                continue;
            }
        } else if flags.is_empty() {
            match argument.to_str() {
                Some("serve") => flags = SERVER,
                Some("registry") => flags = REGISTRY,
                Some("proxy") => proxy = true,
                _ => {}
            }
        }
        rewritten.push(double_dash(&argument, flags).unwrap_or(argument));
    }
    rewritten
}

/// klog's level of kube-proxy's `-v` as a level of ours: people run it with 2 to see what happens.
fn level(number: &str) -> Option<&'static str> {
    match number.parse::<i32>().ok()? {
        ..4 => Some("--log-level=info"),
        4..6 => Some("--log-level=debug"),
        6.. => Some("--log-level=trace"),
    }
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
    fn kube_proxys_levels_are_ours() {
        for (line, expected) in [
            ("portolan proxy -v=2 --config x", "portolan proxy --log-level=info --config x"),
            ("portolan proxy --v=4", "portolan proxy --log-level=debug"),
            ("portolan proxy -v 6 --master y", "portolan proxy --log-level=trace --master y"),
            ("portolan proxy -v status", "portolan proxy -v status"),
            ("portolan proxy --logging-format=json", "portolan proxy --log-format=json"),
            ("portolan run -v=2", "portolan run -v=2"),
        ] {
            assert_eq!(rewritten(line), expected, "{line}");
        }
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
