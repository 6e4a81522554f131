# SPDX-License-Identifier: Apache-2.0
"""Prepare a run for a launch file: ``python3 -m rlpd_ros.cli.prepare`` prints what to start, as JSON."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from rlpd_ros.cli import explain
from rlpd_ros.errors import USER_ERROR, ConfigError, RlpdError
from rlpd_ros.preparation import prepare_play, prepare_run, resolve, resume_run
from rlpd_ros.untrusted import printable


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", nargs="*", default=[])
    parser.add_argument("--preset")
    parser.add_argument("--seed")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--run")
    parser.add_argument("--resume")
    parser.add_argument("--demos", nargs="*", default=[])
    parser.add_argument("--nodes", nargs="*", default=[])
    parser.add_argument("--namespace", default="")
    parser.add_argument("--arms", nargs="*", default=[])
    parser.add_argument("--play", metavar="RUN", help="prepare to play the policy of this run, and nothing else")
    parser.add_argument("--episodes", default="0", help="to play")
    options = parser.parse_args(arguments)
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)  # what an arm prints, or a library that it uses, is no part of the answer
        try:
            print(json.dumps(_prepared(options)), file=answer)
        except RlpdError as error:
            print(error, file=sys.stderr)
            return USER_ERROR
        except OSError as error:
            print(explain(error), file=sys.stderr)
            return USER_ERROR
    return 0


def expect_episodes(episodes: int) -> None:
    """Raise ConfigError unless so many can be played; 0 means until it is stopped."""
    if episodes < 0:
        raise ConfigError(f"episodes: expected 0 or more, found {episodes}")


def _prepared(options: argparse.Namespace) -> dict[str, Any]:
    nodes, demos = tuple(options.nodes), tuple(options.demos)
    said: list[str] = []
    if options.play is not None:
        episodes = _whole("episodes", options.episodes)
        expect_episodes(episodes)
        played = prepare_play(options.play, options.config, nodes, options.namespace)
        return {"parameter_files": [str(played.play_parameters)], "episodes": episodes}
    if options.resume:
        if options.config or options.preset or options.seed is not None:
            raise ConfigError("resume goes on with the run's own parameters; expected no params_file, preset, seed")
        run, demos = resume_run(options.resume, demos, (), said.append, options.namespace, options.arms, nodes)
    else:
        seed = None if options.seed is None else _whole("seed", options.seed)
        configurations = resolve(options.config, options.preset, (), seed)
        run, demos = prepare_run(options.runs, options.run, configurations, demos, nodes, said.append,
                                 options.namespace, options.arms)
    return {"run": str(run.path), "parameter_files": [str(run.parameters)], "demos": list(demos), "said": said}


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"{name}: expected a whole number, found '{printable(text)}'") from error


if __name__ == "__main__":
    sys.exit(main())
