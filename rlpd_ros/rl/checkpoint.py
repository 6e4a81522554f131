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
from rlpd_ros.rl.policy import Policy, description_difference
from rlpd_ros.types import SpaceSpec
from rlpd_ros.untrusted import parse_json, printable, read_text

_FORMAT = 3
_DIGESTS = "digests.json"  # of all other files of a checkpoint
_UNFINISHED = ".unfinished"
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

        ``metadata``: anything JSON, with "space_fingerprint" and "network_fingerprint", which ``restore`` compares,
        and "network", the policy's description.
        Raises DataError if it cannot be written, for example because the disk is full.
        """
        step = int(agent.step)
        if step in self.steps():
            return
        state = _state(agent)
        record = {"format": _FORMAT, "metadata": dict(metadata), "layout": _layout(state)}
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for left in self.directory.glob(f"*{_UNFINISHED}*"):
                shutil.rmtree(left)
            ocp, unfinished = _orbax(), self.directory / f"{step}{_UNFINISHED}"
            with _checkpointer() as checkpointer:
                checkpointer.save(unfinished, args=ocp.args.Composite(
                    state=ocp.args.StandardSave(_pack(state)), record=ocp.args.JsonSave(record)))
            (unfinished / _DIGESTS).write_text(json.dumps(_digests(unfinished), indent=1))
            unfinished.rename(self.directory / str(step))
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
        _expect_as_written(path)
        record = _read_record(path)
        metadata = record["metadata"]
        _expect(path, "space fingerprint", spec.fingerprint, metadata.get("space_fingerprint"))
        lines = description_difference(str(metadata.get("network", "")), policy.description, "checkpoint", "now")
        _expect(path, "network fingerprint", policy.fingerprint, metadata.get("network_fingerprint"),
                f" ({printable('; '.join(lines), 2000)}): resume without changing them, or begin a new run")
        state = _state(agent)
        expected, found = _layout(state), record["layout"]
        for name in sorted(expected.keys() | found.keys()):
            _expect(path, f"network or optimiser array {name}", expected.get(name, "none"), found.get(name, "none"))
        packed = _read(path, "state", _orbax().args.StandardRestore(_pack(state)))
        return agent.replace(**_unpack(packed, state)), metadata


_ADVICE = "; move this folder away to use the checkpoint before it"


def _expect_size(path: Path, agent: Agent) -> None:
    """Refuse a folder that holds far more than this agent does: it is read only to be compared."""
    limit = SPARE_BYTES + 2 * sum(leaf.nbytes for leaf in _leaves(_state(agent)).values())
    found = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    if found > limit:
        raise DataError(f"{path}: expected at most {limit} bytes for this network, found {found}{_ADVICE}")


def _expect_as_written(path: Path) -> None:
    """Refuse files that are not those that were written, before Orbax looks at them."""
    try:
        expected = parse_json(read_text(path / _DIGESTS))
    except DataError as error:
        raise DataError(f"{path}: damaged: {error}{_ADVICE}") from error
    if not isinstance(expected, dict):
        raise DataError(f"{path}: damaged: {_DIGESTS}: expected a digest for each file{_ADVICE}")
    found = _digests(path)
    for name in sorted(expected.keys() | found.keys()):
        wanted, there = (digests.get(name, "no such file") for digests in (expected, found))
        if wanted != there:
            raise DataError(f"{path}: damaged: {printable(name)}: expected SHA-256 {printable(wanted)}, "
                            f"found {there}{_ADVICE}")


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder, by its path there."""
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(folder.rglob("*")) if file.is_file() and file != folder / _DIGESTS}


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
    kinds = {"format": int, "layout": dict, "metadata": dict}
    if not isinstance(record, dict) or any(not isinstance(record.get(name), kind) for name, kind in kinds.items()):
        raise DataError(f"{path}: damaged: its record is incomplete: expected {', '.join(kinds)}{_ADVICE}")
    _expect(path, "checkpoint format", _FORMAT, record["format"])
    return record


def _expect(path: Path, name: str, expected: Any, found: Any, more: str = "") -> None:
    if found != expected:
        raise DataError(f"{path}: {name}: expected {expected}, found {found}: it belongs to other settings{more}")


def _state(agent: Agent) -> dict[str, Any]:
    names = ("actor", "critic", "target_critic", "temperature", "rng", "step", "encoder", "target_encoder", "grasp",
             "target_grasp")
    parts = {name: getattr(agent, name) for name in names}
    return {name: part for name, part in parts.items() if jax.tree.leaves(part)}


def _leaves(state: dict[str, Any]) -> dict[str, np.ndarray]:
    paths = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in paths}


def _pack(state: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return one array per type with all elements, in the order of the layout.

    Orbax takes some 2 ms for each array, during which nothing is learned, and TensorStore loses half a kilobyte.
    """
    kinds: dict[str, list[np.ndarray]] = {}
    for leaf in _leaves(state).values():
        kinds.setdefault(str(leaf.dtype), []).append(leaf.ravel())
    return {kind: np.concatenate(arrays) for kind, arrays in kinds.items()}


def _unpack(packed: Mapping[str, np.ndarray], like: dict[str, Any]) -> dict[str, Any]:
    """Undo ``_pack``; every array goes to the devices where that of ``like`` is."""
    taken = dict.fromkeys(packed, 0)

    def take(leaf: jax.Array) -> jax.Array:
        kind = str(leaf.dtype)
        first = taken[kind]
        taken[kind] += leaf.size
        return jax.device_put(packed[kind][first:taken[kind]].reshape(leaf.shape), leaf.sharding)

    return jax.tree.map(take, like)


def _layout(state: dict[str, Any]) -> dict[str, str]:
    return {path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in _leaves(state).items()}


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
