# What a newcomer types: `make quickstart`, `make test`. `make` alone lists all targets.
# Needs Python 3.11 or newer with venv, git and make; everything else goes into .venv beside this file.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help quickstart test lint format types bench sheet screenshots constraints clean

PYTHON ?= python3
PYTEST_ARGS ?=
BIN := .venv/bin

# Two photos of the test split of the quickstart: one really damaged, one intact with AI-painted damage.
PICK := import csv; \
	rows = [r for r in csv.DictReader(open("out/data/quickstart/metadata.csv")) if r["split"] == "test"]; \
	real = next(r for r in rows if r["kind"] == "damaged"); \
	fake = next(r for r in rows if r["kind"] == "ai_region" and r["condition"] != "damaged" and r["damage"]); \
	print(*("out/data/quickstart/" + r["file_name"] for r in (real, fake)))

# Prints a command as a README shows it, then runs it with .venv first on the path.
show = printf '\n$$ %s\n' "$(1)" && PATH="$$PWD/$(BIN):$$PATH" $(1)

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | while IFS='	' read -r name text; do printf 'make %-12s %s\n' "$$name" "$$text"; done

quickstart: .venv/installed-train  ## install, make photos, train, export, calibrate, evaluate, judge two photos
	@$(call show,realdamage-synthesize +recipe=quickstart)
	@$(call show,realdamage-train +experiment=quickstart resume=last)
	@$(call show,realdamage-export checkpoint=out/quickstart/best.ckpt overwrite=true)
	@$(call show,realdamage calibrate out/quickstart/model.onnx --manifest out/data/quickstart)
	@$(call show,realdamage-evaluate checkpoint=out/quickstart/model.onnx data.root=out/data/quickstart name=quickstart/evaluation)
	@photos=$$($(BIN)/python -c '$(PICK)') && \
	$(call show,realdamage predict $$photos --model out/quickstart/model.onnx --heatmap out/quickstart/heatmaps)
	@printf '%s\n' '' \
	'Done. Where everything is:' \
	'  model        out/quickstart/model.onnx        (one file; a service needs nothing else)' \
	'  figures      out/quickstart/evaluation        (metrics.json, predictions.csv)' \
	'  heat maps    out/quickstart/heatmaps          (of the two photos judged above)' \
	'  training     out/quickstart                   (best.ckpt, last.ckpt, config.yaml, logs)' \
	'  photos       out/data/quickstart              (edits of data/sample, with metadata.csv)' \
	'This model has seen the few photos of data/sample only: it shows the pipeline and judges no claim.' \
	'Next, your own photos in a folder with a metadata.csv (data/README.md says how):' \
	'  $(BIN)/realdamage split YOUR_FOLDER' \
	'  $(BIN)/realdamage-train +experiment=vit_lite data.root=YOUR_FOLDER name=mine'

test: .venv/installed-synth  ## install and run all tests; those that need ../shared are skipped without it
	@[ -d ../shared ] || echo "no ../shared beside this folder: the few tests marked 'shared' will be skipped"
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(PYTEST_ARGS)

lint: .venv/installed-synth  ## ruff: rules and format, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/installed-synth  ## ruff: format, and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/installed-synth  ## mypy, strict
	$(BIN)/mypy

bench: .venv/installed-synth  ## speed of decoding, tiling and judging a photo on this machine
	$(BIN)/python -m pytest --benchmark-enable --benchmark-only $(PYTEST_ARGS)

SHEET := 000002_damaged 000002_ai_region 000004_original 000004_ai_whole 000005_damaged 000005_ai_region 000007_damaged 000007_ai_whole

sheet: .venv/installed-train  ## draw the README's picture of the packaged model's verdicts
	$(BIN)/realdamage predict $(SHEET:%=data/sample/photos/%.jpg) --sheet data/results/sheet.png

screenshots: .venv/installed-synth  ## take the README's pictures of the review page and of the evidence (needs a Chromium)
	$(BIN)/python tests/trials/screenshots.py --out data/results

# Keeps the pins that still fit; `make constraints UPGRADE=--upgrade` takes the newest of everything. Needs uv.
# torch pins its own CUDA packages, so those stay out; a CPU build of the same torch then fits too.
constraints: export UV_CUSTOM_COMPILE_COMMAND = make constraints
constraints:  ## write constraints.txt anew after a change of dependencies
	uv pip compile --quiet --universal --python-version 3.11 --all-extras --group dev --group notebooks --no-annotate \
		$(UPGRADE) --output-file constraints.txt pyproject.toml
	sed -i.old -E '/^(nvidia-|cuda-|triton)/d' constraints.txt && rm constraints.txt.old

clean:  ## remove caches and built packages; .venv and out/ (photos, models) stay
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .benchmarks .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; $(PYTHON) is not. Name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv || { \
		rm -rf .venv; echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt install python3-venv"; exit 1; }

# What the quickstart needs, and what all commands and tests need.
EXTRAS_train := train
EXTRAS_synth := synth,serve
# The tests start many processes; without bytecode each would compile torch anew where Python may not keep it.
FLAGS_synth := --compile-bytecode

# uv where it can be had, because it is faster; else pip. The stamp says that this pyproject.toml is installed.
.venv/installed-%: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing realdamage[$(EXTRAS_$*)] and the development tools into .venv; torch is large, this can take minutes"
	@uv=uv; $$uv --version >/dev/null 2>&1 || uv=$(BIN)/uv; \
	$$uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet uv || true; \
	if $$uv --version >/dev/null 2>&1 && \
		$$uv pip install $(FLAGS_$*) --python $(BIN)/python --constraint constraints.txt --editable '.[$(EXTRAS_$*)]' --group dev; \
	then true; else \
		echo "uv is not to be had or could not install; pip takes over" && \
		$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' && \
		$(BIN)/python -m pip install --constraint constraints.txt --editable '.[$(EXTRAS_$*)]' --group dev; \
	fi
	@touch $@; if [ '$*' = synth ]; then touch .venv/installed-train; fi
