# SPDX-License-Identifier: Apache-2.0
"""Prepare a run for a launch file: ``python3 -m rlpd_ros.cli.prepare`` prints what to start, as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from rlpd_ros.cli import explain
from rlpd_ros.errors import USER_ERROR, ConfigError, RlpdError
from rlpd_ros.preparation import prepare_play, prepare_run, resolve, resume_run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", nargs="*", default=[])
    parser.add_argument("--preset")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--run")
    parser.add_argument("--resume")
    parser.add_argument("--demos", nargs="*", default=[])
    parser.add_argument("--nodes", nargs="*", default=[])
    parser.add_argument("--namespace", default="")
    parser.add_argument("--arms", nargs="*", default=[])
    parser.add_argument("--play", metavar="RUN", help="prepare to play the policy of this run, and nothing else")
    options = parser.parse_args(arguments)
    said: list[str] = []
    try:
        if options.play:
            played = prepare_play(options.play, options.config)
            print(json.dumps({"parameter_files": [str(played.play_parameters)]}))
            return 0
        if options.resume:
            if options.config or options.preset or options.seed is not None:
                raise ConfigError("resume goes on with the run's own parameters; expected no params_file, preset, seed")
            run, demos = resume_run(options.resume, tuple(options.demos), (), said.append, options.namespace,
                                    options.arms)
        else:
            configurations = resolve(options.config, options.preset, (), options.seed)
            run, demos = prepare_run(options.runs, options.run, configurations, tuple(options.demos),
                                     tuple(options.nodes), said.append, options.namespace, options.arms)
    except RlpdError as error:
        print(error, file=sys.stderr)
        return USER_ERROR
    except OSError as error:
        print(explain(error), file=sys.stderr)
        return USER_ERROR
    print(json.dumps({"run": str(run.path), "parameter_files": [str(run.parameters)], "demos": list(demos),
                      "said": said}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
