//! Whether this node can do it at all, asked before anything is changed.
//!
//! | from Linux | what |
//! | --- | --- |
//! | 5.6 | maps whose keys are several fields of which some are ranges (`nft_set_pipapo`), for blocks on one address |
//! | 6.3 | "delete if it is there" (`destroy`); before, it is found out and then deleted |
//!
//! Everything else that the rules are made of is older. What is compiled in is tried, not guessed.

use anyhow::bail;

use crate::verbs::doctor::kernel::missing;

/// The lowest kernel.
const LOWEST: (u32, u32) = (5, 6);

/// Says what is missing, and where it could come from.
pub(crate) fn kernel() -> anyhow::Result<()> {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    if version(&release).is_some_and(|version| version < LOWEST) {
        let (major, minor) = LOWEST;
        bail!("this node's kernel is Linux {release}: the agent needs {major}.{minor} or a later one");
    }
    let missing = missing();
    if !missing.is_empty() {
        bail!("this node's kernel lacks what ports are published with: {}", missing.join("; "));
    }
    Ok(())
}

/// The first two numbers of a release such as `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_read() {
        for (release, expected) in [
            ("6.18.5", Some((6, 18))),
            ("5.4.0-150-generic", Some((5, 4))),
            ("4.18.0-553.el8_10.x86_64", Some((4, 18))),
            ("6.1-rc3", Some((6, 1))),
            ("strange", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
        assert!(version("5.4.0-150-generic").unwrap() < LOWEST);
    }
}
