# SPDX-License-Identifier: Apache-2.0
"""What precedes the start of the nodes, for launch files: ``python3 -m rlpd_ros.cli.prepare`` prints it as JSON.

``ros2 launch`` may run in another Python than the nodes, one without their libraries: so it asks this process.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rlpd_ros.errors import ConfigError, RlpdError
from rlpd_ros.graph import USER_ERROR
from rlpd_ros.preparation import prepare_run, preset_file, read_configurations, resolve
from rlpd_ros.runs import RunDirectory


@dataclass(frozen=True)
class Prepared:
    """The arguments of ``graph.train_graph``; ``run`` is "" where no node here needs the run directory."""

    run: str
    parameter_files: tuple[str, ...]
    demos: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what ``prepare`` returns; return 0, or 2 with one line on stderr if the input is wrong."""
    parser = argparse.ArgumentParser(prog="prepare", description=__doc__)
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--run", default="")
    parser.add_argument("--resume", default="")
    parser.add_argument("--config", nargs="*", default=[])
    parser.add_argument("--preset", default="")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--demos", nargs="*", default=[])
    parser.add_argument("--nodes", nargs="*", default=[])
    try:
        print(json.dumps(asdict(prepare(parser.parse_args(arguments)))))
    except RlpdError as error:
        print(error, file=sys.stderr)
        return USER_ERROR
    return 0


def prepare(options: argparse.Namespace) -> Prepared:
    """Make or open the run directory and its demonstrations, as far as the nodes started here need them.

    Raises ConfigError or DataError.
    """
    if options.resume:
        if options.config or options.preset or options.seed is not None:
            raise ConfigError("resume goes on with the run's own parameters; expected no params_file, preset, seed")
        run = RunDirectory.open(options.resume)
        read_configurations(run)
        demos = tuple(options.demos) or ((str(run.demos),) if run.demos.exists() else ())
        return Prepared(str(run.path), (str(run.parameters),), demos)
    configurations = resolve(options.config, options.preset or None, seed=options.seed)
    if options.nodes and not {"learner", "demo_loader"} & set(options.nodes):
        files = [str(preset_file(options.preset))] if options.preset else []
        return Prepared("", (*files, *options.config), ())
    run, demos = prepare_run(options.runs, options.run or None, configurations, tuple(options.demos))
    return Prepared(str(run.path), (str(run.parameters),), demos)


if __name__ == "__main__":
    sys.exit(main())
