# SPDX-License-Identifier: Apache-2.0
"""What a person sees while a run goes on: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rlpd_ros.status import ActorReport, LearnerReport, LearnerState

LINE_PERIOD = 10.0  # s between two lines where there is no terminal
COLOURS = {"arm_driver": "blue", "demo_loader": "magenta", "learner": "green", "actor": "cyan", "rlpd": "bold"}


class ProgressDisplay:
    """Show the learner's and the actor's status; print the processes' lines above it."""

    def __init__(self) -> None:
        self.console = Console()
        self._bars = Progress(
            TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"), console=self.console, disable=not self.console.is_terminal)
        self._fill = self._bars.add_task("Filling up replay buffer", total=None, note="")
        self._train = self._bars.add_task("Training (learner steps)", total=None, note="")
        self._learner: LearnerReport | None = None
        self._actor: ActorReport | None = None
        self._printed_at = time.monotonic()

    def __enter__(self) -> ProgressDisplay:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def echo(self, name: str, line: str) -> None:
        """Print a line of process ``name``. If nobody reads any more, training goes on all the same."""
        colour = COLOURS.get(name, "white")
        with contextlib.suppress(OSError, SystemExit):  # rich would end the thread that finds the pipe closed
            self.console.print(f"[{colour}]{name:>11}[/{colour}] | {escape(line)}", highlight=False, soft_wrap=True)

    def show_actor(self, actor: ActorReport) -> None:
        self._actor = actor

    def show_learner(self, learner: LearnerReport) -> None:
        """Update the bars, or print a line if one is due."""
        self._learner = learner
        filled = min(learner.online_buffer_size, learner.training_starts)
        self._bars.update(self._fill, total=learner.training_starts, completed=filled,
                          note="" if learner.state >= LearnerState.FILLING else escape(learner.text))
        if filled == learner.training_starts:
            self._bars.stop_task(self._fill)
        self._bars.update(self._train, total=learner.max_steps, completed=learner.gradient_step,
                          note=escape(self._note()))
        if not self.console.is_terminal and time.monotonic() - self._printed_at > LINE_PERIOD:
            self._printed_at = time.monotonic()
            self.echo("rlpd", f"{LearnerState(learner.state).name.lower().replace('_', ' ')}: learner step "
                              f"{learner.gradient_step}, {self._note()}")

    def _note(self) -> str:
        learner, actor = self._learner, self._actor
        assert learner is not None
        if learner.state < LearnerState.TRAINING:
            return learner.text
        success = "no evaluation yet" if learner.success_rate < 0 else (
            f"success {learner.success_rate:.0%} of {learner.evaluation_episodes}")
        applied = f", actor on {actor.applied_version}" if actor else ""
        return (f"{learner.updates_per_second:.0f}/s, {learner.env_steps} env steps, {success}, "
                f"policy version {learner.version}{applied}")
