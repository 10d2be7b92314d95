//! What is built, in which version, and how.

use sha2::{Digest as _, Sha256};

/// The version of Kubernetes.
pub(crate) const KUBERNETES: &str = "1.36.3";
/// The version of CoreDNS.
pub(crate) const COREDNS: &str = "1.15.0";

/// Linker flags of everything: small, and Kubernetes knows its version (a kubelet without one is refused).
const KUBERNETES_FLAGS: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
    -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36";
const PLAIN_FLAGS: &str = "-s -w";

/// Programs that are built together, from one module.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// What it is called on the command line and in the cache.
    pub name: &'static str,
    /// The module's version, without `v`.
    pub version: &'static str,
    /// The module.
    pub(crate) module: &'static str,
    /// Its main packages.
    pub(crate) packages: &'static [&'static str],
    /// More packages that the module's go.mod must know, so that recipes share one.
    pub(crate) beside: &'static [&'static str],
    /// The programs that come out.
    pub programs: &'static [&'static str],
    /// Build tags.
    pub(crate) tags: &'static str,
    /// Linker flags.
    pub(crate) flags: &'static str,
    /// Whether it is a test binary, of the first package.
    pub(crate) test: bool,
    /// How long it takes on two cores with an empty Go cache.
    pub(crate) minutes: u32,
}

/// Everything that can be built.
pub const RECIPES: &[Recipe] = &[
    Recipe {
        name: "kube",
        version: KUBERNETES,
        module: "k8s.io/kubernetes",
        packages: &[
            "k8s.io/kubernetes/cmd/kube-apiserver",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-scheduler",
            "k8s.io/kubernetes/cmd/kubelet",
            "k8s.io/kubernetes/cmd/kube-proxy",
            "k8s.io/kubernetes/cmd/kubectl",
        ],
        beside: &[],
        programs: &[
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        ],
        tags: "",
        flags: KUBERNETES_FLAGS,
        test: false,
        minutes: 13,
    },
    Recipe {
        name: "node",
        version: "2.4.2",
        module: "github.com/containerd/containerd/v2",
        packages: &[
            "github.com/containerd/containerd/v2/cmd/containerd",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/ctr",
        ],
        beside: &[],
        programs: &["containerd", "containerd-shim-runc-v2", "ctr"],
        tags: "no_btrfs no_devmapper no_zfs",
        flags: PLAIN_FLAGS,
        test: false,
        minutes: 5,
    },
    Recipe {
        name: "cni",
        version: "1.9.1",
        module: "github.com/containernetworking/plugins",
        packages: &[
            "github.com/containernetworking/plugins/plugins/meta/portmap",
            "github.com/containernetworking/plugins/plugins/main/bridge",
            "github.com/containernetworking/plugins/plugins/main/ptp",
            "github.com/containernetworking/plugins/plugins/main/loopback",
            "github.com/containernetworking/plugins/plugins/ipam/host-local",
            "github.com/containernetworking/cni/cnitool",
        ],
        beside: &[],
        programs: &["portmap", "bridge", "ptp", "loopback", "host-local", "cnitool"],
        tags: "",
        flags: PLAIN_FLAGS,
        test: false,
        minutes: 1,
    },
    Recipe {
        name: "dns",
        version: COREDNS,
        module: "github.com/coredns/coredns",
        packages: &["github.com/coredns/coredns"],
        beside: &[],
        programs: &["coredns"],
        tags: "",
        flags: PLAIN_FLAGS,
        test: false,
        minutes: 4,
    },
    Recipe {
        name: "helm",
        version: "3.22.0",
        module: "helm.sh/helm/v3",
        packages: &["helm.sh/helm/v3/cmd/helm"],
        beside: &[],
        programs: &["helm"],
        tags: "",
        flags: PLAIN_FLAGS,
        test: false,
        minutes: 2,
    },
    Recipe {
        name: "agnhost",
        version: KUBERNETES,
        module: "k8s.io/kubernetes",
        packages: &["k8s.io/kubernetes/test/images/agnhost"],
        beside: &["k8s.io/kubernetes/test/e2e"],
        programs: &["agnhost"],
        tags: "",
        flags: KUBERNETES_FLAGS,
        test: false,
        minutes: 7,
    },
    Recipe {
        name: "e2e",
        version: KUBERNETES,
        module: "k8s.io/kubernetes",
        packages: &["k8s.io/kubernetes/test/e2e"],
        beside: &["k8s.io/kubernetes/test/images/agnhost"],
        programs: &["e2e.test"],
        tags: "",
        flags: KUBERNETES_FLAGS,
        test: true,
        minutes: 10,
    },
    // The server of the test for kubernetes#74839, which answers outside of the connection's window.
    Recipe {
        name: "regression",
        version: KUBERNETES,
        module: "k8s.io/kubernetes",
        packages: &["k8s.io/kubernetes/test/images/regression-issue-74839"],
        beside: &[],
        programs: &["regression-issue-74839"],
        tags: "",
        flags: PLAIN_FLAGS,
        test: false,
        minutes: 1,
    },
];

impl Recipe {
    /// Of everything that decides what comes out.
    pub(crate) fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        // The time is for people.
        let decides = Self { minutes: 0, ..*self };
        hasher.update(format!("{decides:?}"));
        hasher.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The major and minor of the staging modules that belong to Kubernetes: 1.36.3 publishes them as 0.36.3.
    pub(crate) fn staging(&self) -> Option<String> {
        let rest = (self.module == "k8s.io/kubernetes").then(|| self.version.strip_prefix("1."))??;
        Some(format!("v0.{rest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_the_flags_too() {
        assert!(KUBERNETES_FLAGS.contains(&format!("gitVersion=v{KUBERNETES} ")));
        let minor = KUBERNETES.split('.').nth(1).unwrap();
        assert!(KUBERNETES_FLAGS.ends_with(&format!("gitMinor={minor}")));
    }

    #[test]
    fn a_program_comes_from_one_recipe() {
        let mut all: Vec<&str> = RECIPES.iter().flat_map(|recipe| recipe.programs).copied().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn the_hash_knows_what_decides() {
        let recipe = RECIPES[0];
        assert_eq!(recipe.hash(), Recipe { minutes: 99, ..recipe }.hash());
        assert_ne!(recipe.hash(), Recipe { tags: "other", ..recipe }.hash());
        assert_eq!(recipe.staging().as_deref(), Some("v0.36.3"));
    }
}
