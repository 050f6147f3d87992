# `make help` lists what there is. The product itself needs only cargo; Python 3.11 is for the tests and the demo.

PYTHON ?= python3.11
TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/farcall/tools
DENY := $(TOOLS)/cargo-deny-0.20.2/bin/cargo-deny
NEXTEST := $(or $(shell command -v cargo-nextest),$(TOOLS)/cargo-nextest-0.9.143/bin/cargo-nextest)
PYTEST = "$$($(PYTHON) tests/environments.py --path tests)" -m pytest -c tests/pytest.ini
STAGE := checks/stage

export CARGO_TERM_COLOR ?= auto

# What `make install` installs, and where. DESTDIR is put before every path, for whoever makes packages.
PREFIX ?= /usr/local
PROFILE ?= dist
# A directory of programs that are built already; empty: they are built as PROFILE says.
BINARIES ?=
BUILT = $(or $(BINARIES),$(or $(CARGO_TARGET_DIR),target)/$(PROFILE:dev=debug))
PROGRAMS := farcall globus-compute-endpoint
# Further names of globus-compute-endpoint, under which it is what upstream's programs of these names are. Another program of
# the name stays as it is.
NAMES := gce globus-compute-diagnostic globus-idm-validator
UNIT = $(DESTDIR)$(PREFIX)/lib/systemd/system/farcall.service
COMPLETIONS = $(DESTDIR)$(PREFIX)/share

.PHONY: help demo build install uninstall portable test test-long check fuzz bench environments unit e2e faults chaos

help: ## what each target does
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 16

demo: ## the main job from nothing: `farcall up`, and the examples through the stock SDK
	@demo/run

build: ## both programs and everything the tests need, in target/debug
	cargo build --workspace --all-targets

install: ## both programs, their completions and the unit for systemd, below PREFIX (/usr/local)
	$(if $(BINARIES),,cargo build --locked --workspace --bins --profile $(PROFILE))
	install -d $(COMPLETIONS)/bash-completion/completions $(COMPLETIONS)/zsh/site-functions $(COMPLETIONS)/fish/vendor_completions.d
	for program in $(PROGRAMS); do \
	  install -D -m 755 $(BUILT)/$$program $(DESTDIR)$(PREFIX)/bin/$$program && \
	  $(BUILT)/$$program completion bash > $(COMPLETIONS)/bash-completion/completions/$$program && \
	  $(BUILT)/$$program completion zsh > $(COMPLETIONS)/zsh/site-functions/_$$program && \
	  $(BUILT)/$$program completion fish > $(COMPLETIONS)/fish/vendor_completions.d/$$program.fish || exit 1; \
	done
	for name in $(NAMES); do \
	  test -e $(DESTDIR)$(PREFIX)/bin/$$name || test -L $(DESTDIR)$(PREFIX)/bin/$$name || ln -s globus-compute-endpoint $(DESTDIR)$(PREFIX)/bin/$$name || exit 1; \
	done
	install -d $(dir $(UNIT))
	sed 's|/usr/local/bin|$(PREFIX)/bin|' docs/farcall.service > $(UNIT)

uninstall: ## removes what `make install` has put below PREFIX
	for program in $(PROGRAMS); do \
	  rm -f $(DESTDIR)$(PREFIX)/bin/$$program $(COMPLETIONS)/bash-completion/completions/$$program \
	    $(COMPLETIONS)/zsh/site-functions/_$$program $(COMPLETIONS)/fish/vendor_completions.d/$$program.fish; \
	done
	for name in $(NAMES); do \
	  test "$$(readlink $(DESTDIR)$(PREFIX)/bin/$$name)" != globus-compute-endpoint || rm -f $(DESTDIR)$(PREFIX)/bin/$$name; \
	done
	rm -f $(UNIT)

# The budgets, in minutes, with the 4 of `make check` in .ci/run, must sum to 34 or less.
test: ## every test but the long ones; needs `make check` beside it to be what CI runs
	@$(STAGE) build 4 $(MAKE) --no-print-directory build
	@$(STAGE) "unit and property" 7 $(MAKE) --no-print-directory unit
	@$(STAGE) environments 2 $(MAKE) --no-print-directory environments
	@$(STAGE) "end to end" 11 $(MAKE) --no-print-directory e2e
	@$(STAGE) faults 6 $(MAKE) --no-print-directory faults

# What touches the store runs a second time, on PostgreSQL.
ON_STORE = package(store) or package(identity) & test(/sign_in/) or package(service) & (kind(test) or test(dispatch))

unit: $(NEXTEST)
	$(NEXTEST) nextest run --workspace
	$(PYTHON) tests/postgres.py -- $(NEXTEST) nextest run --workspace -E '$(ON_STORE)'
	cargo test --workspace --doc --quiet

environments:
	tests/system
	$(PYTHON) tests/postgres.py --install
	$(PYTHON) tests/environments.py

# These tests wait more than they compute: with more of them at a time than cores, both cores are busy.
e2e:
	$(PYTEST) -n 3 --dist loadfile -m "not long" tests --ignore tests/faults --ignore tests/chaos

faults:
	$(PYTEST) -n 4 --dist worksteal -m "not long" tests/chaos tests/faults

chaos: build environments ## everything that can break breaks, for an hour; FARCALL_CHAOS=SEED plays one run
	$(if $(FARCALL_CHAOS),$(PYTEST) -s tests/chaos,$(PYTHON) tests/long.py chaos-1 chaos-2 chaos-3 chaos-upstream)

# The parts: tests/long.py. Each takes at most half an hour.
test-long: build environments ## the tests that take minutes; PART=chaos-1, -2, -3, chaos-upstream, kills, idle-rounds, openapi, postgres, postgres-faults or others; records each run
	$(PYTHON) tests/long.py $(PART)

check: $(DENY) ## formatting, lints, licences, bans, documentation links, and the rules of this repository
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --quiet
	$(DENY) --workspace check licenses bans sources
	$(PYTHON) checks/arrows.py
	$(PYTHON) checks/circles.py
	$(PYTHON) checks/links.py
	$(PYTHON) checks/append_only.py
	$(PYTHON) checks/results.py
	$(PYTHON) checks/conformance.py
	$(PYTHON) checks/log_fields.py
	$(PYTHON) checks/long_runs.py
	$(PYTHON) -m unittest discover --quiet --start-directory checks

$(DENY):
	env -u CARGO_TARGET_DIR cargo install --locked --quiet --version 0.20.2 --root $(TOOLS)/cargo-deny-0.20.2 cargo-deny

$(TOOLS)/cargo-nextest-0.9.143/bin/cargo-nextest:
	env -u CARGO_TARGET_DIR cargo install --locked --quiet --version 0.9.143 --root $(TOOLS)/cargo-nextest-0.9.143 cargo-nextest

ZIGBUILD := $(TOOLS)/cargo-zigbuild-0.23.0
# zig brings the C library's symbols of every version; it comes from PyPI, like everything Python.
portable: ## programs for glibc 2.28 and later (RHEL 8), in target/x86_64-unknown-linux-gnu/dist
	test -x $(ZIGBUILD)/bin/python || $(PYTHON) -m venv $(ZIGBUILD)
	$(ZIGBUILD)/bin/python -m pip install --quiet cargo-zigbuild==0.23.0 ziglang==0.15.2
	PATH="$(ZIGBUILD)/bin:$$PATH" cargo zigbuild --workspace --bins --profile dist --target x86_64-unknown-linux-gnu.2.28
	for program in farcall globus-compute-endpoint; do \
	  $(PYTHON) checks/glibc.py $${CARGO_TARGET_DIR:-target}/x86_64-unknown-linux-gnu/dist/$$program 2.28 || exit 1; \
	done

FUZZ_SECONDS ?= 60
CARGO_FUZZ := $(TOOLS)/cargo-fuzz-0.13.2/bin/cargo-fuzz
# The first directory takes what is found, the others are where it starts from.
FUZZ = mkdir -p corpus/$$target && env -u CARGO_TARGET_DIR RUSTUP_TOOLCHAIN=nightly $(CARGO_FUZZ) fuzz run --fuzz-dir . \
  $$target corpus/$$target seeds/$$target
fuzz: $(CARGO_FUZZ) ## every fuzzing target for FUZZ_SECONDS each; needs a nightly compiler
	cd crates/wire/fuzz && for target in message buffers; do \
	    $(FUZZ) $$(ls -d ../tests/golden/common-* ../tests/golden/endpoint-*) \
	      -- -max_total_time=$(FUZZ_SECONDS) -max_len=65536 -timeout=10 || exit 1; \
	  done
	cd crates/broker/fuzz && for target in frames session; do \
	    $(FUZZ) -- -max_total_time=$(FUZZ_SECONDS) -max_len=16384 -timeout=10 || exit 1; \
	  done
	cd crates/manager/fuzz && for target in mapping mapping_pattern mapping_answer command template schema environment launch restart; do \
	    $(FUZZ) -- -max_total_time=$(FUZZ_SECONDS) -max_len=16384 -timeout=10 || exit 1; \
	  done

$(CARGO_FUZZ):
	env -u CARGO_TARGET_DIR cargo install --locked --quiet --version 0.13.2 --root $(TOOLS)/cargo-fuzz-0.13.2 cargo-fuzz

bench: ## every benchmark, and bench/RESULTS.md anew; `bench/run PART…` runs some; bench/README.md says what they mean
	$(PYTHON) bench/run
