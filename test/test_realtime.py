# SPDX-License-Identifier: Apache-2.0
"""What controls an arm in real time goes first where that is permitted, and goes on as usual where it is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from rlpd_ros.nodes.actor import ActorNode
from rlpd_ros.nodes.arm_driver import ArmDriverNode

DEADLINE = 60.0  # s
ASK = """
import os, sys, threading
before = threading.Thread(target=threading.Event().wait, daemon=True)
before.start()
if "refused" in sys.argv:
    def sched_setscheduler(*_):
        raise PermissionError(1, "Operation not permitted")
    os.sched_setscheduler = sched_setscheduler
from rlpd_ros.ros.realtime import go_first
print(go_first())
after = threading.Thread(target=threading.Event().wait, daemon=True)
after.start()
print([os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK for thread in (0, before.native_id, after.native_id)])
"""


def permitted() -> bool:
    code = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))"
    return not subprocess.run([sys.executable, "-c", code], check=False, stderr=subprocess.DEVNULL).returncode


needs_permission = pytest.mark.skipif(not permitted(), reason="needs CAP_SYS_NICE or a limit of rtprio")


def ask(*arguments: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", ASK, *arguments], check=True, capture_output=True,
                          text=True).stdout.splitlines()


@needs_permission
def test_threads_that_there_are_go_first_and_later_ones_do_not():
    assert ask() == ["", str([os.SCHED_RR, os.SCHED_RR, os.SCHED_OTHER])]


def test_a_refusal_changes_nothing():
    assert ask("refused") == ["Operation not permitted", str(3 * [os.SCHED_OTHER])]


@needs_permission
def test_a_driver_in_real_time_goes_first(domain, start_node):
    driver = start_node("arm_driver", lockstep="false")
    deadline = time.monotonic() + DEADLINE
    while os.sched_getscheduler(driver.pid) & ~os.SCHED_RESET_ON_FORK != os.SCHED_RR:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    driver.terminate()
    driver.communicate()


def test_an_actor_asks_once_it_knows_an_arm_that_does_not_wait(graph):
    actor = graph.add(ActorNode, hidden_dims=[8])
    assert not actor.goes_first
    driver = graph.add(ArmDriverNode, lockstep=False)
    graph.until(lambda: actor.goes_first)
    assert driver.goes_first


def test_in_lockstep_nobody_asks(graph):
    actor, driver = graph.add(ActorNode, hidden_dims=[8]), graph.add(ArmDriverNode)
    graph.until(lambda: actor._actor is not None)
    assert not actor.goes_first
    assert not driver.goes_first
