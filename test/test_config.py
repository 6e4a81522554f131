# SPDX-License-Identifier: Apache-2.0
import math
from dataclasses import dataclass

import pytest

from rlpd_ros.config import from_mapping, parameter
from rlpd_ros.errors import ConfigError
from rlpd_ros.settings import NODES, TOOLS


@dataclass(frozen=True)
class Example:
    rate: float = parameter(10.0, "Hz", low=0.1, high=100.0)
    steps: int = parameter(5, "how many", low=0)
    kind: str = parameter("a", "which", choices=("a", "b"))
    flag: bool = parameter(False, "whether")
    widths: tuple[int, ...] = parameter((256, 256), "of layers", low=1)
    paths: tuple[str, ...] = parameter((), "to files")


def test_defaults_and_conversions() -> None:
    config = from_mapping(Example, {"rate": 3, "widths": [1, 2], "paths": ["x"]}, "here")
    assert config == Example(rate=3.0, widths=(1, 2), paths=("x",))
    assert type(config.rate) is float


@pytest.mark.parametrize(("values", "expected"), [
    ({"rat": 1.0}, "here: unknown parameter 'rat'; did you mean 'rate'?"),
    ({"rate": 0.0}, "here: parameter 'rate': expected a value from 0.1 to 100.0, found 0.0"),
    ({"rate": math.nan}, "here: parameter 'rate': expected a value from 0.1 to 100.0, found nan"),
    ({"rate": "10"}, "here: parameter 'rate': expected a number, found '10'"),
    ({"steps": 1.5}, "here: parameter 'steps': expected a whole number, found 1.5"),
    ({"steps": True}, "here: parameter 'steps': expected a whole number, found True"),
    ({"steps": -1}, "here: parameter 'steps': expected a value from 0 to inf, found -1"),
    ({"flag": 1}, "here: parameter 'flag': expected true or false, found 1"),
    ({"kind": "c"}, "here: parameter 'kind': expected one of a, b, found 'c'"),
    ({"widths": 256}, "here: parameter 'widths': expected a list, found 256"),
    ({"widths": [256, 0]}, "here: parameter 'widths'[1]: expected a value from 1 to inf, found 0"),
    ({"paths": [1]}, "here: parameter 'paths'[0]: expected a text, found 1"),
])
def test_what_is_wrong_is_named_with_what_was_expected_and_found(values: dict, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_mapping(Example, values, "here")
    assert str(error.value) == expected


def test_every_default_of_every_node_is_admissible_and_documented() -> None:
    for node, config_types in (NODES | TOOLS).items():
        for config_type in config_types:
            defaults = vars(config_type())
            assert from_mapping(config_type, defaults, node) == config_type()
            for f in config_type.__dataclass_fields__.values():
                assert f.metadata["range"].doc, f"{node}: {f.name} has no description"


def test_a_parameter_name_means_one_thing_within_a_node() -> None:
    for node, config_types in (NODES | TOOLS).items():
        names = [name for config_type in config_types for name in config_type.__dataclass_fields__]
        assert len(names) == len(set(names)), f"{node}: {sorted({n for n in names if names.count(n) > 1})}"
