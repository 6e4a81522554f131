# SPDX-License-Identifier: Apache-2.0
"""Weights out of files: both layouts, and that a hostile file runs nothing and is refused in one line."""

from __future__ import annotations

import io
import os
import pickle
import pickletools

import jax
import numpy as np
import pytest
from flax.core import freeze
from safetensors.numpy import save_file

from rlpd_ros.errors import DataError
from rlpd_ros.rl.backbone import load_backbone
from rlpd_ros.rl.pickled_arrays import read_pickled_arrays


def tree() -> dict:
    """Return weights of the right shapes that differ from the random ones."""
    return jax.tree.map(lambda x: np.array(x) + np.float32(0.5), dict(load_backbone("").params))


def flat(weights: dict, separator: str, prefix: str = "") -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name, value in weights.items():
        path = f"{prefix}{separator}{name}" if prefix else name
        found |= flat(value, separator, path) if isinstance(value, dict) else {path: value}
    return found


def same(a, b) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, dict(a), dict(b))))


def test_random_weights_are_the_same_everywhere_and_say_so():
    backbone = load_backbone("")
    assert backbone.digest == "2afab2291d9e461f"  # whatever was learned without a file is lost with it
    assert "random weights" in backbone.origin
    assert sum(leaf.size for leaf in jax.tree.leaves(dict(backbone.params))) == 4_905_792


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_the_pickle_of_hil_serl(tmp_path, protocol):
    path, weights = tmp_path / "resnet10_params.pkl", tree()
    path.write_bytes(pickle.dumps({**weights, "classifier": {"bias": np.zeros(7, np.float32)}}, protocol))
    backbone = load_backbone(str(path))
    assert same(backbone.params, weights)
    assert backbone.digest != load_backbone("").digest


def test_reads_arrays_of_jax_and_frozen_dictionaries():
    weights = {"a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T}, "b": np.float32([1])}
    for made in (jax.tree.map(jax.numpy.asarray, weights), freeze(weights)):
        assert same(read_pickled_arrays(pickle.dumps(made, 4)), weights)


@pytest.mark.parametrize("separator", ["/", "."])
def test_reads_safetensors(tmp_path, separator):
    path, weights = tmp_path / "weights.safetensors", tree()
    save_file(flat(weights, separator), path)
    assert same(load_backbone(str(path)).params, weights)


def test_safetensors_are_known_whatever_the_length_of_their_header(tmp_path):
    path, begins = tmp_path / "weights.safetensors", set()
    for padding in range(0, 256, 8):
        save_file({"a": np.zeros(2, np.float32)}, path, {"note": "x" * (1 + padding)})
        begins.add(path.read_bytes()[:1])
        with pytest.raises(DataError, match=r"expected an array ResNetBlock_0/Conv_0/kernel .*, found only a"):
            load_backbone.__wrapped__(str(path))
    assert b"\x80" in begins  # as a pickle does


def refusal(tmp_path, content: bytes) -> str:
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_backbone.__wrapped__(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_missing_or_misshapen_is_named(tmp_path):
    weights = tree()
    del weights["ResNetBlock_2"]["Conv_1"]
    assert "expected an array ResNetBlock_2/Conv_1/kernel of a ResNet-10" in refusal(tmp_path, pickle.dumps(weights))
    weights = tree()
    weights["conv_init"]["kernel"] = np.zeros((7, 7, 3, 32), np.float32)
    assert "conv_init/kernel: expected [7, 7, 3, 64] of floats, found float32 [7, 7, 3, 32]" in refusal(
        tmp_path, pickle.dumps(weights))
    weights["conv_init"]["kernel"] = np.full((7, 7, 3, 64), np.nan, np.float32)
    assert "conv_init/kernel: expected finite values" in refusal(tmp_path, pickle.dumps(weights))
    with pytest.raises(DataError, match="cannot read the backbone: No such file"):
        load_backbone(str(tmp_path / "none"))


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, function, *arguments) -> None:
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("payload", [
    Hostile(os.system, "touch {mark}"), Hostile(eval, "open('{mark}', 'w')"), Hostile(exec, "open('{mark}', 'w')"),
    Hostile(getattr, os, "system"), Hostile(np.load, "{mark}"), Hostile(io.open, "{mark}", "w"),
    Hostile(np.ndarray.__new__, np.ndarray, (2**40,))], ids=lambda payload: payload.reduced[0].__name__)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_hostile_pickle_runs_nothing(tmp_path, payload, protocol):
    mark = tmp_path / "mark"
    arguments = tuple(a.format(mark=mark) if isinstance(a, str) else a for a in payload.reduced[1])
    if payload.reduced[0] is getattr:
        arguments = ("os", "system")
    text = refusal(tmp_path, pickle.dumps({"a": Hostile(payload.reduced[0], *arguments)}, protocol))
    assert "only arrays and dictionaries are read, nothing is run" in text
    assert not mark.exists()


@pytest.mark.parametrize("content", [
    b"", b"\x80", b"\x80\x04.", b"\x80\x04K\x01.", pickle.dumps([1]), pickle.dumps({"a": 1}),
    pickle.dumps({"a": object}),
    pickle.dumps({"a": np.array([object], object)}), pickle.dumps({"a": np.array(["x"])}),
    b"\x80\x04}r\xff\xff\xff\x7f.",  # a memory of 2^31 entries
    b"\x80\x04\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes without end
    b"\x80\x04cnumpy\nndarray\n}b.", b"\x80\x04cnumpy\ndtype\n(tR.", b"\x80\x04cnumpy\ndtype\nK\x01R.",
    b"\x80\x04}}}\x87.", b"\x80\x04(((((.", b"\x80\x04u.",
    b"\x80\x04R.", b"\x80\x040.", b"\x80\x04\x82\x01.", b"\x80\x04P1\n.",
    b"cos\nsystem\n(S'true'\ntR.", b"\xff" * 100, b"\x10\0\0\0\0\0\0\0{}"], ids=repr)
def test_nonsense_is_refused_in_one_line(tmp_path, content):
    refusal(tmp_path, content)


def test_depth_and_size_are_bounded(tmp_path):
    deep: dict = {}
    for _ in range(100):
        deep = {"a": deep}
    assert "more than 32 levels" in refusal(tmp_path, pickle.dumps(deep))
    wide: dict = {"a": np.zeros(1, np.float32)}
    for _ in range(31):
        wide = {"a": wide, "b": wide}
    assert "a dictionary in two places" in refusal(tmp_path, pickle.dumps(wide))
    data = pickle.dumps({"a": np.zeros(4, np.float32)}, 4)
    assert len(list(pickletools.genops(data))) < 100
    assert "an array of float32 [4] in 16 bytes" not in refusal(tmp_path, data)  # it is whole: only names are missing
    assert "in 16 bytes" in refusal(tmp_path, data.replace(b"K\x04\x85", b"K\x05\x85"))


def test_every_damaged_byte_is_noticed_or_harmless():
    data = pickle.dumps({"a": {"kernel": np.arange(4, dtype=np.float32)}}, 4)
    for i in range(len(data)):
        for value in (0, 255, data[i] ^ 1, data[i] ^ 16):
            damaged = data[:i] + bytes([value]) + data[i + 1:]
            try:
                found = read_pickled_arrays(damaged)
            except DataError:
                continue
            assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))
