# What can be done with this tree. `make` alone explains it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Static binaries: what the images hold is what the tests run.
TARGET := $(shell uname -m)-unknown-linux-musl
OUT := $(or $(CARGO_TARGET_DIR),target)/$(TARGET)
# One profile, one target and one set of packages for everything that contains the EC2 SDK: cargo then unifies features
# the same way each time, and the SDK (minutes and gigabytes of rustc) is compiled once.
FLAGS := --release --target $(TARGET) --workspace
NEEDS := tests/e2e/tools/require.sh
# Where tests/e2e/tools/install.sh puts the programs of the cluster.
BIN := $(or $(ENIPOOL_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/enipool)/bin

##@ First
.PHONY: help
help: ## Explain the targets
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } /^[a-z0-9-]+:.*## / { printf "  \033[36m%-18s\033[0m %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
.PHONY: demo
demo: needs-cluster tools build ## Bring up a real cluster on simulated EC2 and show what enipool does; it stays up (CI=1: tear it down)
	@$(OUT)/release/demo up $(if $(CI),--once)
.PHONY: demo-down
demo-down: ## End the demo's cluster, and sweep what crashed runs left
	@if [ -x $(OUT)/release/demo ]; then $(OUT)/release/demo down; else echo "nothing was ever started from this tree: $(OUT)/release/demo is not built"; fi
.PHONY: test
test: needs ## All tests: unit and property, network namespaces, simulator against boto3, end to end; without root what it can
	@.ci/test

##@ Build
.PHONY: check-needs
check-needs: ## Say what is missing on this machine, and how to install it
	@$(NEEDS)
.PHONY: needs
needs:
	@$(NEEDS) --install
.PHONY: needs-cluster
needs-cluster:
	@$(NEEDS) --install build cluster
.PHONY: tools
tools: ## Build Kubernetes, etcd, containerd and helm into a cache outside the tree (some 10 minutes, once; TOOLS=… for a few)
	@tests/e2e/tools/install.sh $(TOOLS) >/dev/null
.PHONY: build
build: ## Build all binaries; the plugin once more in its own small profile
	@ls $(OUT)/release/deps/libaws_sdk_ec2-*.rlib >/dev/null 2>&1 || echo "building enipool for the first time: some 10 minutes on two cores, most of them one crate, aws-sdk-ec2"
	cargo build $(FLAGS)
	cargo build --profile shim --target $(TARGET) -p enipool-cni
.PHONY: images
images: build ## Build the container images (OCI archives for `ctr images import`) without a Docker engine: target/images
	@$(OUT)/release/images target/images
.PHONY: generate
generate: ## Write the generated files anew: CRDs, the tables of docs/metrics.md, and the manifest of the chart
	cargo run $(filter-out --workspace,$(FLAGS)) -q -p enipool-crds --bin crdgen
	ENIPOOL_WRITE_DOCS=1 cargo test $(FLAGS) -q --lib -- the_page_of_metrics
	$(MAKE) manifest
.PHONY: pictures
pictures: ## Draw the dashboards anew: docs/images, from recorded series held by a real Prometheus (RECORDING=… for others)
	@$(NEEDS) --install wire programs
	@tests/e2e/tools/install.sh prometheus >/dev/null
	@PATH=$(BIN):$$PATH $$(.ci/python-env dashboards deploy/tests/requirements.txt) deploy/tests/draw.py $(RECORDING)
.PHONY: manifest
manifest: ## Write deploy/enipool.yaml anew: the chart as one manifest (needs `make tools`)
	@PATH=$(BIN):$$PATH deploy/helm/manifest.sh
.PHONY: clean
clean: ## Remove what was built here; the cache of tools stays
	cargo clean

##@ Check
.PHONY: lint
lint: ## Formatting and clippy, warnings refused
	cargo fmt --all --check
	cargo clippy $(FLAGS) --all-targets -- -D warnings
.PHONY: lint-quick
lint-quick: ## The same without what waits for the EC2 SDK, which clippy would compile once more: all but `cloud` and two main.rs
	cargo fmt --all --check
	cargo clippy $(FLAGS) --exclude enipool-cloud --no-default-features --all-targets -- -D warnings
.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all
.PHONY: check-boundaries
check-boundaries: ## Fail when a crate depends on what it must not (DESIGN: the domain is pure, only `cloud` knows AWS)
	@.ci/boundaries
.PHONY: check-scripts
check-scripts: ## Try the scripts that stand before all tests on machines that lack something
	@.ci/check-scripts
.PHONY: check-plugin-size
check-plugin-size: ## Fail when the CNI plugin outgrows 600 kB: it is started for every pod
	@size=$$(stat -c %s $(OUT)/shim/enipool-cni); echo "enipool-cni: $$size bytes"; test "$$size" -lt 600000
.PHONY: verify-generated
verify-generated: ## Fail when the CRDs are not what the Rust types say
	@cargo run $(filter-out --workspace,$(FLAGS)) -q -p enipool-crds --bin crdgen -- --check
.PHONY: helm-lint
helm-lint: ## Check the chart: what values make of it, what it refuses, its rendering (needs `make tools`)
	@PATH=$(BIN):$$PATH deploy/helm/check.sh
.PHONY: test-chart
test-chart: build ## The same, and what a real API server says to the chart and to deploy/enipool.yaml (dry runs)
	@tests/e2e/tools/install.sh api-server helm >/dev/null
	@PATH=$(BIN):$$PATH $(OUT)/release/cluster api-server -- deploy/helm/check.sh
.PHONY: deny
deny: ## Licences and sources of all dependencies (needs cargo-deny)
	cargo deny check licenses bans sources

##@ Test
.PHONY: test-unit
test-unit: ## Unit and property tests of all crates; network namespace tests too when root
	cargo test $(FLAGS)
.PHONY: test-netns
test-netns: ## Tests in network namespaces: dataplane and VPC fabric (root)
	cargo test $(FLAGS) --test 'netns_*' --test fabric
	cargo test $(FLAGS) --lib fabric::
.PHONY: test-wire
test-wire: build ## The simulator's answers, checked with boto3 and against moto
	EC2_SIM_BIN=$(abspath $(OUT))/release/ec2-sim ec2-sim/tests/wire/run.sh
.PHONY: test-dashboards
test-dashboards: ## Dashboards, alarms and alerts: their names and runbook, alerts under promtool, the stack in moto
	@$(NEEDS) --install wire programs
	@tests/e2e/tools/install.sh promtool >/dev/null
	@PATH=$(BIN):$$PATH deploy/tests/run.sh
.PHONY: test-api-server
test-api-server: build ## The operator against a real API server, which is started for it
	@$(NEEDS) --install programs
	@tests/e2e/tools/install.sh api-server >/dev/null
	cargo test $(FLAGS) --test apiserver --no-run
	$(OUT)/release/cluster api-server -- cargo test $(FLAGS) --test apiserver -- --ignored
.PHONY: test-cloudwatch
test-cloudwatch: build ## The operator sends the cluster's metrics to moto, and boto3 reads them (a real API server is started for it)
	@$(NEEDS) --install programs wire
	@tests/e2e/tools/install.sh api-server >/dev/null
	EC2_SIM_BIN=$(abspath $(OUT))/release/ec2-sim OPERATOR_BIN=$(abspath $(OUT))/release/enipool-operator PATH=$(BIN):$$PATH \
		$(OUT)/release/cluster api-server -- operator/tests/cloudwatch/run.sh
.PHONY: test-harness
test-harness: needs-cluster tools build ## The cluster harness itself, and the plugin under the reference runtime (root)
	cargo test $(FLAGS) --test harness --test cni -- --ignored
.PHONY: test-e2e
test-e2e: needs-cluster tools build ## Scenarios on a real cluster (root)
	@$(OUT)/release/scenarios $(SCENARIO)
.PHONY: soak
soak: ## The planners over new random histories, then 100,000 of a node with faults and crashes at any step, in virtual time (HISTORIES=…)
	PROPTEST_CASES=$$(( $(or $(HISTORIES),100000) / 5 )) cargo test $(FLAGS) --lib -- node::tests::properties
	PROPTEST_CASES=$$(( $(or $(HISTORIES),100000) / 50 )) cargo test $(FLAGS) --lib -- fleet::together
	ENIPOOL_SOAK_HISTORIES=$(or $(HISTORIES),100000) cargo test $(FLAGS) --test soak -- --nocapture
.PHONY: bench-cni
bench-cni: needs-cluster tools build ## Time of ADD and DEL, side by side with the reference plugins; fails when a goal is missed (root; TOLERATE=1: only show)
	@$(OUT)/release/bench-cni $(if $(TOLERATE),--tolerate)
