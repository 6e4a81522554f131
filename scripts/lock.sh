#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Pin whatever the pinned packages pull in, once for all supported Pythons: requirements/constraints.txt.
set -eu
cd "$(dirname "$0")/.."
command -v uv >/dev/null || { echo "scripts/lock.sh: needs uv (pip install uv)" >&2; exit 1; }
out=requirements/constraints.txt
echo "# Made by scripts/lock.sh: every package that the others pull in. Do not edit." > "$out.new"
uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate \
  requirements/base.txt requirements/build.txt requirements/colcon.txt requirements/test.txt requirements/gym-hil.txt \
  requirements/fuzz.txt >> "$out.new"
mv "$out.new" "$out"
