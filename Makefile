# `make` lists the commands. Each installs what it needs into a virtual environment in .venv: the service alone for `run`,
# the sandbox too for `demo`, the developer's tools too for all others.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SERVICE := $(VENV)/.service
DEMO := $(VENV)/.demo
READY := $(VENV)/.ready
# With the virtual environment's python first on PATH, as supervisord.conf expects it.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help install demo run test simulate chaos check format lock lifecycle audit bench bench-quick clean
.DEFAULT_GOAL := help

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{sub(/:.*/, "", $$1); printf "  make %-12s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; name one with: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is needed; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "Making a virtual environment in $(VENV) …"
	@$(PYTHON) -m venv $(VENV)

# $(call install,WHAT,REQUIREMENT): install with one line for each package, and pip's own words only if it fails.
define install
	@echo "Installing $(1) into $(VENV) …"
	@{ $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --editable '$(2)' 2>&1 || echo FAILED; } | \
	while read -r word name rest; do case "$$word" in \
	  Collecting) echo "  $${name%%[<>=!~;[]*}" ;; \
	  Processing) name="$${name##*/}"; echo "  $${name%%-[0-9]*}" ;; \
	  Installing) if [ "$$name" = collected ]; then echo "  unpacking all of them …"; fi ;; \
	  ERROR:* | error:* | FAILED) echo "$$word $$name $$rest"; if [ "$$word" = FAILED ]; then exit 1; fi ;; \
	esac; done
	@touch $@
endef

$(SERVICE): pyproject.toml | $(BIN)/python
	$(call install,the service,.)

$(DEMO): pyproject.toml | $(BIN)/python
	$(call install,the service and its sandbox (about 200 MB),.[sandbox])
	@touch $(SERVICE)

$(READY): pyproject.toml | $(BIN)/python
	$(call install,the service and the developer's tools (about 560 MB),.[dev])
	@touch $(SERVICE) $(DEMO)

install: $(READY) ## Make the virtual environment with everything

demo: $(DEMO) ## See 2,000 tasks go through the whole pipeline, on stand-ins (KEEP=1: stay up until Ctrl-C)
	@python -m sandbox.demo $(if $(KEEP),--keep) $(if $(TASKS),--tasks $(TASKS))

run: $(SERVICE) ## Run the pipeline against the real settings in .env
	@test -f .env || { echo "There is no .env: cp .env.example .env, and fill it in"; exit 1; }
	@python -m stages check
	@exec supervisord -c supervisord.conf

test: $(READY) ## Run every test, the quick ones first
	@python -m tests

chaos: $(DEMO) ## The pipeline under random faults, judged from outside (MINUTES=2, SEED=any)
	@python -m sandbox.chaos $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

simulate: $(READY) ## The pipeline on a simulated machine, with every fault (SEEDS=0:500, STEPS=10000000)
	@python -m tests.simulator $(if $(SEEDS),--seeds $(SEEDS)) $(if $(STEPS),--steps $(STEPS))

check: $(READY) ## Lint: ruff, mypy --strict, import contracts
	@ruff check .
	@ruff format --check .
	@mypy
	@lint-imports

format: $(READY) ## Put the code into its one format
	@ruff check --fix --quiet . ; ruff format --quiet .

bench: $(READY) ## All benchmarks, minutes each; NAME=… runs one (python -m bench --list names them)
	@python -m bench $(NAME)

lock: $(READY) ## Pin what the container installs, with hashes (requirements.lock), and without (requirements.txt)
	@python -m piptools compile --quiet --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links \
	  --no-emit-trusted-host --no-header --output-file requirements.lock pyproject.toml
	@{ echo "# The versions of requirements.lock without its hashes, for pip install -r requirements.txt. Made by make lock."; \
	  sed -n 's/^\([a-z0-9].*[^ ]\) *\\$$/\1/p' requirements.lock; } > requirements.txt

lifecycle: $(READY) ## Write the life of a task into docs/architecture.md again, from the transition table
	@python -m tests.docs.lifecycle

# --strict: without it, packages that the database does not know would pass. The last line on standard error is
# pip-audit's verdict, or what kept it from one.
audit: $(READY) ## Look for known vulnerabilities in what the container installs (asks pypi.org)
	@{ errors=$$(pip-audit --requirement requirements.lock --require-hashes --disable-pip --strict \
	    --progress-spinner off 2>&1 >&3); status=$$?; } 3>&1; \
	verdict=$$(printf '%s\n' "$$errors" | tail -n 1 | sed 's/^ERROR:[a-z_.]*://'); \
	case "$$verdict" in Found\ * | No\ known\ *) ;; \
	  *) verdict="Not audited, so nothing is known: $$verdict"; status=1 ;; \
	esac; echo "$$verdict"; exit $$status

bench-quick: $(READY) ## The pipeline against a bare script, BullMQ and Celery, and its costs, in 90 seconds
	@python -m bench --quick

clean: ## Remove what the other commands made (not the state in data/)
	rm -rf $(VENV) .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
