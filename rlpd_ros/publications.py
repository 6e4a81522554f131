# SPDX-License-Identifier: Apache-2.0
"""The policies of a run: the one on its way out, each under a version of its own, and those that may be asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any, Protocol

import numpy as np

from rlpd_ros.errors import DataError
from rlpd_ros.rl.networks import Params
from rlpd_ros.rl.policy import Policy, make_snapshot
from rlpd_ros.status import LearnerReport
from rlpd_ros.types import Observation, PolicySnapshot, SpaceSpec

REMEMBERED = 20  # newest policies that are, besides those that actors act on


class PublicationOutputs(Protocol):
    """What a publication needs of the world."""

    def publish_policy(self, make: Callable[[], PolicySnapshot]) -> Future[PolicySnapshot]: ...  # or DataError from it
    def say(self, text: str) -> None: ...
    def measure(self, table: str, step: int, values: Mapping[str, Any]) -> None: ...


class Publications:
    """Publish policies through ``out``, one at a time, while their owner goes on.

    ``in_use`` returns the versions that actors act on. What is out is entered into ``report``.
    """

    def __init__(self, policy: Policy, spec: SpaceSpec, report: LearnerReport, out: PublicationOutputs,
                 in_use: Callable[[], Collection[int]]) -> None:
        self._policy = policy
        self._spec = spec
        self._report = report
        self._out = out
        self._in_use = in_use
        self._published: dict[int, PolicySnapshot] = {}  # by version
        self._under_way: Future[PolicySnapshot] | None = None

    def begin(self, params: Params, probe: Observation, stamp: int) -> None:
        """Have a policy published under the next version. The one before must be out.

        Its parameters are serialised here; its evidence is made where it is published, while training goes on.
        """
        report, policy, spec, data = self._report, self._policy, self._spec, self._policy.serialize(params)
        version, gradient_step, before = report.version + 1, report.gradient_step, self.get(report.version)

        def make() -> PolicySnapshot:
            snapshot = make_snapshot(policy, data, spec, probe, session=report.session, version=version,
                                     gradient_step=gradient_step, previous=before.data if before else b"", stamp=stamp)
            if not np.isfinite(snapshot.probe_action).all():
                raise DataError(f"the policy's action is not finite at gradient step {gradient_step}")
            return snapshot

        self._under_way = self._out.publish_policy(make)

    def settle(self, wait: bool) -> None:
        """Take note of the policy that is on its way, if it is out or one may wait for it.

        Raises DataError if it reaches nobody because its action is not finite.
        """
        if self._under_way is None or not (wait or self._under_way.done()):
            return
        under_way, self._under_way = self._under_way, None
        snapshot, report = under_way.result(), self._report
        if self.get(report.version):
            report.parameter_change = snapshot.change
        report.version = snapshot.version
        self._remember(snapshot)
        line = (f"version {snapshot.version}, learner step {snapshot.gradient_step}, checksum {snapshot.checksum}, "
                f"change {snapshot.change:.4g}")
        self._out.say(f"sent initial network to actor: {line}" if snapshot.version == 1 else f"published: {line}")
        self._out.measure("policies", report.env_steps, {
            "version": snapshot.version, "gradient_step": snapshot.gradient_step, "checksum": snapshot.checksum,
            "change": snapshot.change, "bytes": len(snapshot.data)})

    def _remember(self, snapshot: PolicySnapshot) -> None:
        """Keep the newest policies, and those in use: one of them may turn out to be the one that is wanted."""
        used = self._in_use()
        self._published = {version: earlier for version, earlier in self._published.items()
                             if version > snapshot.version - REMEMBERED or version in used}
        self._published[snapshot.version] = snapshot

    def get(self, version: int) -> PolicySnapshot | None:
        """Return the policy of this version, if it is remembered."""
        return self._published.get(version)
