# Everything here works on a fresh Debian or Ubuntu with git, make and a shell: what is missing
# is installed first (Debian packages as root or through sudo, Python packages into .venv).
.DEFAULT_GOAL := help
.PHONY: help setup build demo test lint bench wheel test-wheel peers test-rdma mutants nightly clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

setup:  ## install what is missing, make .venv, build (RDMA=1, PMEM=1, MEMKIND=1: with these libraries)
	@scripts/setup

build:  ## compile what changed, in place (EXT=rpmem.memory.region: only that; DEBUG=1: with sanitizers, in build/debug)
	@$(if $(DEBUG),scripts/debug --build,scripts/build $(EXT))

demo:  ## show a replicated pool at work (TARGET=user@host: on another machine too)
	@scripts/setup demo $(TARGET)
	@.venv/bin/rpmem demo $(TARGET) --image build/rpmem-demo.png

test:  ## lint and every test that can run here (ARGS="-k header": options of pytest)
	@scripts/setup test
	@scripts/test $(ARGS)

lint:  ## ruff, mypy, cython-lint, shellcheck
	@scripts/setup test
	@scripts/lint

bench:  ## measure rpmem beside its rivals (ARGS=--help)
	@scripts/setup bench
	@.venv/bin/python -m benchmarks $(ARGS)

wheel:  ## make the source archive and a wheel for each CPython that is here, in dist (ARGS=--help)
	@scripts/setup wheel
	@scripts/wheel $(ARGS)

test-wheel:  ## install the wheels in dist on machines made afresh (as root; ARGS=--help)
	@scripts/setup wheel
	@scripts/test-wheel $(ARGS)

peers:  ## talk to the originals: PMDK's librpmem and rpmemd
	@PEERS=1 PMEM=1 scripts/setup test
	@scripts/peers $(ARGS)

test-rdma:  ## the tests that need RDMA and pmem, in a virtual machine
	@RDMA=1 scripts/setup test
	@scripts/test-rdma $(ARGS)

mutants:  ## make single mistakes in a copy of the code; the tests have to notice (ARGS=--help)
	@scripts/setup test
	@scripts/mutants $(ARGS)

nightly:  ## the long proofs, each 90 minutes at most (PART=kills: one; ARGS=--list: which)
	@RDMA=1 PMEM=1 MEMKIND=1 PEERS=1 FUZZ=1 scripts/setup test
	@-scripts/peers
	@scripts/nightly $(PART) $(ARGS)

clean:  ## remove what was built; .venv stays
	@rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find rpmem rpmemd tests benchmarks examples -name '*.so' -delete -o -name '*.pyc' -delete 2>/dev/null || true
