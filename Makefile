# The one door to every chore; CI goes through it too (.ci/run). `make` alone lists them.
#
# All targets work as root and without; tests that need root say that they are skipped when there is none, and
# fail instead when PORTOLAN_NO_SKIP is set.

CARGO ?= cargo
# The version that deny.toml is written for; installed from source when `cargo deny` is not there.
CARGO_DENY_VERSION = 0.20.2
# Cargo.lock is part of the tree: nothing here may change it.
LOCKED = --locked

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help test lint fmt clippy doc deny layers links advisories bench conformance dist man

help: ## list the chores
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

# A test that waits for ever is ended, and named, instead of the whole run: `timeout` starts each program of tests. On a
# terminal it leaves Ctrl-C to the tests; elsewhere it ends with a program also what that has started.
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p' | tr a-z- A-Z_)
LONGEST = 900
BOUNDED = CARGO_TARGET_$(HOST)_RUNNER="timeout $(if $(CI),,--foreground) --kill-after=10 $(LONGEST)"

# Tests of Kubernetes run on a real cluster of network namespaces, which root can start. Its programs are built from
# their Go modules into a cache outside of this tree (docs/cluster.md): 20 minutes on two cores the first time.
IF_ROOT = [ "$$(id -u)" -ne 0 ] ||
WITH_CLUSTER = $(CARGO) xtask cluster with --name test --nodes 2 --without-portmap --
TEST_CLUSTER = $(CARGO) test $(LOCKED) --package portolan-tests --no-fail-fast
# Those of `make test`; `make conformance` runs all of them.
CLUSTER_TESTS = --test cluster_ports --test cluster_galaxy

# The plain tests come last: what `cargo test` prints at its end is the report.
test: prerequisites lint ## install what is missing where that is allowed, check everything, run every test
	$(CARGO) test $(LOCKED) --workspace --no-fail-fast --doc
	$(CARGO) build $(LOCKED) --package portolan
	@$(IF_ROOT) $(CARGO) xtask cluster build kube node cni dns helm
	$(BOUNDED) PORTOLAN_TEST_CLUSTER=none $(CARGO) test $(LOCKED) --workspace --no-fail-fast --lib --bins --tests
	@$(IF_ROOT) $(CARGO) xtask image --profile dev
	$(IF_ROOT) $(WITH_CLUSTER) env $(BOUNDED) $(TEST_CLUSTER) $(CLUSTER_TESTS)

.PHONY: prerequisites
prerequisites:
	@scripts/prerequisites

lint: fmt clippy doc deny layers links ## formatting, clippy, documentation, dependencies, layers, links

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings

# Broken links between items are warnings of rustdoc.
doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(LOCKED) --workspace --no-deps --document-private-items --quiet

# Licences, duplicate versions and sources need no network once the crates are here.
deny:
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked --version $(CARGO_DENY_VERSION) cargo-deny
	$(CARGO) deny $(LOCKED) check licenses bans sources

layers:
	$(CARGO) xtask layers

links:
	$(CARGO) xtask links

advisories: ## known vulnerabilities of dependencies (downloads the RustSec database)
	$(CARGO) deny $(LOCKED) check advisories

bench: ## measure, and print the tables of docs/benchmarks.md (as root; an hour and a half, each by its name in BENCH)
	$(CARGO) run $(LOCKED) --release --package portolan-benches -- $(BENCH)

conformance: conformance-ports conformance-services ## every test on a cluster, and Kubernetes' own, through our programs (as root; an hour)

.PHONY: conformance-ports conformance-services
conformance-ports: ## those of host ports, with our plugin in the place of portmap
	$(CARGO) xtask image --profile dev
	$(WITH_CLUSTER) $(TEST_CLUSTER) $(addprefix --test cluster_,endpoints faults firewalls galaxy helm media pools ports registry tutorial)
	PROFILE=dev $(CARGO) xtask conformance hostport --without-portmap --hook scripts/install-on-cluster

ON_SERVICES = $(CARGO) xtask cluster with --name services --nodes 2 --without-proxy --hook scripts/proxy-on-cluster --
WITH_PROXY = --set proxy.enabled=true,proxy.apiServer=https://10.240.0.2:6443,proxy.clusterCIDR=10.244.0.0/16
# From what takes seconds to what takes half an hour.
conformance-services: ## those of Services: every question beside kube-proxy, and Kubernetes' own in its place
	$(CARGO) build $(LOCKED) --package portolan
	$(CARGO) test $(LOCKED) --package portolan-nft --test evaluate -- --include-ignored
	$(CARGO) test $(LOCKED) --package portolan-apply --test agrees -- --include-ignored
	$(CARGO) xtask conformance services --without-proxy --hook scripts/proxy-on-cluster
	$(CARGO) test $(LOCKED) --package portolan-tests --test proxy_agrees_with_kube_proxy --test proxy_survives_faults --test proxy_outlives_a_full_table -- --include-ignored --nocapture
	$(CARGO) test $(LOCKED) --package portolan-tests --test proxy_takes_over -- --ignored ours_ the_next_one
	$(CARGO) xtask cluster build helm
	$(CARGO) xtask image --profile dev
	$(ON_SERVICES) $(CARGO) test $(LOCKED) --package portolan-tests --no-fail-fast --test cluster_services --test cluster_service_proxy
	PROFILE=dev $(CARGO) xtask conformance hostport --without-portmap --without-proxy --hook 'scripts/install-on-cluster $(WITH_PROXY)'
	$(CARGO) xtask conformance all-services --jobs 4 --without-proxy --hook scripts/proxy-on-cluster

dist: ## the binaries to ship: portolan and portolan-cni in target/dist, link-time optimised and stripped; the plugin is static
	$(CARGO) build $(LOCKED) --profile dist --package portolan
	$(CARGO) xtask plugin --profile dist

man: ## the man pages, into target/man
	$(CARGO) xtask man
