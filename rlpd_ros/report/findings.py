# SPDX-License-Identifier: Apache-2.0
"""What a reader should notice first: the ways in which a run goes wrong without an error, in words."""

from __future__ import annotations

import numpy as np

from rlpd_ros.report.data import RunData, percent

_RECENT = 20  # episodes


def findings(data: RunData) -> list[str]:
    """Return one sentence per thing that is wrong or missing; [] for a run as it should be."""
    found = [f"Not readable, and left out here: {problem}" for problem in data.damaged]
    if not data.learner.rows:
        found.append("The learner has logged nothing: it may still be waiting for demonstrations or transitions, or "
                     "have ended early. See learner_status and the files in logs/.")
    return found + _policy_findings(data) + _learning_findings(data)


def _policy_findings(data: RunData) -> list[str]:
    found = []
    published, recent = data.published, data.training.where(slice(-_RECENT, None))
    acted_upon = data.applied.rows or (data.episodes.highest("policy_version") or 0) > 0
    if published.rows and not acted_upon:
        found.append(f"The learner published {published.rows} policies and no actor has applied one: what the arm does "
                     "has not been learned. See actor_status for what the actor waits for or refuses.")
    if recent.rows:
        acted = {name: float(np.nansum(recent[f"{name}_actions"])) for name in ("policy", "random")}
        share = acted["random"] / max(float(np.nansum(recent["steps"])), 1.0)
        if share > 0.5:
            found.append(f"In the last {recent.rows} training episodes {percent(share)} of the actions were random: "
                         "random_steps is not used up yet.")
        elif not acted["policy"]:
            found.append(f"In the last {recent.rows} training episodes no action came from a policy.")
    return found


def _learning_findings(data: RunData) -> list[str]:
    found = []
    learner = data.learner
    if learner.last("demo_buffer_size") == 0:
        found.append("The demo buffer is empty: the learner has no demonstrations to learn from.")
    # An empty cell reads as NaN too, but a learner that has made steps since its last row has no empty cells.
    stepped = np.diff(learner["gradient_step"], prepend=0) > 0
    for column in ("critic_loss", "actor_loss", "q_mean"):
        broken = stepped & ~np.isfinite(learner[column])
        if column in learner and broken.any():
            step = learner["gradient_step"][broken][0]
            found.append(f"{column} is not a finite number at gradient step {step:,.0f} and {broken.sum():,} times in "
                         "all: learning has diverged.")
    if learner.last("parameter_change") == 0 and (learner.last("gradient_step") or 0) > 0:
        found.append("The last published policy is the same as the one before it: the learner is not changing it.")
    return found
