# Make orders; psr_lib/runs.py decides what is up to date and what has to run, and says why.

PRESET  ?= tiny      ## preset: tiny, smoke, ... (psr_lib/presets)
METHOD  ?= psrlm     ## method: psrlm, srlm (baseline), or a control: random-judge, random-judge-nll0, gold-judge, ift-more, sft-chosen; or reference (an API model)
METHODS ?=           ## several methods for reproduce, judge, keep, confirm and status, as "psrlm random-judge"
SEED    ?= 0         ## seed of the run
SEEDS   ?=           ## several seeds for reproduce, judge, paper, report, keep, confirm, ablate, status, verify and why, as "0 1 2"
N       ?=           ## round: N=1 makes M1, N=2 makes M2, ...
SET     ?=           ## overrides of the preset, as "search.width=4 dpo.beta=0.3"
FORCE   ?=           ## FORCE=1 runs the named stages again
DRY     ?=           ## DRY=1 iteration with stand-ins: nothing downloaded, paid or kept (runs/dry)
ITEM    ?=           ## number that why explains, as table1/psrlm/M4/average; without it all are listed
STAGE   ?=           ## stage that clean-stage removes, as 03
KILLS   ?= 100       ## kills of torture
ON      ?=           ## devices for plan, as 8xH100 (default: those at hand)
TO      ?=           ## folder for export (default: export/ beside the model)
KNOB    ?=           ## setting that ablate varies, as search.width
VALUES  ?=           ## its values, as "2 4 6 8"
BENCH   ?=           ## options of bench, as "--only rates --problems 40"
COUNT   ?= 1000000   ## outputs that fuzz generates
PYTHON3 ?= python3   ## Python 3.11 or later that makes .venv

.DEFAULT_GOAL := help
.PHONY: help setup reproduce iteration base evaluate judge data paper report keep confirm ablate keep-ablation readme status verify why clean-stage plan export bench fuzz test test-slow torture lab docs lint format clean laboratories

# Threads that spin while they wait starve each other as soon as another process runs; those that
# sleep at once are woken for every operation. A short spin, then sleep, is quick either way.
export OMP_WAIT_POLICY ?= passive
export GOMP_SPINCOUNT ?= 30000

# A conda environment that holds psr-lib is used as it is; otherwise .venv is made and used.
HAS_PSR := import importlib.metadata as m; m.version("psr-lib")
CONDA   := $(shell [ -n "$$CONDA_PREFIX" ] && "$$CONDA_PREFIX/bin/python" -I -c '$(HAS_PSR)' \
	2>/dev/null && echo "$$CONDA_PREFIX/bin/python")
PYTHON  := "$(or $(CONDA),.venv/bin/python)"
# Without exec a signal that ends make would end a shell, and the runner would go on unseen.
RUNS     = exec $(PYTHON) -m psr_lib.runs
TESTS    = $(PYTHON) -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
JUDGES   = $(filter psrlm srlm,$(or $(strip $(METHODS)),$(METHOD)))
RUN      = --preset "$(strip $(PRESET))" --method "$(strip $(METHOD))" --seed "$(strip $(SEED))" \
	--set "$(strip $(SET))" $(if $(strip $(FORCE)),--force) $(if $(strip $(DRY)),--dry)

GRID     = $(RUN) --seeds "$(strip $(SEEDS))" --n "$(strip $(N))" --knob "$(strip $(KNOB))" \
	--values "$(strip $(VALUES))"

help:  ## list targets and variables
	@echo "Targets:"
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  \1\t\2/p' Makefile | expand -t 15
	@echo "Variables:"
	@sed -n 's/^\([A-Z0-9]*\) *?= *\([^ #]*\) *## \(.*\)/  \1=\2\t\3/p' Makefile | expand -t 20

setup:  ## make .venv with the pinned packages (skipped in a conda environment that has them)
	@$(if $(CONDA),:,$(PYTHON3) -I psr_lib/setup_env.py)

reproduce: setup  ## the whole path M0 to M4 with evaluation, then the accuracy table
	@$(RUNS) reproduce $(RUN) --methods "$(strip $(METHODS))" --seeds "$(strip $(SEEDS))"

iteration: setup  ## one round (N=2), and before it whatever is missing
	@$(RUNS) iteration $(RUN) --n "$(strip $(N))"

base: setup  ## train the tiny base model again (notebook 00; longer than a whole run)
	@$(RUNS) base $(RUN)

evaluate: setup  ## evaluate M[N], or without N every model that is there
	@$(RUNS) evaluate $(RUN) --n "$(strip $(N))"

judge: setup  ## judge laboratory of M[N], without N of the last model (notebook 07)
	@$(RUNS) judge $(RUN) --n "$(strip $(N))" --methods "$(strip $(METHODS))" --seeds "$(strip $(SEEDS))"

data: setup  ## data of a run only (notebook 01)
	@$(RUNS) data $(RUN)

paper: setup  ## every table and figure of the paper from a run, beside its own numbers
	@$(RUNS) paper $(RUN) --seeds "$(strip $(SEEDS))"

report: setup  ## one self-contained HTML page of a run, to be mailed: tables, figures, claims, examples, cost
	@$(RUNS) report $(RUN) --seeds "$(strip $(SEEDS))"

keep: setup  ## store a finished run's summary in data/results, and log it
	@$(RUNS) keep $(RUN) --methods "$(strip $(METHODS))" --seeds "$(strip $(SEEDS))"

# Table 6 sets judging pairs (psrlm) against scoring solutions (srlm); controls learned no other judging.
laboratories: reproduce  ## judge laboratories of those of METHODS that learned to judge, before confirm
	@$(if $(JUDGES),$(RUNS) judge $(RUN) --methods "$(JUDGES)" --seeds "$(strip $(SEEDS))",:)

confirm: reproduce laboratories paper keep  ## reproduce on the test sets, measure the judges, keep all that the README shows

# On dev problems, unless SET says otherwise. Stages that the setting does not touch are made once.
ablate: setup  ## one setting at several values: make ablate KNOB=search.width VALUES="2 4 6 8"
	@$(RUNS) ablate $(GRID)

keep-ablation: setup  ## store a finished ablation in data/results/ablations, and its figure
	@$(RUNS) keep-ablation $(GRID)

readme: setup  ## write the README's numbers and draw its figures from data/results
	@$(PYTHON) -m psr_lib.readme

status: setup  ## every method and model of a run: done, stale, partial or missing, and what it cost
	@$(RUNS) status $(RUN) --methods "$(strip $(METHODS))" --seeds "$(strip $(SEEDS))"

verify: setup  ## read every file of a run whole and compare it with what its stage wrote
	@$(RUNS) verify $(RUN) --seeds "$(strip $(SEEDS))"

why: setup  ## where a number of a table comes from: make why ITEM=table1/psrlm/M4/average
	@$(RUNS) why $(RUN) --item "$(strip $(ITEM))" --seeds "$(strip $(SEEDS))"

clean-stage: setup  ## remove one stage of a run, and say what is stale without it
	@$(RUNS) clean-stage $(RUN) --stage "$(strip $(STAGE))" --n "$(strip $(N))"

plan: setup  ## what a run costs before it runs: tokens, hours, memory, disk, API calls (N, ON)
	@$(RUNS) plan $(RUN) --n "$(strip $(N))" --on "$(strip $(ON))"

export: setup  ## M[N] as a folder that transformers, vllm serve and the hub accept (TO)
	@$(RUNS) export $(RUN) --n "$(strip $(N))" --to "$(strip $(TO))"

bench: setup  ## measure search and judging: make bench BENCH="--only rates,calls" (hours in full)
	@$(PYTHON) -m psr_lib.bench $(BENCH)

fuzz: setup  ## generated model outputs through every parser, one in a hundred graded (see COUNT)
	@$(PYTHON) -m psr_lib.fuzz --count "$(strip $(COUNT))" --seed "$(strip $(SEED))"

# The order of the files is conftest's: the longest first.
test: setup  ## run the tests, those that take minutes left out
	@$(TESTS) -m "not slow"

test-slow: setup  ## run the others: more whole runs, pins, Ray and vLLM where they are installed
	@$(TESTS) -m slow

torture: setup  ## kill a smoke run KILLS times: it must end as one that was never killed
	@$(PYTHON) tests/torture.py --kills "$(strip $(KILLS))" --seed "$(strip $(SEED))" --set "$(strip $(SET))"

lab: setup  ## open JupyterLab on the notebooks, the executed ones under runs/ at hand
	@$(PYTHON) -m jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks

docs: setup  ## pages of psr_lib from its docstrings, into build/docs
	@$(PYTHON) -m pdoc psr_lib '!psr_lib.engines.vllm_noise' --output-directory build/docs

lint: setup  ## check code and notebooks with ruff, type hints with mypy
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy

format: setup  ## format code and notebooks, and strip the notebooks' outputs
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .
	@$(PYTHON) -m nbstripout --keep-id notebooks/*.ipynb

clean:  ## remove caches; runs/ and .venv stay
	@rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist *.egg-info/
	@find psr_lib tests notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
