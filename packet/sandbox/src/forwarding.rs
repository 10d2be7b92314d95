//! Letting this machine forward packets, and putting back what that changed.
//!
//! Three things are less simple than `ip_forward=1` (Documentation/networking/ip-sysctl.rst of the kernel):
//! - Writing it sets `forwarding` of every interface and resets `accept_redirects`; both are remembered.
//! - An IPv6 router does not listen to routers: with `forwarding` on, an interface whose default route comes from
//!   router advertisements (`accept_ra=1`) loses it. `accept_ra=2` keeps it, and has to be set before.
//! - This process may be killed. So the values before are in a file before the first is changed, and whoever opens the
//!   file next takes them over as what is to be restored. A file of another boot or namespace says nothing and is
//!   dropped.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use portolan_netlink::{
    namespace::{Namespace, NamespaceError},
    sysctl::{self, SysctlError},
};
use serde::{Deserialize, Serialize};

const V4: &str = "net/ipv4/ip_forward";
const V4_REDIRECTS: &str = "net/ipv4/conf/all/accept_redirects";
const V6: &str = "net/ipv6/conf/all/forwarding";

/// Why forwarding could not be switched on or put back.
#[derive(Debug, thiserror::Error)]
pub enum ForwardingError {
    /// A setting could not be read or written.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The namespace could not be told.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The values before could not be stored, so nothing was changed.
    #[error("cannot store the forwarding settings as they are in {}: {source}. Nothing was changed", path.display())]
    Store {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Some settings could not be put back; the others were, and the file stays for the next attempt.
    #[error("cannot put back all forwarding settings: {}", .0.join("; "))]
    Restore(Vec<String>),
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Originals {
    /// `/proc/sys/kernel/random/boot_id`: settings do not survive a boot.
    boot: String,
    /// The network namespace whose settings these are.
    namespace: u64,
    /// Setting to value. What forwarding sets for all interfaces comes before what single ones differ in.
    settings: Vec<Setting>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Setting {
    path: String,
    before: String,
    /// What it is while forwarding is on. Somebody who changed it since wants it so: then it is not put back.
    during: String,
}

/// Forwarding is on while there is one. Dropping it changes nothing, as a crash does; [`Forwarding::restore`] puts the
/// settings back.
#[derive(Debug)]
pub struct Forwarding {
    file: PathBuf,
    originals: Originals,
}

impl Forwarding {
    /// Switches forwarding on for both families, in the calling thread's network namespace, after it has stored the
    /// settings as they are in `file`.
    pub fn open(file: &Path) -> Result<Self, ForwardingError> {
        let originals = Originals::now()?;
        let originals = match load(file) {
            Some(earlier) if earlier.same_machine(&originals) => earlier.with_new(originals),
            _ => originals,
        };
        store(file, &originals).map_err(|source| ForwardingError::Store { path: file.to_owned(), source })?;
        let forwarding = Self { file: file.to_owned(), originals };
        if let Err(error) = forwarding.switch_on() {
            return Err(match forwarding.restore() {
                Ok(()) => error,
                Err(again) => ForwardingError::Restore(vec![error.to_string(), again.to_string()]),
            });
        }
        Ok(forwarding)
    }

    /// Router advertisements first, see above.
    fn switch_on(&self) -> Result<(), ForwardingError> {
        let settings = &self.originals.settings;
        let advertisements = settings.iter().filter(|setting| setting.path.ends_with("/accept_ra"));
        for Setting { path, before, during } in advertisements.filter(|s| s.before != s.during) {
            match sysctl::write(path, during) {
                // An interface may go at any time.
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error.into()),
                Ok(()) => {
                    tracing::info!(path, before, during, "the interface goes on listening to its router")
                }
            }
        }
        for path in [V4, V6] {
            if settings.iter().any(|setting| setting.path == path) && sysctl::read(path)? != "1" {
                sysctl::write(path, "1")?;
                tracing::info!(path, "forwarding is on");
            }
        }
        Ok(())
    }

    /// Puts every setting back that still is as it was made here, and removes the file. Goes on after a failure and
    /// reports all.
    pub fn restore(self) -> Result<(), ForwardingError> {
        let mut failures = Vec::new();
        // All is read before anything is written, since writing what counts for all overwrites the rest.
        let targets: Vec<_> = self.originals.settings.iter().map(Setting::target).collect();
        for (Setting { path, .. }, target) in self.originals.settings.iter().zip(targets) {
            let result = target.and_then(|target| {
                if sysctl::read(path)? == target { Ok(()) } else { sysctl::write(path, &target) }
            });
            failures.extend(result.err().filter(|error| !error.is_absent()).map(|error| error.to_string()));
        }
        if !failures.is_empty() {
            return Err(ForwardingError::Restore(failures));
        }
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ForwardingError::Restore(vec![format!("removing {}: {error}", self.file.display())]))
            }
            _ => Ok(()),
        }
    }
}

impl Setting {
    /// What it has to be after forwarding: as before, unless somebody else has changed it.
    fn target(&self) -> Result<String, SysctlError> {
        sysctl::read(&self.path).map(|now| if now == self.during { self.before.clone() } else { now })
    }
}

impl Originals {
    /// The settings as they are, with what they become.
    fn now() -> Result<Self, ForwardingError> {
        let mut settings = Vec::new();
        let mut add = |path: &str, during: Option<&str>| -> Result<String, ForwardingError> {
            let before = sysctl::read(path)?;
            let during = during.unwrap_or(&before).to_owned();
            settings.push(Setting { path: path.to_owned(), before: before.clone(), during });
            Ok(before)
        };
        // Both in the order in which they are to be put back: what counts for all first, as it overwrites the rest.
        let on = add(V4, Some("1"))? == "1";
        if !on {
            // `inet_forward_change` of net/ipv4/devinet.c: a router accepts no redirects, a host does.
            add(V4_REDIRECTS, Some("0"))?;
            for interface in sysctl::list("net/ipv4/conf")?.iter().filter(|name| *name != "all") {
                add(&format!("net/ipv4/conf/{interface}/forwarding"), Some("1"))?;
            }
        }
        if Path::new("/proc/sys/net/ipv6").exists() {
            let on = add(V6, Some("1"))? == "1";
            for interface in sysctl::list("net/ipv6/conf")?.iter().filter(|name| !on && *name != "all") {
                add(&format!("net/ipv6/conf/{interface}/forwarding"), Some("1"))?;
                let path = format!("net/ipv6/conf/{interface}/accept_ra");
                if interface != "default" && interface != "lo" && sysctl::read(&path)? == "1" {
                    add(&path, Some("2"))?;
                }
            }
        }
        Ok(Self {
            boot: sysctl::read("kernel/random/boot_id")?,
            namespace: Namespace::current()?.inode(),
            settings,
        })
    }

    fn same_machine(&self, other: &Self) -> bool {
        (&self.boot, self.namespace) == (&other.boot, other.namespace)
    }

    /// What was stored earlier counts; of what is now, only that which was not there then.
    fn with_new(mut self, now: Self) -> Self {
        let known: BTreeMap<_, _> = self.settings.iter().map(|s| (s.path.clone(), ())).collect();
        self.settings.extend(now.settings.into_iter().filter(|setting| !known.contains_key(&setting.path)));
        self
    }
}

/// What the file says; `None` when there is none or it cannot be understood.
fn load(file: &Path) -> Option<Originals> {
    let text = fs::read(file).ok()?;
    serde_json::from_slice(&text)
        .inspect_err(
            |error| tracing::warn!(file = %file.display(), %error, "the stored settings cannot be read"),
        )
        .ok()
}

/// Writes the file so that after a power cut there is the old one or the new one.
fn store(file: &Path, originals: &Originals) -> io::Result<()> {
    let partial = file.with_extension("tmp");
    let mut output = File::create(&partial)?;
    output.write_all(&serde_json::to_vec_pretty(originals)?)?;
    output.sync_all()?;
    fs::rename(&partial, file)
}
