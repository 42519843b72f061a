# The commands of everyday use; `make help` lists them. The build itself is CMake's (CMakeLists.txt).
PYTHON := .venv/bin/python

.PHONY: help env test test-bindings demo bench docs wheel gpu gpu-kit format clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

env: ## install what is missing, build the library, make .venv with the package and command `segprior`
	@tools/env.sh

test: env ## all tests: C++ (CPU, CUDA where a device is, fake CUDA runtime, race detection), installation, Python
	@tools/run_tests.sh build

test-bindings: env ## tests of segprior.torch and segprior.jax, in an environment of their own in ~/.cache/segprior
	@tools/test_bindings.sh build

demo: env ## segment a photograph; pictures and figures go to out/
	$(PYTHON) -m segprior.demo -o out

bench: env ## benchmark against other implementations: a table and JSON lines
	$(PYTHON) perf/bench.py

docs: ## the documentation as HTML, in docs/_build/html
	@tools/docs.sh

wheel: ## the Python package as dist/segprior-*.whl, and the source archive it was made from
	@tools/wheel.sh dist

gpu: ## on a machine with an NVIDIA GPU, offline: build, all tests, compute-sanitizer, graph capture, benchmark
	@tools/gpu.sh

gpu-kit: ## pack dist/segprior-gpu-kit.tar.gz, in which `make gpu` works without a network
	@tools/gpu_kit.sh

format: ## format all C, C++ and CUDA sources
	@tools/format.sh

clean: ## remove everything that was built
	rm -rf build build-* .venv out dist docs/_build
