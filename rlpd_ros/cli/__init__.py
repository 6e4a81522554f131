# SPDX-License-Identifier: Apache-2.0
"""The command line: ``rlpd train | record | teleop | eval | play | report | doctor | security | bench``."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rlpd_ros.errors import BROKEN_PIPE, INTERRUPTED, USER_ERROR, ConfigError, RlpdError
from rlpd_ros.installation import find_log_folder, make_known

REMEDIES = {
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "permit it, or use a copy in a folder of yours"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room on that disk")}

OUTPUT = {errno.ENOSPC, errno.EDQUOT, errno.EIO}  # of an error that names no file: what is printed has no place


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``rlpd``; return its exit status: 0 success, 1 failure, 2 wrong input, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every terminal has every character
    command = "rlpd"
    try:
        options = _parser().parse_args(arguments)
        command = f"rlpd {options.command}"
        make_known()
        find_log_folder()
        status = options.run_command(options)
        sys.stdout.flush()  # now, and not when Python ends and nobody can tell any more
        return status
    except BrokenPipeError:
        give_up_output()
        return BROKEN_PIPE
    except RlpdError as error:
        print(f"{command}: {error}", file=sys.stderr)
        return USER_ERROR
    except OSError as error:
        print(f"{command}: {explain(error)}", file=sys.stderr)
        give_up_output()
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED


def give_up_output() -> None:
    """Let Python end without a complaint if nobody takes what it has printed."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def explain(error: OSError) -> str:
    """Return what to tell a user of an error with a file, or with standard output; raise any other, which is a bug."""
    if error.filename is None and error.errno not in OUTPUT:
        raise error
    remedy = REMEDIES.get(error.errno or 0, "look what is there, and name another place if it must stay")
    return f"{error.filename or 'standard output'}: {error.strerror}; {remedy}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rlpd", description="Teach an arm a task from demonstrations and experience.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_record(commands)
    _add_teleop(commands)
    _add_eval(commands)
    _add_play(commands)
    _add_report(commands)
    _add_doctor(commands)
    _add_security(commands)
    _add_bench(commands)
    return parser


def _add_configuration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", action="append", default=[], metavar="FILE",
                        help="ROS parameter file (YAML); may be repeated, the last one wins")
    parser.add_argument("--preset", help="published settings: the name of a file in config/presets/ (rlpd, hil_serl)")
    parser.add_argument("--set", action="append", default=[], metavar="[NODE.]NAME=VALUE", dest="overrides",
                        help="one parameter, for one node or for all that have it; may be repeated")
    parser.add_argument("--seed", type=int, help="of everything that is random")


def _add_train(commands) -> None:
    parser = commands.add_parser("train", help="record demonstrations, start the nodes and train")
    _add_configuration(parser)
    parser.add_argument("--run", metavar="NAME", help="name of the run (default: the time)")
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help="where runs are kept (default: %(default)s)")
    parser.add_argument("--resume", metavar="RUN", help="go on with an earlier run: its folder")
    parser.add_argument("--demos", nargs="+", default=[], metavar="BAG",
                        help="demonstrations: rosbag2 bags, or folders of bags; 'none' to train without "
                             "(default: record 20 with the arm's scripted expert)")
    parser.add_argument("--nodes", nargs="+", default=[], metavar="NODE", help="start only these here")
    parser.add_argument("--namespace", default="", help="of all nodes")
    parser.add_argument("--arms", nargs="+", default=[], metavar="NAME",
                        help="several arms that feed the one learner, each in a namespace of this name")
    parser.add_argument("--across-hosts", action="store_true", help="let other machines take part (ROS discovery)")
    parser.set_defaults(run_command=_lazily("train"))


def _add_record(commands) -> None:
    parser = commands.add_parser("record", help="record demonstrations with the arm's scripted expert")
    _add_configuration(parser)
    parser.add_argument("bag", help="the rosbag2 folder to make")
    parser.add_argument("--episodes", type=int, default=20, help="successful ones (default: %(default)s)")
    parser.set_defaults(run_command=_lazily("record"))


def _add_teleop(commands) -> None:
    parser = commands.add_parser("teleop", help="move the arm by the keyboard, while the nodes run elsewhere")
    parser.add_argument("--namespace", default="", help="of the arm's driver and actor")
    parser.add_argument("--rate", type=float, default=20.0, metavar="HZ", help="of actions (default: %(default)s)")
    parser.add_argument("--speed", type=float, default=0.3, help="at first, of 1 (default: %(default)s)")
    parser.add_argument("--always", action="store_true",
                        help="hold the arm while no key is pressed, so that no policy acts; space turns it off and on")
    parser.set_defaults(run_command=_lazily("teleop"))


def _add_eval(commands) -> None:
    parser = commands.add_parser("eval", help="measure the success rate of a run's policy")
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("--episodes", type=int, default=50, help="greedy episodes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=10_000, help="of the start positions (default: %(default)s)")
    parser.add_argument("--namespace", default="", help="of the arm, where a parameter file has a section for each")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--video", metavar="FILE", help="film the first ten episodes: an animated GIF")
    parser.set_defaults(run_command=_lazily("evaluate"))


def _add_play(commands) -> None:
    parser = commands.add_parser("play", help="move the arm by a run's policy, with its nodes and cameras")
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("--episodes", type=int, default=0, help="greedy ones; 0: until Ctrl-C (default: %(default)s)")
    parser.add_argument("--config", action="append", default=[], metavar="FILE",
                        help="ROS parameter file (YAML) that overrules the run's parameters; may be repeated")
    parser.add_argument("--nodes", nargs="+", default=[], metavar="NODE",
                        help="start only these here: actor, for an arm whose driver is a node of its own")
    parser.add_argument("--namespace", default="", help="of both nodes")
    parser.add_argument("--across-hosts", action="store_true", help="let other machines take part (ROS discovery)")
    parser.set_defaults(run_command=_lazily("play"))


def _add_report(commands) -> None:
    parser = commands.add_parser("report", help="write a run's report.html")
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.set_defaults(run_command=_report)


def _add_doctor(commands) -> None:
    from rlpd_ros.cli.doctor import add_arguments

    parser = commands.add_parser("doctor", help="say what is wrong with a running graph, a run or a bag")
    add_arguments(parser)
    parser.set_defaults(run_command=_lazily("doctor"))


def _add_security(commands) -> None:
    parser = commands.add_parser("security", help="write the SROS 2 policy: who may publish and subscribe what")
    parser.add_argument("file", metavar="FILE", help="the policy to write (XML)")
    parser.add_argument("--namespace", default="", help="of all nodes")
    parser.add_argument("--arms", nargs="+", default=[], metavar="NAME", help="as for rlpd train")
    parser.set_defaults(run_command=_security)


def _add_bench(commands) -> None:
    parser = commands.add_parser("bench", help="measure the hot paths on this machine, beside what it could do at best")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these benchmarks (default: all)")
    parser.add_argument("--quick", action="store_true", help="few and short repetitions: to see that all of it works")
    parser.add_argument("--out", default="reports", metavar="FOLDER", help="for bench.json (default: %(default)s)")
    parser.set_defaults(run_command=_lazily("bench"))


def _lazily(module: str):
    """Import a subcommand only when it is called: some take seconds to import."""

    def run(options: argparse.Namespace) -> int:
        from importlib import import_module

        return import_module(f"rlpd_ros.cli.{module}").main(options)

    return run


def _report(options: argparse.Namespace) -> int:
    from rlpd_ros.report import write_report
    from rlpd_ros.runs import RunDirectory

    print(write_report(RunDirectory.open(options.run)))
    return 0


def _security(options: argparse.Namespace) -> int:
    from rlpd_ros.runs import write_atomically
    from rlpd_ros.security import policy_xml

    path = Path(options.file)
    try:
        if path.exists() and b"<policy" not in path.read_bytes():
            raise ConfigError(f"{path} exists, is no policy, and is not overwritten: choose another name")
        write_atomically(path, policy_xml(options.namespace, tuple(options.arms)))
    except OSError as error:
        raise ConfigError(f"{path}: cannot write the policy: {error.strerror}") from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
