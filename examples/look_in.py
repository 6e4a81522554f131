# SPDX-License-Identifier: Apache-2.0
"""Print what learner and actor say about themselves, as it changes: for machines without `ros2 topic echo`.

``python3 examples/look_in.py [NAMESPACE]``, with the ROS_DOMAIN_ID of the run. Ctrl-C ends it.
"""

from __future__ import annotations

import contextlib
import sys

from rlpd_ros.ros.watcher import StatusWatcher
from rlpd_ros.status import ActorState, LearnerState


def main(namespace: str = "") -> None:
    """Print a line for each new text of a status."""
    last = {"learner": "", "actor": ""}
    with StatusWatcher(namespace) as watcher:
        while True:
            watcher.spin(1.0)
            for name, report, states in (("learner", watcher.learner, LearnerState),
                                         ("actor", watcher.actor, ActorState)):
                if report is not None and report.text != last[name]:
                    last[name] = report.text
                    print(f"{name:>7} | {states(report.state).name}: {report.text}", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:2])
