# The front door. Meson does the work; each target below is one line about what it is for.
#
#   make run      from nothing to a first stored message, and it keeps running
#   make test     every test there is, with a count at the end
#
# Python and Meson are Debian's own: another python3 earlier in PATH lacks the packages that scripts/deps installs.
PYTHON   ?= /usr/bin/python3
MESON    ?= /usr/bin/meson
NINJA    ?= ninja
PREFIX   ?= /usr/local
DESTDIR  ?=
BUILD_DIR ?= build
ONCE     ?=
FUZZ_SECONDS ?= 60

RELEASE = -Dbuildtype=debugoptimized -Dhardened=true -Db_pie=true
export PYTHON MESON NINJA ONCE
# What scripts/deps fetched without installing it.
export PATH := $(PATH):$(CURDIR)/.cache/tools/bin

.PHONY: help run build test test-redis check bench fuzz torture prefix install uninstall deps clean
.DEFAULT_GOAL := help

help: ## this overview
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s%s\n", $$1, $$2 }'
	@echo
	@echo "  ONCE=1 ends 'make run' after its first message; SEALPOST_DATA says where it keeps its data (build/run)."
	@echo "  FUZZ_SECONDS=$(FUZZ_SECONDS) for each target of 'make fuzz'; PREFIX=$(PREFIX) and DESTDIR for 'make install'."

run: ## install what is missing, build, start every role, send a first message and read it back
	@scripts/deps run
	@$(MAKE) --no-print-directory build
	@scripts/run-demo

build: $(BUILD_DIR)/build.ninja ## build/sealpost: release, hardened
	@$(NINJA) -C $(BUILD_DIR)

$(BUILD_DIR)/build.ninja:
	@scripts/deps --missing build
	@$(MESON) setup $(BUILD_DIR) $(RELEASE) --prefix $(PREFIX)

test: ## every tier under sanitizers: unit, conformance, corpora, system, sampled torture
	@scripts/deps test
	@$(PYTHON) scripts/run-tests

test-redis: ## every system test once more, with server, proxy and worker apart on Redis
	@scripts/deps test
	@$(PYTHON) scripts/run-tests --redis

check: ## formatting, static analysis, layering, banned functions, every supported build
	@scripts/deps check
	@$(PYTHON) scripts/run-checks

bench: ## measure throughput, latency and memory, against a bare TLS responder and Redis
	@scripts/deps bench
	@$(MAKE) --no-print-directory build
	@scripts/run-bench

fuzz: ## run each fuzz target for FUZZ_SECONDS, starting from its corpus
	@scripts/deps fuzz
	@scripts/run-fuzz $(FUZZ_SECONDS)

torture: ## every fault at every place, hundreds of kills and power cuts; takes hours
	@scripts/deps test
	@$(PYTHON) scripts/run-tests --torture

# The build may have been set up for another PREFIX: `make run` takes the default.
prefix: $(BUILD_DIR)/build.ninja
	@$(MESON) configure $(BUILD_DIR) --prefix $(PREFIX)
	@$(NINJA) -C $(BUILD_DIR) build.ninja

install: prefix ## into PREFIX: program, systemd units, completion, manual, documents
	@$(MAKE) --no-print-directory build
	@$(MESON) install -C $(BUILD_DIR) --no-rebuild $(if $(DESTDIR),--destdir $(DESTDIR))

uninstall: prefix ## take away what 'make install' put into PREFIX
	@scripts/uninstall $(BUILD_DIR) $(DESTDIR)

deps: ## install everything that any target needs
	@scripts/deps build run test check bench fuzz

clean: ## remove what was built, and the demo's data with it
	@rm -rf build build-* .cache
