# `make help` lists the tasks.

.DEFAULT_GOAL := help
.PHONY: help demo frontend node run check test test-browser test-rust test-acceptance test-faults oracle jdk fuzz fuzz-short fuzz-api test-deploy deploy-tools release-facts lint format bench bench-instructions bench-peers client client-samples

# Arguments for the tasks that run bpmgate: make run ARGS="--config my.toml"
ARGS ?=

help: ## List the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Try it with nothing else installed: issuer, engine, gateway; with Node.js its page too
	@$(MAKE) --no-print-directory frontend || echo 'warning: the page of the demo was not built' >&2
	cargo run --features demo-app -- demo $(ARGS)

frontend: examples/frontend/dist/index.html ## Build the example frontend, which the demo shows

node:
	@command -v npm >/dev/null && node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || a == 20 && b >= 19 ? 0 : 1)' || { \
	  echo 'error: the page needs Node.js 20.19 or newer, with npm' >&2; exit 1; }

CLIENT := clients/typescript
FRONTEND := examples/frontend
NPM_CI := npm ci --no-audit --no-fund --loglevel=error

$(CLIENT)/dist/index.js: $(wildcard $(CLIENT)/*.json) $(shell find $(CLIENT)/src -type f) | node
	cd $(CLIENT) && $(NPM_CI) && npm run build
	@touch $@

# The crate looks at the folder when this file of it is new.
$(FRONTEND)/dist/index.html: $(CLIENT)/dist/index.js $(FRONTEND)/index.html $(FRONTEND)/vite.config.ts \
		$(wildcard $(FRONTEND)/*.json) $(shell find $(FRONTEND)/src $(FRONTEND)/public -type f)
	cd $(FRONTEND) && $(NPM_CI) && npm run build
	@touch $@ src/demo/page.rs

run: ## Run the gateway with ./config.toml
	cargo run -- serve $(ARGS)

check: ## Check ./config.toml and print what is in effect
	cargo run -- check $(ARGS)

test: jdk node ## Run every test: Rust, a real engine, the TypeScript client, a browser, deployment (needs a JDK 17, Maven, Node.js, Chromium)
	cargo test --all-features
	@$(MAKE) --no-print-directory client test-browser
	@ENGINE=operaton $(MAKE) --no-print-directory test-browser
	@$(MAKE) --no-print-directory test-deploy

test-rust: ## Run the tests that need nothing but Rust
	cargo test

test-acceptance: jdk ## Run the tests against a real engine alone
	cargo test --features acceptance --test engine

SOAK ?= 600

# The second line prints its figures.
test-faults: ## Break the engine, the issuer, clients and the machine; then load and faults for SOAK=600 seconds
	cargo test --test it faults:: -- --skip faults::soak
	SOAK=$(SOAK) cargo test --test it faults::soak -- --nocapture

test-browser: frontend ## Drive the demo in Chromium, before the engine in memory; ENGINE=operaton for a real one
	cargo build --features demo-app
	cd tests/browser && $(NPM_CI) && npm test

BODIES ?= 2000000
SEED ?= 1

oracle: jdk ## Hold random bodies against the engine's own reader: BODIES=2000000 SEED=1
	BODIES=$(BODIES) SEED=$(SEED) cargo test --features acceptance --test oracle -- --nocapture

FUZZ_TARGETS := path token jwks splice matcher
# Sanitizers look for what unsafe code does wrong, and the crate has none. What is found new goes into the
# first directory; the seeds are in the second, which is committed.
FUZZ = mkdir -p fuzz/target/corpus/$(1) && cargo +nightly fuzz run --sanitizer none $(1) \
	  fuzz/target/corpus/$(1) fuzz/corpus/$(1) -- -max_total_time=$(2) -timeout=10

SECONDS ?= 600

fuzz: ## Fuzz each target for SECONDS=600 (needs nightly Rust and cargo-fuzz)
	@set -e; $(foreach target,$(FUZZ_TARGETS),echo 'fuzz $(target)'; $(call FUZZ,$(target),$(SECONDS));)

fuzz-short: ## Fuzz each target for 20 s
	@if ! cargo +nightly fuzz --version >/dev/null 2>&1; then \
	  echo 'warning: nothing is fuzzed, cargo-fuzz or nightly Rust is not installed' >&2; \
	  echo 'hint: rustup toolchain install nightly --profile minimal && cargo install --locked cargo-fuzz' >&2; \
	  exit 0; \
	fi; \
	log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	$(foreach target,$(FUZZ_TARGETS),{ $(call FUZZ,$(target),20); } >"$$log" 2>&1 \
	  || { cat "$$log" >&2; exit 1; }; \
	  echo "fuzz $(target): $$(grep '^Done' "$$log")";) true

EXAMPLES ?= 100

# The version is fixed, as another one finds other things.
fuzz-api: ## Fuzz the workflow API by its OpenAPI document: EXAMPLES=100 SEED=1, ENGINE=URL of a real one
	cargo build
	@test -x target/fuzz-api/bin/schemathesis || { \
	  python3 -m venv target/fuzz-api && target/fuzz-api/bin/pip install -q schemathesis==4.32.5; }
	ENGINE=$(ENGINE) target/fuzz-api/bin/python tests/api/fuzz.py target/debug/bpmgate $(EXAMPLES) $(SEED)

TOOLS := target/tools
# `go install` into our own folder; the versions are fixed, as others find other things.
GO_INSTALL := GOBIN=$(CURDIR)/$(TOOLS) go install
DEPLOY_TOOLS := helm compose-spec actionlint promtool

deploy-tools: ## Build what test-deploy needs into target/tools (needs Go and Python; promtool is Debian's `prometheus`)
	@command -v go >/dev/null || { echo 'error: helm is built from its source, which needs Go 1.26 or newer' >&2; exit 1; }
	@test -x $(TOOLS)/helm || command -v helm >/dev/null || $(GO_INSTALL) helm.sh/helm/v4/cmd/helm@v4.3.1
	@test -x $(TOOLS)/actionlint || $(GO_INSTALL) github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
	@test -x $(TOOLS)/compose-spec || { $(GO_INSTALL) github.com/compose-spec/compose-go/v2/cmd@v2.16.2 && mv $(TOOLS)/cmd $(TOOLS)/compose-spec; }
	@test -x $(TOOLS)/venv/bin/python || { \
	  python3 -m venv $(TOOLS)/venv && $(TOOLS)/venv/bin/pip install -q kubernetes-validate==1.37.0; }

test-deploy: ## Check image, chart, compose file, systemd unit, alert rules and workflows (needs deploy-tools, promtool)
	@missing=; for tool in $(DEPLOY_TOOLS); do \
	  test -x $(TOOLS)/$$tool || command -v $$tool >/dev/null || missing="$$missing $$tool"; \
	done; \
	test -x $(TOOLS)/venv/bin/python || missing="$$missing kubernetes-validate"; \
	if test -n "$$missing"; then \
	  echo "warning: what is deployed is not tested, there is no$$missing" >&2; \
	  echo 'hint: apt-get install --no-install-recommends prometheus && make deploy-tools' >&2; \
	  test "$$CI" != true; exit $$?; \
	fi; \
	cargo build && cd tests/deploy && ../../$(TOOLS)/venv/bin/python -B -m unittest

release-facts: ## Build the release binary; print its size, libraries, start time and memory
	cargo build --release
	@cd tests/deploy && python3 -B release.py

jdk:
	@command -v mvn >/dev/null && javac -version 2>&1 | awk '{exit !($$1 == "javac" && int($$2) >= 17)}' || { \
	  echo 'error: the tests against a real engine need a JDK 17 or newer (`javac`) and Maven (`mvn`)' >&2; \
	  echo 'hint: on Debian: apt-get install openjdk-17-jdk-headless maven; `make test-rust` needs neither' >&2; \
	  exit 1; }

# What a library user may switch on; the default set is `cli`.
FEATURES := fetch server cli demo-app acceptance

lint: ## Check format, lints, documentation, licences and bans, with each feature set
	cargo fmt --check
	cargo clippy --all-targets --no-default-features -- -D warnings
	@set -e; for feature in $(FEATURES); do \
	  echo "cargo clippy --features $$feature"; \
	  cargo clippy --all-targets --no-default-features --features "$$feature" -- -D warnings; \
	done
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --all-features
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --no-default-features
	@if cargo deny --version >/dev/null 2>&1; then \
	  echo 'cargo deny'; cargo deny --all-features --log-level error check bans licenses sources; \
	else \
	  echo 'warning: licences and bans are not checked, cargo-deny is not installed' >&2; \
	fi

format: ## Format the code
	cargo fmt

bench: ## Run the benches: each layer, and the gateway beside a bare forwarder
	cargo bench --bench layers
	cargo bench --bench gateway

bench-instructions: ## Count the instructions of a request, and compare: BLESS=--bless keeps the counts (needs valgrind)
	@command -v valgrind >/dev/null && command -v gungraun-runner >/dev/null || { \
	  echo 'hint: apt-get install valgrind; cargo install --locked gungraun-runner@0.20.0' >&2; exit 1; }
	cargo bench --bench instructions -- --save-summary=json
	@python3 benches/instructions.py $(BLESS)

bench-peers: ## Measure beside nginx, Envoy, HAProxy, Spring Cloud Gateway, FastAPI: ARGS="--peers nginx --only get"
	bench/peers/run $(ARGS)

client: ## Check, build and test the TypeScript client (needs Node 20 or newer)
	cargo build
	cd clients/typescript && npm ci && npm run check && npm run build && npm test

client-samples: ## Type-check the TypeScript code in the guides
	cd clients/typescript && npm ci && npm run build
	cd clients/typescript/samples && npm ci && npm run check
