# SPDX-License-Identifier: Apache-2.0
"""Who may publish, subscribe and serve what: the policy from which SROS 2 makes the permissions of each enclave.

Its format is that of https://github.com/ros2/sros2/blob/rolling/sros2/sros2/policy/schemas/policy.xsd.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree import ElementTree

from rlpd_ros.enclaves import TELEOP, WATCH, enclave
from rlpd_ros.graph import Process, namespaces_of_arms, train_graph
from rlpd_ros.ros import qos
from rlpd_ros.ros.graph_watcher import HEARD

PARAMETER_SERVICES = ("describe_parameters", "get_parameter_types", "get_parameters", "list_parameters",
                      "set_parameters", "set_parameters_atomically", "get_type_description")


@dataclass(frozen=True)
class Rights:
    """What a node may do; every node may also write its log and its parameter events, and serve its parameters."""

    publishes: tuple[qos.Topic, ...] = ()
    subscribes: tuple[qos.Topic, ...] = ()
    serves: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()


CAMERAS = qos.Topic("camera/*/image_raw", "sensor_msgs/msg/Image")  # what is observed; from where is not known here
RIGHTS: dict[str, Rights] = {
    "arm_driver": Rights((qos.SPACE_SPEC, qos.OBSERVATION, qos.JOINT_STATES, qos.EE_POSE, qos.DIAGNOSTICS, CAMERAS),
                         (qos.ACTION,), serves=("reset",)),
    "demo_loader": Rights((qos.DEMO_MANIFEST, qos.DEMO_TRANSITIONS),
                          (qos.SPACE_SPEC, qos.TRANSITIONS_ACK, qos.LEARNER_STATUS)),
    "learner": Rights((qos.POLICY_PARAMS, qos.POLICY_VERSION, qos.TRANSITIONS_ACK, qos.LEARNER_STATUS),
                      (qos.SPACE_SPEC, qos.TRANSITIONS, qos.DEMO_TRANSITIONS, qos.DEMO_MANIFEST, qos.ACTOR_STATUS,
                       qos.EPISODE)),
    "actor": Rights((qos.ACTION, qos.TRANSITIONS, qos.EPISODE, qos.ACTOR_STATUS),
                    (qos.SPACE_SPEC, qos.OBSERVATION, qos.POLICY_PARAMS, qos.TRANSITIONS_ACK, qos.LEARNER_STATUS,
                     qos.INTERVENTION, qos.OUTCOME), calls=("reset",)),
    "monitor": Rights((qos.DIAGNOSTICS,), HEARD),
    "rlpd_doctor": Rights((), HEARD),
    "rlpd_progress": Rights((), (qos.LEARNER_STATUS, qos.ACTOR_STATUS)),
    "teleop_joy": Rights((qos.INTERVENTION, qos.OUTCOME), (qos.SPACE_SPEC, qos.JOY)),
    "rlpd_teleop": Rights((qos.INTERVENTION, qos.OUTCOME), (qos.SPACE_SPEC,)),
}
"""Node -> its rights."""
WATCHERS = ("rlpd_doctor", "rlpd_progress")  # in one enclave: they only listen
TELEOPERATORS = ("teleop_joy", "rlpd_teleop")  # in one enclave of each arm


def policy_xml(namespace: str = "", arms: tuple[str, ...] = ()) -> str:
    """Return the policy of all nodes of a training run, and of those beside it, for ``ros2 security``."""
    nodes = train_graph("", namespace=namespace, arms=arms)
    policy = ElementTree.Element("policy", version="0.2.0")
    enclaves = ElementTree.SubElement(policy, "enclaves")
    for node in nodes:
        _add_profile(_add_enclave(enclaves, node.name, node.namespace), node)
    shared = [(WATCH, WATCHERS, namespace),
              *((TELEOP, TELEOPERATORS, below) for below in namespaces_of_arms(namespace, arms))]
    for name, members, where in shared:
        profiles = _add_enclave(enclaves, name, where)
        for member in members:
            _add_profile(profiles, Process(member, member, where))
    ElementTree.indent(policy)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(policy, "unicode") + "\n"


def _add_enclave(enclaves: ElementTree.Element, name: str, namespace: str) -> ElementTree.Element:
    return ElementTree.SubElement(
        ElementTree.SubElement(enclaves, "enclave", path=enclave(name, namespace)), "profiles")


def _add_profile(profiles: ElementTree.Element, node: Process) -> None:
    namespace, rights = "/" + node.namespace.strip("/"), RIGHTS[node.name]
    profile = ElementTree.SubElement(profiles, "profile", ns=namespace, node=node.name)
    here = f"{namespace.rstrip('/')}/"
    topics = {"publish": [t.name for t in rights.publishes] + ["/rosout", "/parameter_events"],
              "subscribe": [t.name for t in rights.subscribes]}
    services = {"reply": [*rights.serves, *(f"{node.name}/{service}" for service in PARAMETER_SERVICES)],
                "request": list(rights.calls)}
    for kind, each in (("topics", topics), ("services", services)):
        for right, allowed in each.items():
            names = (node.remaps.get(name, name) for name in allowed)
            _add_rights(profile, kind, right, (n if n.startswith("/") else here + n for n in names))


def _add_rights(profile: ElementTree.Element, kind: str, right: str, names: Iterable[str]) -> None:
    found = list(names)
    if found:
        parent = ElementTree.SubElement(profile, kind, {right: "ALLOW"})
        for name in found:
            ElementTree.SubElement(parent, kind.removesuffix("s")).text = name
