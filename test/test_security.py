# SPDX-License-Identifier: Apache-2.0
"""The policy for DDS security: that it allows what the real nodes do, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest
import rclpy
from rclpy.context import Context

from rlpd_ros.cli import main
from rlpd_ros.cli.runner import command
from rlpd_ros.enclaves import enclave
from rlpd_ros.graph import train_graph
from rlpd_ros.nodes.actor import ActorNode
from rlpd_ros.nodes.arm_driver import ArmDriverNode
from rlpd_ros.nodes.demo_loader import DemoLoaderNode
from rlpd_ros.nodes.learner import LearnerNode
from rlpd_ros.nodes.monitor import MonitorNode
from rlpd_ros.nodes.teleop_joy import TeleopJoyNode
from rlpd_ros.ros.watcher import StatusWatcher
from rlpd_ros.runs import RunDirectory
from rlpd_ros.security import RIGHTS, policy_xml
from rlpd_ros.settings import NODES, TOOLS

ENCLAVES = ("arm_driver", "demo_loader", "learner", "actor", "monitor", "watch", "teleop")


def allowed(xml: str) -> dict[str, dict[str, set[str]]]:
    """Return node -> right -> full names."""
    rights: dict[str, dict[str, set[str]]] = {}
    for profile in ElementTree.fromstring(xml.encode()).iter("profile"):
        of_node = rights.setdefault(profile.get("node", ""), {})
        for group in profile:
            (right, verdict), = group.attrib.items()
            assert verdict == "ALLOW"
            of_node.setdefault(right, set()).update(entry.text or "" for entry in group)
    return rights


def done_by(graph, name: str, namespace: str) -> dict[str, set[str]]:
    """Return right -> full names that a node uses, as the middleware tells."""
    ask = {"publish": graph.ears.get_publisher_names_and_types_by_node,
           "subscribe": graph.ears.get_subscriber_names_and_types_by_node,
           "reply": graph.ears.get_service_names_and_types_by_node,
           "request": graph.ears.get_client_names_and_types_by_node}
    return {right: {topic for topic, _ in names(name, namespace)} for right, names in ask.items()}


def test_the_policy_allows_just_what_the_nodes_do(graph, tmp_path, small, demonstrations):
    run = RunDirectory.create(tmp_path, "run")
    graph.add(ArmDriverNode, "left")
    graph.add(DemoLoaderNode, "left", demo_path=[str(demonstrations)])
    graph.add(LearnerNode, "left", **small, run=str(run.path))
    graph.add(ActorNode, "left", hidden_dims=[8])
    graph.add(MonitorNode, "left")
    graph.add(TeleopJoyNode, "left")
    rights = allowed(policy_xml("left"))
    graph.until(lambda: all(graph.ears.count_publishers(f"/left/{t.name}") for r in RIGHTS.values() for t in r.publishes
                            if not t.name.startswith("/") and "*" not in t.name))
    for node in (*NODES, *TOOLS):
        graph.until(lambda node=node: "/parameter_events" in done_by(graph, node, "/left")["publish"])
        done = done_by(graph, node, "/left")
        for right, names in done.items():
            assert names <= rights[node].get(right, set()), (node, right)
        superfluous = {right: names - done[right] for right, names in rights[node].items()}
        in_need = {f"/left/{node}/get_type_description",  # not in Humble
                   *(["/left/camera/*/image_raw", "/diagnostics"] if node == "arm_driver" else []),  # with cameras
                   *(["/left/learner_status"] if node == "demo_loader" else [])}  # only one with an error asks for it
        assert set().union(*superfluous.values()) <= in_need, node


def test_each_of_several_arms_reaches_the_learner_and_no_other_arm():
    root = ElementTree.fromstring(policy_xml("cell", ("left", "right")).encode())
    paths = [entry.get("path") for entry in root.iter("enclave")]
    assert {f"/rlpd/cell/{arm}/{name}" for arm in ("left", "right") for name in ("actor", "arm_driver", "teleop")} < {
        *paths}
    assert len(set(paths)) == len(paths) == 10
    actor = next(p for p in root.iter("profile") if (p.get("ns"), p.get("node")) == ("/cell/left", "actor"))
    names = {(right, entry.text) for group in actor for right in group.attrib for entry in group}
    assert {("publish", "/cell/transitions"), ("subscribe", "/cell/policy_params"), ("publish", "/cell/left/action"),
            ("request", "/cell/left/reset")} < names
    assert not any("right" in (name or "") for _, name in names)
    learner = next(p for p in root.iter("profile") if p.get("node") == "learner")
    assert "/cell/left/space_spec" in {entry.text for group in learner for entry in group}


def test_the_policy_allows_the_watchers_what_they_do(domain, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    with StatusWatcher("right") as watcher:
        node = watcher._node
        rights = allowed(policy_xml("/right/"))[node.get_name()]
        assert {s.topic_name for s in node.subscriptions} == rights["subscribe"]
        assert {p.topic_name for p in node.publishers} <= rights["publish"]


def test_every_node_has_its_enclave_and_no_two_the_same():
    for namespace in ("", "left"):
        root = ElementTree.fromstring(policy_xml(namespace).encode())
        paths = [entry.get("path") for entry in root.iter("enclave")]
        assert sorted(paths) == sorted(enclave(name, namespace) for name in ENCLAVES)
    assert enclave("actor", "/left/arm/") == "/rlpd/left/arm/actor"


def test_with_security_every_process_is_started_in_its_enclave(monkeypatch):
    processes = train_graph("run", namespace="left")
    assert not any("--enclave" in command(process) for process in processes)
    monkeypatch.setenv("ROS_SECURITY_ENABLE", "true")
    for process in processes:
        line = command(process)
        assert line[line.index("--enclave") + 1] == f"/rlpd/left/{process.name}"


def test_the_command_writes_the_policy(tmp_path, capsys):
    assert main(["security", str(tmp_path / "policy.xml"), "--namespace", "left"]) == 0
    assert (tmp_path / "policy.xml").read_text() == policy_xml("left")
    assert main(["security", str(tmp_path)]) == 2
    assert f"{tmp_path}: cannot write the policy: " in capsys.readouterr().err


def security_is_compiled_in(tmp_path) -> bool:
    """Tell whether the middleware knows DDS security: with a key store that is none it fails in another way."""
    code = "import rclpy; rclpy.init(); rclpy.create_node('probe')"
    for name in ("identity_ca.cert.pem", "cert.pem", "key.pem", "permissions_ca.cert.pem", "governance.p7s",
                 "permissions.p7s"):
        (tmp_path / "enclaves").mkdir(exist_ok=True)
        (tmp_path / "enclaves" / name).touch()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ | {
        "ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce", "ROS_SECURITY_KEYSTORE": str(tmp_path)})
    assert done.returncode, "a node started on a key store that is none"
    return "doesn't have the security libraries" not in done.stderr


def test_a_node_whose_security_cannot_be_had_does_not_start(domain, tmp_path):
    """With Enforce nobody goes on without: neither where the middleware lacks it nor where the keys are missing."""
    security_is_compiled_in(tmp_path)


def test_with_keys_the_enclaves_hear_each_other_and_nobody_else(domain, tmp_path, monkeypatch):
    pytest.importorskip("sros2")
    if not security_is_compiled_in(tmp_path):
        pytest.skip("this middleware was built without DDS security")
    store, policy = tmp_path / "store", tmp_path / "policy.xml"
    policy.write_text(policy_xml())
    subprocess.run(["ros2", "security", "create_keystore", str(store)], check=True, capture_output=True)
    for name in ENCLAVES:
        for line in (["create_enclave", str(store), enclave(name)],
                     ["create_permission", str(store), enclave(name), str(policy)]):
            subprocess.run(["ros2", "security", *line], check=True, capture_output=True)
    env = {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce", "ROS_SECURITY_KEYSTORE": str(store)}
    stranger = Context()
    rclpy.init(context=stranger, domain_id=domain)
    ears = rclpy.create_node("stranger", context=stranger)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    actor = next(process for process in train_graph("run") if process.name == "actor")
    process = subprocess.Popen(command(actor), env=os.environ | {"ROS_DOMAIN_ID": str(domain)})
    try:
        with StatusWatcher() as watcher:
            for _ in range(600):
                watcher.spin(0.1)
                if watcher.actor is not None:
                    break
            assert watcher.actor is not None
        assert "actor" not in ears.get_node_names()
    finally:
        process.terminate()
        process.wait()
        ears.destroy_node()
        rclpy.shutdown(context=stranger)
