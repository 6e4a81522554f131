# SPDX-License-Identifier: Apache-2.0
"""The learner's state on disk: written by Orbax, atomic, rotated, and checked in full when it is read."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from rlpd_ros.errors import DataError
from rlpd_ros.rl.agent import Agent
from rlpd_ros.rl.policy import Policy
from rlpd_ros.types import SpaceSpec

_FORMAT = 1
SPARE_BYTES = 10_000_000  # of a checkpoint, besides the arrays


class CheckpointStore:
    """The checkpoints of one run: a directory with one folder per gradient step.

    ``keep``: how many of the newest stay. Only ``save`` writes: any process may look at a directory that another one is
    writing to. A checkpoint that was not finished, because the process was killed, does not count.
    """

    def __init__(self, directory: Path | str, keep: int = 3) -> None:
        self.directory = Path(directory).absolute()
        self._keep = keep

    def steps(self) -> list[int]:
        """Return the gradient steps of the complete checkpoints, oldest first."""
        if not self.directory.is_dir():
            return []
        return sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdigit())

    def save(self, agent: Agent, metadata: Mapping[str, Any]) -> None:
        """Write the whole agent under its gradient step, unless that exists; returns when it is complete.

        ``metadata``: anything JSON, with "space_fingerprint" and "network_fingerprint", which ``restore`` compares.
        Raises DataError if it cannot be written, for example because the disk is full.
        """
        step = int(agent.step)
        if step in self.steps():
            return
        state = _state(agent)
        record = {"format": _FORMAT, "metadata": dict(metadata), "layout": _layout(state),
                  "digest": _digest(state, metadata)}
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for unfinished in self.directory.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(unfinished)
            ocp = _orbax()
            with _checkpointer() as checkpointer:  # writes to a temporary folder, then renames that
                checkpointer.save(self.directory / str(step), args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record)))
            for old in self.steps()[:-self._keep]:
                shutil.rmtree(self.directory / str(old))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.directory}: cannot write checkpoint {step}: {_line(error)}") from error

    def restore(self, agent: Agent, spec: SpaceSpec, policy: Policy, step: int | None = None
                ) -> tuple[Agent, dict[str, Any]] | None:
        """Return ``agent`` with the saved state, and the metadata; None if there is no checkpoint.

        ``step`` defaults to the newest. Raises DataError naming the folder, what was expected and what was found, if
        there is none of that step, if it was made for another space, another policy or other settings of the agent
        that change what is stored, or if anything is damaged.
        """
        steps = self.steps()
        if not steps and step is None:
            return None
        step = steps[-1] if step is None else step
        if step not in steps:
            raise DataError(f"{self.directory}: expected a checkpoint of step {step}, found {steps or 'none'}")
        path = self.directory / str(step)
        _expect_size(path, agent)
        record = _read_record(path)
        metadata = record["metadata"]
        _expect(path, "space fingerprint", spec.fingerprint, metadata.get("space_fingerprint"))
        _expect(path, "network fingerprint", policy.fingerprint, metadata.get("network_fingerprint"))
        state = _state(agent)
        expected, found = _layout(state), record["layout"]
        for name in sorted(expected.keys() | found.keys()):
            _expect(path, f"network or optimiser array {name}", expected.get(name, "none"), found.get(name, "none"))
        restored = _read(path, "state", _orbax().args.StandardRestore(state))
        digest = _digest(restored, metadata)
        if digest != record["digest"]:
            raise DataError(f"{path}: damaged: expected digest {record['digest']}, found {digest}{_ADVICE}")
        return agent.replace(**restored), metadata


_ADVICE = "; move this folder away to use the checkpoint before it"


def _expect_size(path: Path, agent: Agent) -> None:
    """Refuse a folder that holds far more than this agent does: it is read only to be compared."""
    limit = SPARE_BYTES + 2 * sum(leaf.nbytes for leaf in _leaves(_state(agent)).values())
    found = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    if found > limit:
        raise DataError(f"{path}: expected at most {limit} bytes for this network, found {found}{_ADVICE}")


def _orbax() -> ModuleType:
    """Import Orbax when it is needed: that takes a third of all that happens before the first policy goes out."""
    import orbax.checkpoint

    return orbax.checkpoint


def _checkpointer() -> Any:
    ocp = _orbax()
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler(
        state=ocp.StandardCheckpointHandler(), record=ocp.JsonCheckpointHandler()))


def _read(path: Path, item: str, args: Any) -> Any:
    try:
        with _checkpointer() as checkpointer:
            return checkpointer.restore(path, args=_orbax().args.Composite(**{item: args}))[item]
    except Exception as error:  # Orbax and TensorStore raise many kinds; all mean that the files are not as written
        raise DataError(f"{path}: damaged: its {item} cannot be read: {_line(error)}{_ADVICE}") from error


def _read_record(path: Path) -> dict[str, Any]:
    record = _read(path, "record", _orbax().args.JsonRestore())
    kinds = {"format": int, "digest": str, "layout": dict, "metadata": dict}
    if not isinstance(record, dict) or any(not isinstance(record.get(name), kind) for name, kind in kinds.items()):
        raise DataError(f"{path}: damaged: its record is incomplete: expected {', '.join(kinds)}{_ADVICE}")
    _expect(path, "checkpoint format", _FORMAT, record["format"])
    return record


def _expect(path: Path, name: str, expected: Any, found: Any) -> None:
    if found != expected:
        raise DataError(f"{path}: {name}: expected {expected}, found {found}: it belongs to other settings")


def _state(agent: Agent) -> dict[str, Any]:
    names = ("actor", "critic", "target_critic", "temperature", "rng", "step", "encoder", "target_encoder", "grasp",
             "target_grasp")
    parts = {name: getattr(agent, name) for name in names}
    return {name: part for name, part in parts.items() if jax.tree.leaves(part)}


def _leaves(state: dict[str, Any]) -> dict[str, np.ndarray]:
    paths = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in paths}


def _layout(state: dict[str, Any]) -> dict[str, str]:
    return {path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in _leaves(state).items()}


def _digest(state: dict[str, Any], metadata: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for path, leaf in _leaves(state).items():
        digest.update(path.encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
