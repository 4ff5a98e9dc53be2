# make demo         the CO2 demo on the embedded store; STORE=redis for a Redis server it starts itself; CONSOLE=1 keeps its
#                   console open, to look at the sessions
# make example      one of the examples: NAME=stateful_training|token_representations|
#                   steady_state|rare_jumps
# make silero       fetches the wheel of Silero VAD, imports each of its ONNX files, serves them and compares the bits
# make test         every test; installs a Redis server where there is none
# make test-fire    longer variants of tests: chaos, fuzz, overload, soak and others, with fresh seeds
# make triton-clients  installs Triton's and KServe's clients into TRITON_CLIENTS_VENV, which needs Python 3.10 to 3.13;
#                   without, their tests are skipped
# make triton-cases  the same requests to a real Triton and to this service, side by side: writes docs/triton-cases.md
# make console-pictures  the pictures of docs/console.md, made anew in a browser
# make check        style, types, layers, generated code, documentation site
# make dist         the sdist and the wheel of the checked out commit in dist/, built twice and checked
# make check-dist   for each Python from 3.10 to 3.14 that is at hand: installs that wheel and serves from it; and looks
#                   whether pip finds what the tests need in the public index alone: CHECK_ARGS
# make check-redis-py  the tests of the Redis store with the oldest and the newest release of redis-py
# make check-valkey the tests of the Redis store with valkey-server, which must be on the PATH
# make check-triton the tests of the GPU engine's kernels with Triton 3.6.0
# make check-ptx    the same on the PTX that Triton 3.7.1 and 3.6.0 compile for several devices, emulated (an hour): PTX
# make sbom         the CycloneDX bill of what a server from that wheel consists of, in dist/
# make licences     writes docs/licences.md: the licences of what the wheel depends on
# make proto        generates the protobuf code anew, and the pages of docs/reference
# make reference    writes the pages of docs/reference that are made from the code
# make docs         builds the documentation site into out/site; a broken link or anchor fails; needs no network
# make bench        steps a second and latencies, beside Triton, a naive service and the limits of the machine (a
#                   quarter of an hour); BENCH_ARGS chooses parts: bench/README.md
# make bench-triton installs Triton for it into TRITON_VENV; without, the bench goes on with the others
# make bench-stages where a frame spends its microseconds inside the service
# make bench-workers what a second server process on the same port brings
# make bench-million  SESSIONS live sessions in one Redis (1000000), and random steps of them
# make bench-opening  sessions opened a second, many in one call and one by one
# make bench-cores  what a step costs in CPU time, the service's and Redis's
# make bench-watching  what a page that watches a session costs the server
# make bench-one-session  what a batch of one baked into an ONNX graph costs, beside the same graph with a free batch
# make bench-against  these files against an earlier commit, in turns: REV, ROUNDS (5); BENCH_ARGS: bench/README.md
# make bench-gpu    the engine alone on a CUDA device, beside cuDNN
# make bench-gpu-frames  a server on a CUDA device through gRPC frames, beside its engine alone
# make bench-gpu-tiles   whether another tile of its kernels is faster on a CUDA device
# make gpu-check    everything that needs a CUDA device, in six minutes; installs nothing: PYTHON has torch with CUDA
# make gpu-packages the folder .gpu-packages, to be carried to such a machine: what a server needs that is not there
# make bench-report draws out/bench.json into docs/img
# make chaos        servers and a store under fire, and a verdict: SECONDS, SEED, REPLICAS=1..3,
#                   STORE=sqlite|redis|redis-everysec|redis-failover|redis-cluster|redis-sentinel;
#                   CHAOS_ARGS: python -m verification.chaos -h
# make explore      the protocol through interleavings: SECONDS
# make fuzz         hostile messages for every RPC, over HTTP too, hostile bundles: CASES
# make overload     three times the load that the server can bear: SECONDS; OVERLOADS: the loads, each the words of
#                   python -m verification.load.overload
# make attack       half-open calls, slow messages, floods of resets and pings, and what others notice of them: SECONDS
# make soak         half an hour of sessions that come and go: MINUTES, STORE
# make parity       imports 80 models of PyTorch, Keras and ONNX, compares them, writes the table of docs/models.md
# make up           the service, three replicas behind HAProxy on port 50051, with Redis, Prometheus and Grafana, by Docker:
#                   MODEL, REPLICAS, DEVICE=cpu|cuda, COMPOSE_FILES, COMPOSE_PROFILES; docs/deployment.md
# make down         ends that and removes its data
# make scale        changes the number of its replicas to REPLICAS, and leaves those that run alone
# make roll         replaces its replicas one by one: another image, settings or bundle
# make backup       writes a snapshot of its Redis to the file BACKUP while it runs
# make restore      replaces what its Redis holds by the snapshot BACKUP
# make check-compose  brings it up, kills a replica and Redis under a client, compares every output, takes it down
# make clean        removes what the other targets made
#
# PYTHON chooses the interpreter (3.10 to 3.14, with venv); TEST_WORKERS and TEST_ARGS go to pytest. Three workers use two
# cores fully, where two wait for an eighth of the time; with more, tests with short timeouts fail.

SHELL := /bin/bash
EXTRAS := server,torch,demo,dev,docs
PYTHON ?= python3
STORE ?= sqlite
SECONDS ?= 60
OVERLOADS ?= "--store sqlite" "--store memory" "--store sqlite --items 1 --held-back --heavy" \
	"--store memory --items 1 --held-back --heavy" "--store redis --items 1 --held-back --heavy" \
	"--store memory --official" "--store redis --official"
SEED ?=
REPLICAS ?= 2
CASES ?= 100000
MINUTES ?= 30
SESSIONS ?= 1000000
REV ?=
ROUNDS ?= 5
PTX ?= 90,once,late 90,ascending,early 90,truncated,late 80,once,late 75,once,late
NAME ?=
CONSOLE ?=
BENCH_ARGS ?=
CHAOS_ARGS ?=
TRITON_VENV ?= .venv-triton
TRITON_CLIENTS_VENV ?= .venv-triton-clients
DEVICE ?= cpu
BACKUP ?=
# What compose is told in .env counts for `docker compose` and for make alike, so make has no defaults beside it.
COMPOSE_FILES ?= $(if $(wildcard .env),,docker-compose.yml)
COMPOSE_PROFILES ?= $(if $(wildcard .env),,dashboards)
BUILD_ARGS ?=
CHECK_ARGS ?=
TEST_WORKERS ?= 3
# A worker that dies is a failure: xdist would replace it, and then wait for ever.
PARALLEL = -n $(TEST_WORKERS) --dist loadscope --max-worker-restart 0 -p testing.distribution
TEST_ARGS ?=

BIN := .venv/bin
# The plugin where there is one, the older program otherwise; asked only where it is needed.
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
COMPOSE_PROJECT = $(if $(COMPOSE_PROFILES),env COMPOSE_PROFILES=$(COMPOSE_PROFILES)) $(COMPOSE) $(addprefix -f ,$(COMPOSE_FILES))
# compose takes a folder that does not start with / or ./ for the name of a volume.
ifdef MODEL
override export MODEL := $(abspath $(MODEL))
endif
ifdef ACCESS
override export ACCESS := $(abspath $(ACCESS))
endif
IMAGE := cellkeeper:local$(if $(filter cuda,$(DEVICE)),-cuda)

.DEFAULT_GOAL := help
.PHONY: help venv dist check-dist check-redis-py check-valkey check-triton check-ptx sbom licences triton-clients triton-cases demo console-pictures example silero test test-fire check proto check-proto reference docs bench bench-triton bench-stages bench-workers \
	bench-million bench-opening bench-cores bench-watching bench-one-session bench-buckets bench-against bench-gpu bench-gpu-frames bench-gpu-tiles gpu-check \
	gpu-packages bench-report chaos explore fuzz overload attack soak parity up down scale roll backup restore image \
	check-compose clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

venv: .venv/stamp

.venv/stamp: pyproject.toml constraints.txt
	@echo "== .venv: installing (a few minutes the first time)"
	@scripts/make-venv "$(PYTHON)" .venv -e '.[$(EXTRAS)]' -c constraints.txt
	@touch $@

# An old generator on purpose: see docs/adr/003-old-generator.md.
.venv-proto/stamp: Makefile
	@echo "== .venv-proto: installing the protobuf generator"
	@scripts/make-venv "$(PYTHON)" .venv-proto grpcio-tools==1.71.0
	@touch $@

triton-clients:
	@echo "== $(TRITON_CLIENTS_VENV): installing Triton's and KServe's clients"
	@scripts/make-venv "$(PYTHON)" "$(TRITON_CLIENTS_VENV)" 'tritonclient[grpc]==2.73.0' kserve==0.21.0

triton-cases: .venv/stamp
	@$(BIN)/python -m tests.integration.peers --triton-venv "$(TRITON_VENV)" --out docs/triton-cases.md

demo: .venv/stamp
	@if [ "$(STORE)" = redis ]; then scripts/ensure-redis; fi
	@$(BIN)/python -m examples.co2.demo --store "$(STORE)" $(if $(CONSOLE),--console)

example: .venv/stamp
	@test -n "$(NAME)" || { echo "example: which one? NAME=stateful_training, for instance" >&2; exit 1; }
	@$(BIN)/python -m examples.$(NAME)

silero: .venv/stamp
	@test -d .silero/silero_vad || { $(BIN)/pip download --quiet --no-deps --only-binary :all: --dest .silero 'silero-vad>=5.1' \
	  && $(BIN)/python -m zipfile -e .silero/silero_vad-*.whl .silero; }
	@$(BIN)/python -m examples.silero_vad

console-pictures: .venv/stamp
	@scripts/ensure-browser
	@$(BIN)/python -m tests.integration.console --out docs/img/console

# Where an image forbids bytecode files, each of some hundred servers, and each worker, would compile every source again.
test test-fire: export PYTHONDONTWRITEBYTECODE :=

test: .venv/stamp
	@scripts/ensure-redis
	@scripts/ensure-promtool
	@scripts/ensure-browser
	@scripts/ensure-sqlite
	$(BIN)/pytest $(PARALLEL) $(TEST_ARGS)

test-fire: .venv/stamp
	@scripts/ensure-redis
	$(BIN)/pytest -m fire

.venv-release/stamp: pyproject.toml constraints.txt
	@echo "== .venv-release: installing what builds and checks a release"
	@scripts/make-venv "$(PYTHON)" .venv-release build check-wheel-contents cyclonedx-bom hatchling twine -c constraints.txt
	@touch $@

dist: .venv-release/stamp
	@scripts/build-dist .venv-release/bin/python dist

check-dist: .venv/stamp dist
	@$(BIN)/python -m tests.contract.release dist/*.whl --extras "$(EXTRAS)" $(CHECK_ARGS)

# Whatever pyproject.toml allows: the newest may be one that it has to allow next.
check-redis-py: .venv/stamp
	@scripts/ensure-redis
	@for release in redis==6.0.0 redis; do \
		rm -rf out/redis-py && \
		$(BIN)/pip install -qq --disable-pip-version-check --no-deps --target out/redis-py $$release && \
		echo "== $$(ls -d out/redis-py/redis-*.dist-info)" && \
		PYTHONPATH=out/redis-py $(BIN)/pytest $(PARALLEL) \
			tests/contract/store -k redis || exit 1; \
	done

check-valkey: .venv/stamp
	@REDIS_SERVER=valkey-server $(BIN)/pytest $(PARALLEL) \
		tests/contract/store tests/integration/lifecycle/test_wait_replicas.py -k 'redis or replicas'

# constraints.txt has the release that torch 2.13 requires; this is that of torch 2.11. Triton 3.8.0 gives a kernel of LSTMs
# in bfloat16 112 KiB of shared memory, which devices of compute capability 8.6, 8.9 and 12.0 do not have.
check-triton: .venv/stamp
	@rm -rf out/triton
	@$(BIN)/pip install -qq --disable-pip-version-check --no-deps --target out/triton triton==3.6.0
	@PYTHONPATH=out/triton $(BIN)/pytest $(PARALLEL) tests/unit/kernels tests/unit/cuda

# What each of PTX says: tests/unit/kernels/ptx/__init__.py. Compute capability 7.5 has no tensor cores for tf32 and bf16.
check-ptx: .venv/stamp
	@rm -rf out/triton
	@$(BIN)/pip install -qq --disable-pip-version-check --no-deps --target out/triton triton==3.6.0
	@for triton in "" out/triton; do for setting in $(PTX); do \
		echo "== $${triton:-.venv}, $$setting" && \
		PYTHONPATH=$$triton TRITON_CACHE_DIR=out/triton-cache EMULATE_PTX=$$setting $(BIN)/pytest -n $(TEST_WORKERS) \
			--max-worker-restart 0 --timeout 900 tests/unit/kernels/emulated \
			$(patsubst %,tests/unit/kernels/test_%.py,contract inputs large_arena pointwise) $(TEST_ARGS) || exit 1; \
	done; done

sbom: dist
	@scripts/make-sbom "$(PYTHON)" .venv-release/bin/python dist

licences: .venv/stamp
	@$(BIN)/python -m tests.contract.release.licences

check: .venv/stamp check-proto docs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

proto: .venv-proto/stamp
	@scripts/generate-proto .venv-proto/bin/python proto
	@$(MAKE) --no-print-directory reference

check-proto: .venv-proto/stamp
	@scripts/check-proto .venv-proto/bin/python

reference: .venv/stamp
	@$(BIN)/python -m documentation

docs: .venv/stamp
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "out/site/index.html"

bench: .venv/stamp
	@scripts/ensure-redis
	@$(BIN)/python -m bench --triton-venv "$(TRITON_VENV)" $(BENCH_ARGS)

bench-triton:
	@echo "== $(TRITON_VENV): installing Triton (from its wheel) and its client"
	@scripts/make-venv "$(PYTHON)" "$(TRITON_VENV)" nvidia-pytriton 'tritonclient[grpc]' onnxruntime

bench-stages: .venv/stamp
	@scripts/ensure-redis
	@$(BIN)/python -m bench.stages $(BENCH_ARGS)

bench-workers: .venv/stamp
	@scripts/ensure-redis
	@$(BIN)/python -m bench.workers $(BENCH_ARGS)

bench-million: .venv/stamp
	@scripts/ensure-redis
	@$(BIN)/python -m bench.million --sessions "$(SESSIONS)" $(BENCH_ARGS)

bench-opening: .venv/stamp
	@scripts/ensure-redis
	@$(BIN)/python -m bench.opening $(BENCH_ARGS)

bench-cores: .venv/stamp
	@scripts/ensure-redis
	@$(BIN)/python -m bench.cores $(BENCH_ARGS)

bench-watching: .venv/stamp
	@scripts/ensure-redis
	@$(BIN)/python -m bench.watching $(BENCH_ARGS)

bench-one-session: .venv/stamp
	@$(BIN)/python -m bench.one_session $(BENCH_ARGS)

bench-buckets: .venv/stamp
	@scripts/ensure-redis
	@$(BIN)/python -m bench.bucket_commits $(BENCH_ARGS)

bench-against: .venv/stamp
	@test -n "$(REV)" || { echo "bench-against: which commit? REV=HEAD~1, for instance" >&2; exit 1; }
	@scripts/ensure-redis
	@$(BIN)/python -m bench.against "$(REV)" --rounds "$(ROUNDS)" $(BENCH_ARGS)

bench-gpu: .venv/stamp
	@$(BIN)/python -m bench.gpu $(BENCH_ARGS)

bench-gpu-frames: .venv/stamp
	@$(BIN)/python -m bench.gpu_frames $(BENCH_ARGS)

bench-gpu-tiles: .venv/stamp
	@$(BIN)/python -m bench.gpu_tiles $(BENCH_ARGS)

gpu-check:
	@PYTHON="$(PYTHON)" scripts/gpu-check $(CHECK_ARGS)

gpu-packages: .venv/stamp
	@scripts/gpu-packages $(BIN)/pip .gpu-packages

bench-report: .venv/stamp
	@$(BIN)/python -m bench.report out/bench.json --out docs/img

chaos: .venv/stamp
	@if [[ "$(STORE)" = redis* ]]; then scripts/ensure-redis; fi
	@$(BIN)/python -m verification.chaos --store "$(STORE)" --seconds "$(SECONDS)" --replicas "$(REPLICAS)" $(if $(SEED),--seed "$(SEED)") $(CHAOS_ARGS)

explore: .venv/stamp
	@$(BIN)/python -m verification.explore --seconds "$(SECONDS)"

fuzz: .venv/stamp
	@$(BIN)/python -m verification.fuzz --cases "$(CASES)" $(if $(SEED),--seed "$(SEED)")

overload: .venv/stamp
	@scripts/ensure-redis
	@failed=0; while read -r words; do \
		echo "== $$words"; $(BIN)/python -m verification.load.overload --seconds "$(SECONDS)" $$words || failed=1; \
	done <<< "$$(printf '%s\n' $(OVERLOADS))"; exit $$failed

attack: .venv/stamp
	@$(BIN)/python -m verification.load.attacker --seconds "$(SECONDS)"

soak: .venv/stamp
	@if [ "$(STORE)" = redis ]; then scripts/ensure-redis; fi
	@$(BIN)/python -m verification.load.soak --minutes "$(MINUTES)" --store "$(STORE)"

parity: .venv/stamp
	@$(BIN)/python -m verification.parity

image:
	docker build $(BUILD_ARGS) --build-arg DEVICE=$(DEVICE) -f service/Dockerfile -t $(IMAGE) .

# Returns when the proxy has replicas to send to.
up: image
	@$(COMPOSE_PROJECT) up --detach || { echo "up: its logs say why: $(COMPOSE_PROJECT) logs --tail 20" >&2; exit 1; }

down:
	$(COMPOSE_PROJECT) down --volumes --remove-orphans

# Not `up` with another REPLICAS: that may build another image and replace the replicas that run.
scale:
	@$(if $(filter file,$(origin REPLICAS)),echo "scale: how many replicas? For instance REPLICAS=6" >&2; exit 1)
	$(COMPOSE_PROJECT) up --detach --no-recreate --scale cellkeeper=$(REPLICAS) cellkeeper

roll: image
	@scripts/roll-replicas $(COMPOSE_PROJECT)

backup:
	@scripts/backup-redis "$(BACKUP)" $(COMPOSE_PROJECT)

restore:
	@scripts/restore-redis "$(BACKUP)" $(COMPOSE_PROJECT)

check-compose: .venv/stamp
	@$(BIN)/python -m tests.integration.deploy $(CHECK_ARGS)

clean:
	rm -rf .gpu-packages .silero .venv .venv-proto .venv-release .venv-triton .venv-triton-clients build dist out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . \( -name '*.egg-info' -o -name __pycache__ \) -prune -exec rm -rf {} +
