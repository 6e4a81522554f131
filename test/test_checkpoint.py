# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: learning goes on exactly where it stopped, and nothing that is not as it was written is restored."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from rlpd_ros.errors import DataError
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.checkpoint import CheckpointStore, _digests
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.rl.policy import Policy
from rlpd_ros.types import Batch, SpaceField, SpaceSpec

POLICY = PolicyConfig(hidden_dims=(8,))
CONFIG = AgentConfig(num_qs=3, num_min_qs=2, critic_hidden_dims=(8,), utd_ratio=2)


def space(name: str = "state") -> SpaceSpec:
    return SpaceSpec("test", (SpaceField.box(name, (-1, -1), (1, 1)),), (SpaceField.box("motion", (-1,), (1,)),), 10.0,
                     "base", 100)


SPEC = space()


def new_agent(config: AgentConfig = CONFIG, seed: int = 0) -> Agent:
    return Agent.create(SPEC, POLICY, config, seed)


def learn(agent: Agent, steps: int) -> Agent:
    """Update on batches that depend on nothing but the step."""
    for _ in range(steps):
        rng = np.random.default_rng(int(agent.step))
        normal = rng.standard_normal((2, 4, 7), np.float32)
        agent, _ = agent.update(Batch({"state": normal[..., :2]}, np.tanh(normal[..., 2:3]), normal[..., 3],
                                      np.ones((2, 4), np.float32), {"state": normal[..., 4:6]},
                                      np.ones((2, 4), np.float32)))
    return agent


def same(a: Agent, b: Agent) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def metadata(**extra: Any) -> dict[str, Any]:
    policy = Policy(SPEC, POLICY)
    return {"space_fingerprint": SPEC.fingerprint, "network_fingerprint": policy.fingerprint,
            "network": policy.description, **extra}


def restore(directory: Path, agent: Agent | None = None, **arguments: Any) -> tuple[Agent, dict[str, Any]]:
    restored = CheckpointStore(directory).restore(agent or new_agent(seed=1), SPEC, Policy(SPEC, POLICY), **arguments)
    assert restored is not None
    return restored


@pytest.fixture(scope="module")
def learned() -> Agent:
    return learn(new_agent(), 2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, learned) -> Path:
    """Return a directory with the checkpoint of ``learned``. Tests that change it work on a copy."""
    directory = tmp_path_factory.mktemp("run") / "checkpoints"
    CheckpointStore(directory).save(learned, metadata(version=3, sampling={"state": 2**100}))
    return directory


@pytest.fixture
def directory(tmp_path, saved) -> Path:
    return shutil.copytree(saved, tmp_path / "checkpoints")


def test_everything_comes_back_bit_by_bit(saved, learned):
    agent, found = restore(saved)
    assert same(agent, learned)
    assert int(agent.step) == 2
    assert found == metadata(version=3, sampling={"state": 2**100})


CONTINUE = """
import sys
sys.path.insert(0, {tests!r})
from test_checkpoint import *
agent, _ = restore(Path({source!r}))
CheckpointStore(Path({target!r})).save(learn(agent, 2), metadata())
"""


def test_learning_goes_on_in_another_process_as_if_nothing_had_happened(saved, tmp_path):
    code = CONTINUE.format(tests=str(Path(__file__).parent), source=str(saved), target=str(tmp_path))
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)  # not where the sources are
    continued, _ = restore(tmp_path)
    assert int(continued.step) == 4
    assert same(continued, learn(new_agent(), 4))


def test_only_the_newest_are_kept(tmp_path, learned):
    store = CheckpointStore(tmp_path, keep=2)
    for step in (1, 5, 3, 10):
        store.save(learned.replace(step=np.int32(step)), metadata(version=step))
    assert store.steps() == [5, 10]
    assert restore(tmp_path)[1]["version"] == 10
    assert restore(tmp_path, step=5)[1]["version"] == 5


def test_a_step_is_saved_once(directory, learned):
    CheckpointStore(directory).save(learned, metadata(version=4))
    assert restore(directory)[1]["version"] == 3


def test_a_new_run_has_no_checkpoint(tmp_path):
    assert CheckpointStore(tmp_path / "none").restore(new_agent(), SPEC, Policy(SPEC, POLICY)) is None
    assert not (tmp_path / "none").exists()


def test_an_unfinished_checkpoint_does_not_count(directory, learned):
    unfinished = shutil.copytree(directory / "2", directory / "9.unfinished")
    assert int(restore(directory)[0].step) == 2
    assert unfinished.exists()  # to read changes nothing
    CheckpointStore(directory).save(learned.replace(step=np.int32(3)), metadata())
    assert sorted(path.name for path in directory.iterdir()) == ["2", "3"]


SAVE_WITHOUT_END = """
import sys
sys.path.insert(0, {tests!r})
from test_checkpoint import *
agent, step = new_agent(), 0
while True:
    step += 1
    CheckpointStore(Path({target!r})).save(agent.replace(step=np.int32(step)), metadata(version=step))
"""


def test_a_kill_while_saving_leaves_good_checkpoints(tmp_path):
    code = SAVE_WITHOUT_END.format(tests=str(Path(__file__).parent), target=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code])
    store, deadline = CheckpointStore(tmp_path), time.monotonic() + 60
    while len(store.steps()) < 3 or not list(tmp_path.glob("*.unfinished*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    process.wait()
    for step in store.steps():
        agent, found = restore(tmp_path, step=step)
        assert int(agent.step) == found["version"] == step
        assert same(agent.replace(step=np.int32(0)), new_agent())


# Refusals


def refusal(directory: Path, agent: Agent | None = None, spec: SpaceSpec = SPEC, policy: PolicyConfig = POLICY,
            **arguments: Any) -> str:
    with pytest.raises(DataError) as caught:
        CheckpointStore(directory).restore(agent or new_agent(), spec, Policy(spec, policy), **arguments)
    assert str(directory) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_step(saved, tmp_path):
    assert "expected a checkpoint of step 7, found [2]" in refusal(saved, step=7)
    assert "expected a checkpoint of step 7, found none" in refusal(tmp_path, step=7)


def test_another_space_policy_or_ensemble(saved):
    other = space("other")
    assert f"space fingerprint: expected {other.fingerprint}, found {SPEC.fingerprint}" in refusal(saved, spec=other)
    wider = PolicyConfig(hidden_dims=(9,))
    assert (f"network fingerprint: expected {Policy(SPEC, wider).fingerprint}, "
            f"found {Policy(SPEC, POLICY).fingerprint}") in refusal(saved, policy=wider)
    assert "other settings (hidden_dims: checkpoint [8], now [9]): resume without changing them, or begin a new" in (
        refusal(saved, policy=wider))
    more = new_agent(AgentConfig(num_qs=5, critic_hidden_dims=(8,)))
    assert "hidden_0.bias: expected float32[5, 8], found float32[3, 8]" in refusal(saved, more)
    plain = new_agent(AgentConfig(num_qs=3, critic_hidden_dims=(8,), critic_layer_norm=False))
    assert "norm_0.bias: expected none, found float32[3, 8]" in refusal(saved, plain)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, shorten, Path.unlink], ids=["flipped", "shortened", "missing"])
def test_damage_to_any_file_is_noticed(directory, learned, damage: Callable[[Path], None]):
    files = [path for path in sorted((directory / "2").rglob("*")) if path.is_file() and path.stat().st_size]
    assert len(files) > 5
    for path in files:
        original = path.read_bytes()
        damage(path)
        assert "damaged: " in refusal(directory)
        path.write_bytes(original)
    assert same(restore(directory)[0], learned)


def test_changed_metadata(directory):
    record = directory / "2" / "record" / "metadata"
    record.write_text(record.read_text().replace('"version": 3', '"version": 4'))
    assert "damaged: record/metadata: expected SHA-256 " in refusal(directory)


def test_far_more_than_the_network_holds_is_not_read(directory):
    with (directory / "2" / "record" / "metadata").open("ab") as file:
        file.truncate(50_000_000)
    assert "expected at most 100" in refusal(directory)


def test_values_that_were_replaced_whole(directory):
    """Files that are sound in themselves, but of another checkpoint."""
    other = learn(new_agent(seed=5), 1).replace(step=np.int32(2))
    CheckpointStore(directory / "other").save(other, metadata())
    shutil.rmtree(directory / "2" / "state")
    shutil.copytree(directory / "other" / "2" / "state", directory / "2" / "state")
    assert "damaged: state/" in refusal(directory)


def test_what_is_not_of_the_checkpoint_is_not_read(directory):
    (directory / "2" / "state" / "stranger").write_text("x")
    assert "damaged: state/stranger: expected SHA-256 no such file" in refusal(directory)
    (directory / "2" / "digests.json").write_text("[]")
    assert "damaged: digests.json: expected a digest for each file" in refusal(directory)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # TensorStore's, of what is in the way
def test_an_invented_list_of_files_does_not_make_orbax_believe_them(directory):
    """Whoever can write digests can write anything; it ends in one line all the same."""
    for path in (directory / "2" / "state").rglob("*"):
        if path.is_file() and path.stat().st_size:
            flip(path)
    (directory / "2" / "digests.json").write_text(json.dumps(_digests(directory / "2")))
    assert "damaged: its state cannot be read" in refusal(directory)


def test_what_cannot_be_written_is_one_line(tmp_path, learned):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(DataError, match=f"{blocked}: cannot write checkpoint 2: "):
        CheckpointStore(blocked).save(learned, metadata())
