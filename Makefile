# Start here: make help. Everything is made inside .venv and demo/; nothing a user wrote is ever deleted.
# .venv is complete once its stamp is there: written last, and named after the requirements files, so that a stopped
# installation or a changed pin is noticed and done again. .venv/installing marks a .venv that is half made.
.DEFAULT_GOAL := help
.PHONY: help install demo test test-all lint
.NOTPARALLEL:

VENV   := .venv
BIN    := $(VENV)/bin/python
PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
comma  := ,
GPUS   := $(if $(CUDA_VISIBLE_DEVICES),$(words $(subst $(comma), ,$(CUDA_VISIBLE_DEVICES))),$(shell nvidia-smi -L 2>/dev/null | grep -c ^GPU))
CORES  := $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
RANKS  ?= $(if $(filter 1,$(GPUS)),1,2)
WORKERS ?= $(shell echo $$((2 + ($(CORES) < 4 ? $(CORES) : 4))))
OMP_NUM_THREADS ?= $(shell echo $$(($(CORES) > $(RANKS) ? $(CORES) / $(RANKS) : 1)))

RUN_PINS   := requirements.txt
TEST_PINS  := requirements.txt tests/requirements.txt pipeline/export/requirements.txt
RUN_STAMP  := $(VENV)/installed-run-$(shell cat $(RUN_PINS) | cksum | cut -d ' ' -f 1)
TEST_STAMP := $(VENV)/installed-test-$(shell cat $(TEST_PINS) | cksum | cut -d ' ' -f 1)

# $(call step,NAME,COMMAND,REMEDY): show and run; on failure say which step failed and what to do.
shown = printf '\n» %s\n' '$(subst ','\'',$(1))'
failed = { printf '\nmake: this step failed: %s\n      %s\n' "$(1)" "$(2)" >&2; exit 1; }
step = @$(call shown,$(2)); $(2) || $(call failed,$(1),$(3))

# $(call install,FILES): the virtual environment with these requirements.
define install
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || $(call failed,find Python 3.11 or newer \
	($(PYTHON) is not),Install it (Debian or Ubuntu: apt-get install python3.11-venv) or name it: make PYTHON=/…/python3.11)
	@"$(PYTHON)" -c 'import ensurepip; import venv' || $(call failed,find the modules venv and ensurepip,Debian and \
	Ubuntu keep them in a package of their own: apt-get install python3-venv (or python3.11-venv))
	@if [ -e $(VENV)/installing ]; then echo '$(VENV) was left half made: making it anew'; \
	find $(VENV) -mindepth 1 -maxdepth 1 ! -name installing -exec rm -rf {} +; fi
	@mkdir -p $(VENV) && touch $(VENV)/installing && rm -f $(VENV)/installed-* || $(call failed,make the folder $(VENV),Is the disk full or not yours?)
	$(call step,make $(VENV),"$(PYTHON)" -m venv $(VENV),The lines above say why; then say make again.)
	$(call step,pip install,DS_BUILD_OPS=0 $(BIN) -m pip install --disable-pip-version-check $(addprefix -r ,$(1)),The \
	lines above say why. It needs a package index (see: pip config list) and several GB of disk; then say make again.)
endef

help: ## list the targets and the main variables
	@echo 'Targets:'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F@ '{printf "%-16s%s\n", $$1, $$2}'
	@echo 'Variables, with their present values (set one: make demo RANKS=1):'
	@echo '  RANKS=$(RANKS)            processes of the demo: 2 on CPUs, else one for each GPU up to 2'
	@echo '  OMP_NUM_THREADS=$(OMP_NUM_THREADS)  threads of each process: the cores divided by RANKS'
	@echo '  PYTHON=$(PYTHON)  the Python (3.11 or newer) that makes .venv'
	@echo '  WORKERS=$(WORKERS)          processes that share the tests: two more than cores, as those of tests/cluster mostly wait'
	@echo '  PYTEST_ARGS=       what pytest gets: make test PYTEST_ARGS=tests/slurm'

install: $(RUN_STAMP) ## make .venv with everything in requirements.txt
	@echo '$(VENV) has everything in $(RUN_PINS)'

$(RUN_STAMP):
	$(call install,$(RUN_PINS))
	@touch $@ && rm $(VENV)/installing

$(TEST_STAMP):
	$(call install,$(TEST_PINS))
	@touch $@ $(RUN_STAMP) && rm $(VENV)/installing

demo: $(RUN_STAMP) ## from text to a trained, evaluated model and its report, in demo/
	$(if $(shell [ '$(RANKS)' -ge 1 ] 2>/dev/null && echo ok),,$(error RANKS='$(RANKS)' is no number of processes; \
	try: make demo RANKS=1))
	$(call step,build the corpus,$(BIN) -m preprocessing build --source builtin --vocab-size 1024 \
	--heldout-fraction 0.1 --out demo/corpus,The lines above say why. To begin afresh move demo/corpus away.)
	$(call step,train and evaluate,OMP_NUM_THREADS=$(OMP_NUM_THREADS) $(BIN) -m torch.distributed.run --standalone \
	--nproc-per-node $(RANKS) -m pipeline pretrain --recipe tiny --data demo/corpus --run-dir demo/run,The first error above \
	says why. make demo again goes on from the last checkpoint; to begin afresh move demo/run away.)
	$(call step,fill in a [MASK],OMP_NUM_THREADS=$(OMP_NUM_THREADS) $(BIN) -m pipeline fill-mask --run demo/run \
	"The function returns [MASK] if the list is empty.",The line above says why.)

lint: $(TEST_STAMP) ## ruff and mypy
	$(call step,ruff,$(BIN) -m ruff check .,Mend the lines named above; many mend themselves: $(BIN) -m ruff check --fix .)
	$(call step,ruff format,$(BIN) -m ruff format --check .,Lay the files out anew: $(BIN) -m ruff format .)
	$(call step,mypy,$(BIN) -m mypy,Mend the types named above.)

# The tests start hundreds of processes, which would all compile the same files where the environment forbids to keep them.
pytest = PYTHONDONTWRITEBYTECODE= $(BIN) -m pytest -n $(WORKERS) --durations=10

test: lint ## ruff, mypy and the tests, but for the long ones
	$(call step,pytest,$(pytest) -m "not long" $(PYTEST_ARGS),The failed tests are named above; one alone: \
	make test PYTEST_ARGS=tests/FILE.py::NAME)

test-all: lint ## ruff, mypy and every test
	$(call step,pytest,$(pytest) $(PYTEST_ARGS),The failed tests are named above.)
