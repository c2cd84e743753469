# Start with `make quickstart` or `make test`. `make` alone lists all targets.
# Needs Python 3.11 or newer with venv, git and make; everything else goes into .venv in this folder.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help quickstart test test-fast lint format types bench sheet screenshots constraints clean

PYTHON ?= python3
PYTEST_ARGS ?=
BIN := .venv/bin

# Two test photos of the quickstart: one with real damage, and an intact product with AI damage.
PICK := import csv; \
	rows = [r for r in csv.DictReader(open("out/data/quickstart/metadata.csv")) if r["split"] == "test"]; \
	real = next(r for r in rows if r["kind"] == "damaged"); \
	fake = next(r for r in rows if r["kind"] == "ai_region" and r["condition"] != "damaged" and r["damage"]); \
	print(*("out/data/quickstart/" + r["file_name"] for r in (real, fake)))

# Prints a command as the README shows it, then runs it with .venv first on the path.
show = printf '\n$$ %s\n' "$(1)" && PATH="$$PWD/$(BIN):$$PATH" $(1)

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS='	' read -r name text; do printf 'make %-12s %s\n' "$$name" "$$text"; done

quickstart: .venv/installed-train  ## the whole pipeline on data/sample: install, make AI damage, train, export, evaluate
	@$(call show,realdamage-synthesize +recipe=quickstart)
	@$(call show,realdamage-train +experiment=quickstart resume=last)
	@$(call show,realdamage-export checkpoint=out/quickstart/best.ckpt)
	@$(call show,realdamage calibrate out/quickstart/model.onnx --manifest out/data/quickstart)
	@$(call show,realdamage-evaluate checkpoint=out/quickstart/model.onnx data.root=out/data/quickstart name=quickstart/evaluation)
	@photos=$$($(BIN)/python -c '$(PICK)') && \
	$(call show,realdamage predict $$photos --model out/quickstart/model.onnx --heatmap out/quickstart/heatmaps)
	@printf '%s\n' '' \
	'Done. Where everything is:' \
	'  model        out/quickstart/model.onnx        (one file; a service needs nothing else)' \
	'  report       out/quickstart/evaluation        (report.html, metrics.json, predictions.csv)' \
	'  heat maps    out/quickstart/heatmaps          (of the two photos judged above)' \
	'  training     out/quickstart                   (best.ckpt, last.ckpt, config.yaml, train.log, metrics, pictures)' \
	'  photos       out/data/quickstart              (data/sample and its edits, with metadata.csv)' \
	'This model has seen only the few photos of data/sample. It shows the pipeline; do not judge claims with it.' \
	'Typed again, each command sees that its output is up to date. To start over: rm -r out/quickstart out/data/quickstart' \
	'Next: your own photos (README.md, "Fit it to your own photos"):' \
	'  $(BIN)/realdamage-synthesize +recipe=codecs recipe.source.root=YOUR_PHOTOS out=out/data/mine'

# Dozens of processes import the same modules: their bytecode is kept, also where a machine is set not to write any.
test test-fast: export PYTHONDONTWRITEBYTECODE =

test: .venv/installed-synth  ## install and run all tests
	@[ -d ../shared ] || echo "There is no ../shared next to this folder: the tests marked 'shared' will be skipped."
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(PYTEST_ARGS)

test-fast: .venv/installed-synth  ## the tests without those that train, drive a browser or run notebooks
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m "not slow" $(PYTEST_ARGS)

lint: .venv/installed-synth  ## check rules and format with ruff; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/installed-synth  ## format with ruff, and fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/installed-synth  ## check types with mypy
	$(BIN)/mypy

bench: .venv/installed-synth  ## measure speed on this machine
	$(BIN)/python -m pytest --benchmark-enable --benchmark-only $(PYTEST_ARGS)

SHEET := 000002_damaged 000002_ai_region 000004_original 000004_ai_whole 000005_damaged 000005_ai_region 000007_damaged 000007_ai_whole

sheet: .venv/installed-train  ## draw data/results/sheet.png: photos and their heat maps by the packaged model
	$(BIN)/realdamage predict $(SHEET:%=data/sample/photos/%.jpg) --sheet data/results/sheet.png

screenshots: .venv/installed-synth  ## take the README's pictures of the review page and the evidence (needs Chromium)
	$(BIN)/python tests/trials/screenshots.py --out data/results

# Keeps the pins that still fit; `make constraints UPGRADE=--upgrade` takes the newest of everything. Needs uv.
# torch pins its own CUDA packages; they are left out, so that a CPU build of the same torch fits too.
constraints: export UV_CUSTOM_COMPILE_COMMAND = make constraints
constraints:  ## update constraints.txt after a change of dependencies
	uv pip compile --quiet --universal --python-version 3.11 --all-extras --group dev --group notebooks --no-annotate \
		$(UPGRADE) --output-file constraints.txt pyproject.toml
	sed -i.old -E '/^(nvidia-|cuda-|triton)/d' constraints.txt && rm constraints.txt.old

clean:  ## remove caches and built packages; keeps .venv and out/
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .benchmarks .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is older than Python 3.11. Name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv || { \
		rm -rf .venv; echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt install python3-venv"; exit 1; }

# What the quickstart needs, and what all commands and tests need.
EXTRAS_train := train
EXTRAS_synth := synth,serve,postgres,video,ocr,cases
# The tests start many processes, each of which would otherwise compile torch.
FLAGS_synth := --compile-bytecode

# uv, because it is faster, else pip. The stamp file says that this pyproject.toml is installed.
.venv/installed-%: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing realdamage[$(EXTRAS_$*)] and the development tools into .venv. torch is large; this can take minutes."
	@uv=uv; $$uv --version >/dev/null 2>&1 || uv=$(BIN)/uv; \
	$$uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet uv || true; \
	if $$uv --version >/dev/null 2>&1 && \
		$$uv pip install $(FLAGS_$*) --python $(BIN)/python --constraint constraints.txt --editable '.[$(EXTRAS_$*)]' --group dev; \
	then true; else \
		echo "uv is not available or failed; using pip" && \
		$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' && \
		$(BIN)/python -m pip install --constraint constraints.txt --editable '.[$(EXTRAS_$*)]' --group dev; \
	fi
	@touch $@; if [ '$*' = synth ]; then touch .venv/installed-train; fi
