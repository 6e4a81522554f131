# SPDX-License-Identifier: Apache-2.0
"""The policy as an actor needs it: its network, how its parameters travel, and the proof that they arrived intact."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlpd_ros.errors import DataError
from rlpd_ros.rl.backbone import backbone_of
from rlpd_ros.rl.compilation import usable_devices
from rlpd_ros.rl.config import PolicyConfig
from rlpd_ros.rl.encoders import STEEPNESS, frozen_features
from rlpd_ros.rl.networks import (
    GRASPS,
    Params,
    distribution,
    encode,
    grasp_q,
    init_encoder,
    init_network,
    make_actor,
    make_encoder,
    make_grasp_critic,
    squash,
    with_grasp,
)
from rlpd_ros.types import Observation, PolicySnapshot, SpaceSpec, checksum, expect_shape, fingerprint
from rlpd_ros.untrusted import parse_json, printable

PROBE_TOLERANCE = 1e-4  # two machines may round differently; another network or other parameters differ by far more
_MAX_DESCRIPTION = 1 << 18  # characters of a description that anyone parses


class Policy:
    """A policy network without parameters: pure functions of them, compiled once.

    Its parameters are those of the Gaussian policy, with images the trained part of what sees ("encoder"), with a
    discrete gripper that of its critic ("grasp"). A frozen ``backbone`` is none of them: everybody has it in a file.
    ``description``: the network in words (JSON). ``fingerprint``: of the description and of the layout of the
    serialised parameters. ``data_size``: bytes of the serialised parameters. Raises ConfigError as ``make_actor``,
    ``backbone_of`` and ``usable_devices`` do.
    """

    def __init__(self, spec: SpaceSpec, config: PolicyConfig) -> None:
        usable_devices()  # an actor computes here first
        self.network = make_actor(spec, config)
        self.backbone = backbone_of(spec, config)
        self._config = config
        self._spec = spec
        self._encoder = make_encoder(spec, config)
        self._grasp = make_grasp_critic(spec, config)
        self._frozen = jax.device_put(self.backbone.params) if self.backbone else {}
        shapes = jax.eval_shape(self.init, 0)
        paths, self._structure = jax.tree_util.tree_flatten_with_path(shapes)
        self._layout = [("/".join(key.key for key in path), leaf.shape) for path, leaf in paths]
        self._sizes = [int(np.prod(shape)) for _, shape in self._layout]
        self.data_size = 4 * sum(self._sizes)
        self.description = json.dumps(self._describe(), sort_keys=True)
        layout = [[path, shape, "float32"] for path, shape in self._layout]
        self.fingerprint = fingerprint(self.description + json.dumps(layout))
        self._act = jax.jit(self._act_of)
        self._cut = jax.jit(self._cut_of)
        self._grasp_worth = jax.jit(self._grasp_worth_of)
        self._no_key = jax.random.PRNGKey(0)

    def _describe(self) -> dict[str, Any]:
        config, spec = asdict(self._config), self._spec
        without = {"backbone"}  # its content counts, wherever it lies
        without |= set() if self.backbone else {"backbone_stages"}
        without |= set() if spec.image_fields else {"encoder", "spatial_embeddings", "bottleneck_dim", "proprio_dim"}
        without |= set() if self._grasp else {"hybrid_gripper", "grasp_hidden_dims", "grasp_epsilon"}
        description = {
            **{name: value for name, value in config.items() if name not in without},
            "inputs": [[f.name, f.size] for f in spec.state_fields],
            "outputs": [[f.name, f.size] for f in spec.action],
            "input_center": self._encoder.center,
            "input_scale": self._encoder.scale,
        }
        if any(self._encoder.unbounded):
            description["input_symlog"] = [STEEPNESS * unbounded for unbounded in self._encoder.unbounded]
        if spec.image_fields:
            description["images"] = [[f.name, f.shape] for f in spec.image_fields]
            description["backbone"] = self.backbone.digest if self.backbone else "none"
        return description

    def init(self, seed: int | jax.Array) -> Params:
        """Return fresh random parameters."""
        key = jax.random.PRNGKey(seed)
        params = dict(init_network(self.network, key))
        if self._spec.image_fields:
            params["encoder"] = init_encoder(self._spec, self._encoder, jax.random.fold_in(key, 1))
        if self._grasp is not None:
            params["grasp"] = init_network(self._grasp, jax.random.fold_in(key, 2))
        return params

    def mode(self, params: Params, observation: Observation) -> np.ndarray:
        """Return the greedy action, float32 (action_size,) in [-1, 1].

        Raises DataError for a state or an image of another shape.
        """
        action, _ = self._act(params, self._frozen, self._inputs(observation), self._no_key, np.float32(0))
        return np.asarray(action)

    def sample(self, params: Params, observation: Observation, key: jax.Array) -> tuple[np.ndarray, jax.Array]:
        """Return an action drawn from the policy, as ``mode`` does, and the random key for the next call."""
        action, key = self._act(params, self._frozen, self._inputs(observation), key, np.float32(1))
        return np.asarray(action), key

    def difference(self, params: Params, observation: Observation, action: np.ndarray) -> float:
        """Return the largest difference between ``action`` and the greedy one.

        Where a discrete gripper's choices differ, it is what they are worth that counts, relative to the largest Q
        value: of two that are equal, either may come out on another machine. Raises DataError for another shape.
        """
        ours = self.mode(params, observation)
        expect_shape("probe action", action, ours.shape)
        differences = np.abs(ours - action)
        if self._grasp is not None and differences[-1] > 0 and action[-1] in (-1, 0, 1):
            worth = np.asarray(self._grasp_worth(params, self._frozen, self._inputs(observation)))
            differences[-1] = (worth.max() - worth[int(action[-1]) + 1]) / max(1.0, np.abs(worth).max())
        return float(differences.max())

    def compile(self) -> None:
        """Compile what ``mode`` and ``sample`` compute now, so that no control step has to wait for it."""
        params = self._cut(np.zeros(sum(self._sizes), np.float32))
        observation = Observation(np.zeros(self._spec.state_size, np.float32),
                                  {f.name: np.zeros(f.shape, np.uint8) for f in self._spec.image_fields})
        self.mode(params, observation)

    def serialize(self, params: Params) -> bytes:
        """Return a copy of the parameters as float32, little-endian, row-major, in the order of their paths.

        However many devices hold them.
        """
        return b"".join(np.ascontiguousarray(leaf, "<f4").data for leaf in jax.tree.leaves(params))

    def deserialize(self, data: bytes | memoryview) -> Params:
        """Undo ``serialize``. Raises DataError if the size is wrong or a value is not finite."""
        self._expect_size(data)
        values = np.frombuffer(data, "<f4")
        if not np.isfinite(values).all():
            bad = np.flatnonzero(~np.isfinite(values))
            raise DataError(f"policy parameters: expected finite values, found {bad.size} of {values.size} not finite, "
                            f"the first in {self._path_of(bad[0])}: the learner has diverged or the data is damaged")
        return self.params_of(data)

    def params_of(self, data: bytes | memoryview) -> Params:
        """Return the parameters that ``serialize`` made ``data`` of, without a look at them."""
        return self._cut(np.frombuffer(data, "<f4"))

    def _expect_size(self, data: bytes | memoryview) -> None:
        if len(data) != self.data_size:
            raise DataError(f"policy parameters: expected {self.data_size} bytes, found {len(data)}: "
                            "learner and actor run different networks, or the data is truncated")

    def _path_of(self, index: int) -> str:
        return self._layout[int(np.searchsorted(np.cumsum(self._sizes), index, side="right"))][0]

    def _inputs(self, observation: Observation) -> dict[str, np.ndarray]:
        expect_shape("observation state", observation.state, (self._spec.state_size,))
        inputs = {"state": np.asarray(observation.state, np.float32)}
        for f in self._spec.image_fields:
            image = observation.images.get(f.name, np.empty(0))
            expect_shape(f"observation image '{f.name}'", image, f.shape)
            inputs[f.name] = np.asarray(image, np.uint8)
        return inputs

    def _see(self, params: Params, frozen: Params, inputs: dict[str, Any]) -> jax.Array:
        if frozen:
            images = {f.name: inputs[f.name] for f in self._spec.image_fields}
            inputs = {**inputs, **frozen_features(frozen, images)}
        return encode(self._encoder, params.get("encoder", {}), inputs)

    def _act_of(self, params: Params, frozen: Params, inputs: dict[str, Any], key: jax.Array, noise: jax.Array
                ) -> tuple[jax.Array, jax.Array]:
        """Return the greedy action for ``noise`` 0, a drawn one for 1: one program, which is compiled once.

        In full precision, which GPUs do not use by themselves: another machine must be able to reproduce it.
        """
        key, now, whether, which = jax.random.split(key, 4)
        with jax.default_matmul_precision("float32"):
            seen = self._see(params, frozen, inputs)
            mean, log_std = distribution(self.network, _gaussian(params), seen)
            action, _ = squash(mean, log_std, noise * jax.random.normal(now, mean.shape))
            if self._grasp is not None:
                explore = jax.random.bernoulli(whether, noise * self._config.grasp_epsilon)
                best = grasp_q(self._grasp, params["grasp"], seen).argmax(-1)
                action = with_grasp(action, jnp.where(explore, jax.random.randint(which, (), 0, GRASPS), best))
        return action, key

    def _cut_of(self, values: jax.Array) -> Params:
        """Return the parameters that all ``values`` are; compiled, since each array by itself costs a call."""
        parts = jnp.split(values, np.cumsum(self._sizes)[:-1])
        leaves = [part.reshape(shape) for part, (_, shape) in zip(parts, self._layout, strict=True)]
        return jax.tree.unflatten(self._structure, leaves)

    def _grasp_worth_of(self, params: Params, frozen: Params, inputs: dict[str, Any]) -> jax.Array:
        assert self._grasp is not None
        with jax.default_matmul_precision("float32"):
            return grasp_q(self._grasp, params["grasp"], self._see(params, frozen, inputs))


def _gaussian(params: Params) -> Params:
    return {"mlp": params["mlp"]}


def make_snapshot(policy: Policy, data: bytes, spec: SpaceSpec, probe: Observation, *, session: str, version: int,
                  gradient_step: int, previous: bytes | memoryview = b"", stamp: int = 0) -> PolicySnapshot:
    """Wrap serialised parameters for their way to the actors, with the evidence that ``verify`` checks.

    ``probe``: any observation, best a typical one. ``previous``: the data of the version before, for ``change``
    (L2 norm of the difference; 0 without it). ``stamp`` in ns.
    """
    change = 0.0
    if previous:
        change = float(np.linalg.norm(np.frombuffer(data, "<f4") - np.frombuffer(previous, "<f4")))
    return PolicySnapshot(
        session=session, version=version, gradient_step=gradient_step, checksum=checksum(data),
        network=policy.description, network_fingerprint=policy.fingerprint, space_fingerprint=spec.fingerprint,
        probe=replace(probe, state=np.array(probe.state, np.float32)),
        probe_action=policy.mode(policy.params_of(data), probe), change=change, data=data, stamp=stamp)


def verify(snapshot: PolicySnapshot, policy: Policy, spec: SpaceSpec) -> tuple[Params, float]:
    """Return the snapshot's parameters and the probe's error if all evidence holds.

    Compares, in this order: network, size of the data, space, checksum, finiteness, probe (the learner's greedy action
    with our own: see ``Policy.difference``). Raises DataError naming what disagreed, with both values.
    """
    what = f"policy version {snapshot.version} refused"
    if snapshot.network_fingerprint != policy.fingerprint:
        lines = description_difference(snapshot.network, policy.description, "learner", "actor")
        raise DataError(f"{what}: network fingerprint: learner {printable(snapshot.network_fingerprint)}, "
                        f"actor {policy.fingerprint} ({printable('; '.join(lines), 2000) or 'equal descriptions'}): "
                        "give both nodes the same policy parameters")
    if len(snapshot.data) != policy.data_size:
        raise DataError(f"{what}: size: expected {policy.data_size} bytes, found {len(snapshot.data)}: "
                        "the message is truncated or not from this package")
    if snapshot.space_fingerprint != spec.fingerprint:
        raise DataError(f"{what}: space fingerprint: learner {printable(snapshot.space_fingerprint)}, actor "
                        f"{spec.fingerprint}: "
                        "they were started for different arms or observations")
    found = checksum(snapshot.data)
    if snapshot.checksum != found:
        raise DataError(f"{what}: checksum: learner {printable(snapshot.checksum)}, received data {found}: "
                        "the data was damaged on its way")
    try:
        params = policy.deserialize(snapshot.data)
        error = policy.difference(params, snapshot.probe, snapshot.probe_action)
    except DataError as reason:
        raise DataError(f"{what}: {reason}") from None
    if not error <= PROBE_TOLERANCE:  # NaN too
        ours = policy.mode(params, snapshot.probe)
        raise DataError(f"{what}: probe: learner's action {_short(snapshot.probe_action)}, actor's action "
                        f"{_short(ours)}, difference {error:.3g}, allowed {PROBE_TOLERANCE:.0e}: "
                        "the two networks compute different things")
    return params, error


def description_difference(theirs: str, ours: str, they: str, we: str) -> list[str]:
    """List, one line per setting, what two descriptions of a policy's network differ in."""
    a, b = (_parse(text) for text in (theirs, ours))
    if a is None or b is None:
        return [f"unreadable description from the {they if a is None else we}"]
    return [f"{name}: {they} {_value(a, name)}, {we} {_value(b, name)}"
            for name in sorted(a.keys() | b.keys()) if _value(a, name) != _value(b, name)]


def _parse(description: str) -> dict[str, Any] | None:
    if len(description) > _MAX_DESCRIPTION:
        return None
    try:
        parsed = parse_json(description)
    except DataError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _value(entries: dict[str, Any], name: str) -> str:
    return json.dumps(entries[name])[:200] if name in entries else "none"


def _short(action: np.ndarray) -> str:
    return np.array2string(np.asarray(action), precision=4, separator=", ", threshold=16)
