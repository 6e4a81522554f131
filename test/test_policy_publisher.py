# SPDX-License-Identifier: Apache-2.0
"""Policies leave the learner in their order, the last one for certain, and what goes wrong on their way is not lost."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from test_policy import CONFIG, OBSERVATION, SPEC

from rlpd_ros.rl.policy import Policy, make_snapshot
from rlpd_ros.ros import qos
from rlpd_ros.ros.policy_publisher import PolicyPublisher


@pytest.fixture(scope="module")
def snapshot():
    policy = Policy(SPEC, CONFIG)
    return make_snapshot(policy, policy.serialize(policy.init(0)), SPEC, OBSERVATION, session="learner", version=1,
                         gradient_step=1)


def test_the_last_policy_is_out_when_it_closes(graph, snapshot):
    graph.listen(qos.POLICY_PARAMS)
    publisher = PolicyPublisher(graph.ears)
    graph.until(lambda: graph.ears.count_publishers("policy_params"))
    for version in range(1, 11):
        publisher.publish(partial(replace, snapshot, version=version))
    publisher.close()
    graph.until(lambda: graph.heard["policy_params"] and graph.last(qos.POLICY_PARAMS).version == 10)
    versions = [message.version for message in graph.heard["policy_params"]]
    assert versions == sorted(versions)


def test_what_goes_wrong_is_told_and_the_next_one_goes_out_all_the_same(graph, snapshot):
    graph.listen(qos.POLICY_PARAMS)
    publisher = PolicyPublisher(graph.ears)
    graph.until(lambda: graph.ears.count_publishers("policy_params"))
    with pytest.raises(TypeError):
        publisher.publish(lambda: replace(snapshot, data=None)).result(10)
    assert publisher.publish(lambda: snapshot).result(10) is snapshot
    graph.until(lambda: graph.heard["policy_params"])
    assert graph.last(qos.POLICY_PARAMS).version == snapshot.version
    publisher.close()
