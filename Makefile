# SPDX-License-Identifier: Apache-2.0
# Without ROS 2 everything lives in .venv, which is the ROS 2 underlay too. With ROS 2 sourced, .venv only adds what
# learning needs to it. Either way `. ./env.sh` makes a shell that has all of it.
SHELL := /bin/bash
PYTHON ?= python3
ARGS ?=

underlay := $(or $(ROS_DISTRO),wheels)
pip := .venv/bin/python -m pip --disable-pip-version-check install -qq --constraint requirements/constraints.txt
requirements := base colcon test $(if $(ROS_DISTRO),,build ros-jazzy)
venv := .venv/.installed-$(underlay)
built := install/.built-$(underlay)

.DEFAULT_GOAL := help
.PHONY: help build train train-pixels test bench faults chaos fuzz soak learning lint gym-hil clean always

help: ## show what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1 # /p' Makefile | column -t -s '#'
	@echo "  ARGS=... is passed on, PYTHON=... chooses the Python; '. ./env.sh' makes a shell with rlpd in it."

build: $(built) ## make .venv and build the package into install/

train: build ## record demonstrations and train the cube task (rlpd train)
	@. ./env.sh && rlpd train $(ARGS)

train-pixels: build ## the same from two cameras, without being told where the cube is
	@. ./env.sh && rlpd train --config config/mujoco_pixels.yaml $(ARGS)

test: build ## run the tests
	@. ./env.sh && pytest $(ARGS)

bench: build ## measure the hot paths on this machine (rlpd bench)
	@. ./env.sh && rlpd bench $(ARGS)

faults: build ## inject faults into running systems and see what the doctor names
	@. ./env.sh && python test/faults/suite.py $(ARGS)

chaos: build ## kill, cut off and restart running systems and see that nothing is lost
	@. ./env.sh && python test/chaos/suite.py $(ARGS)

fuzz: build ## feed nodes and readers malformed messages and damaged files
	@$(pip) -r requirements/fuzz.txt
	@. ./env.sh && python test/fuzz/run.py $(ARGS)

soak: build ## run an hour at 50 Hz with two cameras and watch the memory (18 GB of disk; ARGS="--minutes 5")
	@. ./env.sh && python test/soak/run.py $(ARGS)

learning: build ## compare how settings learn, without ROS (ARGS="presets --seeds 0 1 2 3 4")
	@. ./env.sh && python test/learning/suite.py $(or $(ARGS),imitation)

lint: build ## check style and types
	@. ./env.sh && ruff check . && mypy

gym-hil: build ## add the simulator that config/gym_hil.yaml uses
	@$(pip) -r requirements/gym-hil.txt

clean: ## remove all that make made; runs and demonstrations stay
	rm -rf .venv build install log reports

$(venv): $(requirements:%=requirements/%.txt) requirements/constraints.txt
	@scripts/prerequisites.sh $(PYTHON)
	@echo "Installing into .venv (once; some minutes)"
	@rm -rf build/rlpd_ros install  # made with another Python or another ROS 2
	@unset _ROS_WHEELS_BOOTSTRAP_COMPLETE; \
	python=$$($(PYTHON) -c 'import os, sys; print(os.path.realpath(sys.executable))') && `# not .venv's own` \
	"$$python" -m venv --clear $(if $(ROS_DISTRO),--system-site-packages) .venv && \
	$(pip) pip==26.0.1 && $(pip) $(requirements:%=-r requirements/%.txt)
	@touch $@

# Sources are linked into install/, so that a change counts at once; only what comes, goes or is compiled needs a build.
$(built): $(venv) build/sources.txt CMakeLists.txt package.xml $(wildcard msg/*.msg native/* scripts/*.in)
	@. ./env.sh --underlay && colcon --log-level error build --symlink-install --event-handlers summary-
	@find install -xtype l -delete
	@touch $@

build/sources.txt: always
	@mkdir -p build && find rlpd_ros launch config -type f -not -path '*/__pycache__/*' | sort > $@.new
	@if cmp --silent $@.new $@; then rm $@.new; else mv $@.new $@; fi
