# SPDX-License-Identifier: Apache-2.0
"""How Gymnasium's spaces, actions and episodes become those of an arm."""

import importlib.util
import json
import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from rlpd_ros.arm.config import GymnasiumArmConfig
from rlpd_ros.arm.gymnasium_arm import GymnasiumArm
from rlpd_ros.arm.opengl import find_backend
from rlpd_ros.errors import ConfigError, DataError


class Scripted(gymnasium.Env):
    """Shows the spaces and does the steps that it is told to; remembers the last action."""

    def __init__(self, observation_space=None, action_space=None, observations=None, steps=()):
        self.observation_space = observation_space or spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = action_space or spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.observations, self.steps, self.action = observations, iter(steps), None

    def _observe(self):
        return self.observation_space.sample() if self.observations is None else self.observations

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action):
        self.action = action
        return self._observe(), *next(self.steps, (0.0, False, False, {}))


gymnasium.register("rlpd_test/Scripted-v0", entry_point=Scripted, max_episode_steps=5)
gymnasium.register("rlpd_test/Endless-v0", entry_point=Scripted)


def make(env_id="rlpd_test/Scripted-v0", **options):
    return GymnasiumArm(GymnasiumArmConfig(gym_env_id=env_id, **options))


def make_scripted(monkeypatch, action_map="{}", keys=(), bounds="{}", **spaces_and_steps):
    """Return an arm on a Scripted environment with arguments that JSON could not carry, and that environment."""
    env = Scripted(**spaces_and_steps)
    monkeypatch.setitem(gymnasium.registry, "rlpd_test/Given-v0",
                        gymnasium.envs.registration.EnvSpec("rlpd_test/Given-v0", lambda: env, max_episode_steps=5))
    return make("rlpd_test/Given-v0", gym_action_map=action_map, gym_observation_keys=keys,
                gym_observation_bounds=bounds), env


def test_actions_span_the_bounds_of_the_box():
    arm, raw = make("Pendulum-v1"), gymnasium.make("Pendulum-v1")
    (f,) = arm.spec.action
    assert (f.low, f.high) == ((-2.0,), (2.0,))
    np.testing.assert_allclose(arm.reset(seed=7).state, raw.reset(seed=7)[0])
    for action in (-1.0, 0.25, 1.0):
        result, (state, reward, *_) = arm.step([action]), raw.step(np.array([2.0 * action], np.float32))
        np.testing.assert_allclose(result.observation.state, state, atol=1e-6)
        assert result.reward == pytest.approx(reward)


def test_bounds_that_are_not_symmetric(monkeypatch):
    box = spaces.Box(np.array([[0.0, -4.0]]), np.array([[2.0, 8.0]]), dtype=np.float64)
    arm, env = make_scripted(monkeypatch, action_space=box)
    arm.reset()
    for action, command in (([-1, -1], [0, -4]), ([0, 0], [1, 2]), ([1, 1], [2, 8])):
        arm.step(action)
        np.testing.assert_allclose(env.action, [command])
        assert env.action.dtype == np.float64


def test_action_map_commands_some_elements_and_leaves_the_others_still(monkeypatch):
    box = spaces.Box(np.array([-1.0, -1.0, 0.5, -np.inf], np.float32), np.array([1.0, 1.0, 2.0, np.inf], np.float32))
    arm, env = make_scripted(monkeypatch, action_space=box, action_map='{"3": [0, 50], "0": [-0.02, 0.04]}')
    assert arm.spec.action_size == 2
    arm.reset()
    arm.step([1.0, -1.0])
    np.testing.assert_allclose(env.action, [-0.02, 0.0, 0.5, 50.0])
    assert env.action.dtype == np.float32


@pytest.mark.parametrize(("text", "said"), [
    ("[]", "gym_action_map: expected a JSON object, found '[]'"),
    ("{", "gym_action_map: expected a JSON object"),
    ('{"x": [0, 1]}', "gym_action_map: expected element -> [value for -1, value for 1]"),
    ('{"0": 1}', "gym_action_map: expected element -> [value for -1, value for 1]"),
    ('{"3": [0, 1]}', "gym_action_map: expected elements from 0 to 2, found [3]"),
    ('{"1": [-1, 2]}', "gym_action_map: element 1: expected rising values from -1 to 1, found [-1.0, 2.0]"),
    ('{"1": [1, 0]}', "gym_action_map: element 1: expected rising values"),
])
def test_action_maps_that_make_no_sense_are_refused(text, said):
    with pytest.raises(ConfigError) as refusal:
        make(gym_action_map=text)
    assert said in str(refusal.value)


@pytest.mark.parametrize(("space", "said"), [
    (spaces.Discrete(3), "expected a Box action space of floats, found Discrete(3)"),
    (spaces.Box(0, 3, (2,), np.int64), "expected a Box action space of floats"),
    (spaces.Box(-np.inf, np.inf, (2,)), "has no bounds; give them in gym_action_map"),
])
def test_action_spaces_that_cannot_be_driven_are_refused(monkeypatch, space, said):
    with pytest.raises(ConfigError) as refusal:
        make_scripted(monkeypatch, action_space=space)
    assert said in str(refusal.value)


NESTED = spaces.Dict({
    "arm": spaces.Dict({"pose": spaces.Box(-9.0, 9.0, (2, 2), np.float64),
                        "grip.width": spaces.Box(0.0, 1.0, (), np.float32)}),
    "front": spaces.Box(0, 255, (2, 3, 3), np.uint8),
    "free": spaces.Box(-np.inf, np.inf, (1,), np.float32),
})
NESTED_VALUE = {"arm": {"pose": np.array([[1.0, 2.0], [3.0, 4.0]]), "grip.width": np.float32(0.5)},
                "front": np.arange(18, dtype=np.uint8).reshape(2, 3, 3), "free": np.array([7.0], np.float32)}


def test_nested_observations_are_flattened_with_dotted_names(monkeypatch):
    arm, _ = make_scripted(monkeypatch, observation_space=NESTED, observations=NESTED_VALUE)
    fields = {f.name: f for f in arm.spec.observation}
    assert set(fields) == {"arm.pose", "arm.grip.width", "front", "free"}
    assert (fields["arm.pose"].shape, fields["arm.pose"].low) == ((4,), (-9.0,) * 4)
    assert (fields["front"].shape, fields["front"].dtype) == ((2, 3, 3), "uint8")
    assert fields["free"].high == (np.inf,)
    observation = arm.reset()
    values = {"arm.pose": [1, 2, 3, 4], "arm.grip.width": [0.5], "free": [7]}
    np.testing.assert_array_equal(observation.state, np.concatenate([values[f.name] for f in arm.spec.state_fields]))
    assert observation.state.dtype == np.float32
    np.testing.assert_array_equal(observation.images["front"], NESTED_VALUE["front"])


EXPECTED_FLOATS = "expected entries of floats that are observed (arm.grip.width, arm.pose, free)"


def test_bounds_of_one_s_own_replace_those_of_an_entry(monkeypatch):
    bounds = '{"free": [-2, 3], "arm.pose": [[[0, 1], [2, 3]], 9]}'
    arm, _ = make_scripted(monkeypatch, bounds=bounds, observation_space=NESTED, observations=NESTED_VALUE)
    fields = {f.name: (f.low, f.high) for f in arm.spec.state_fields}
    assert fields == {"free": ((-2.0,), (3.0,)), "arm.pose": ((0.0, 1.0, 2.0, 3.0), (9.0,) * 4),
                      "arm.grip.width": ((0.0,), (1.0,))}
    arm, _ = make_scripted(monkeypatch, bounds='{"observation": [-4, 5]}')
    assert arm.spec.state_bounds[1].tolist() == [5.0, 5.0]


@pytest.mark.parametrize(("text", "said"), [
    ("[]", "expected a JSON object, found '[]'"),
    ('{"pose": [0, 1]}', f"{EXPECTED_FLOATS}, found 'pose'"),
    ('{"front": [0, 1]}', f"{EXPECTED_FLOATS}, found 'front'"),
    ('{"free": 1}', "free: expected [low, high], each a number or one for each element of (1,), found 1"),
    ('{"free": [0, 1, 2]}', "free: expected [low, high]"),
    ('{"arm.pose": [[0, 0, 0], 1]}', "arm.pose: expected [low, high], each a number or one for each element of (2, 2)"),
    ('{"free": ["low", 1]}', "free: expected [low, high]"),
    ('{"free": [0, 1e300]}', "free: expected finite numbers, low below high"),
    ('{"free": [1, 1]}', "free: expected finite numbers, low below high, found [1, 1]"),
])
def test_bounds_that_make_no_sense_are_refused(monkeypatch, text, said):
    with pytest.raises(ConfigError) as refusal:
        make_scripted(monkeypatch, observation_space=NESTED, observations=NESTED_VALUE, bounds=text)
    assert f"gym_observation_bounds: {said}" in str(refusal.value)


def test_entries_are_kept_in_the_order_asked_for(monkeypatch):
    keys = ("free", "arm.grip.width")
    arm, _ = make_scripted(monkeypatch, observation_space=NESTED, observations=NESTED_VALUE, keys=keys)
    assert [f.name for f in arm.spec.observation] == ["free", "arm.grip.width"]
    observation = arm.reset()
    np.testing.assert_array_equal(observation.state, [7.0, 0.5])
    assert observation.images == {}


@pytest.mark.parametrize(("entry", "space"), [
    ("door", spaces.Discrete(2)), ("count", spaces.Box(0, 9, (2,), np.int32)),
    ("bytes", spaces.Box(0, 255, (4,), np.uint8)), ("words", spaces.Text(5)),
    ("pair", spaces.Tuple((spaces.Discrete(2),)))])
def test_entries_that_are_no_numbers_are_refused_by_name(monkeypatch, entry, space):
    whole = spaces.Dict({"good": spaces.Box(0.0, 1.0, (1,)), "inner": spaces.Dict({entry: space})})
    with pytest.raises(ConfigError, match=f"observation entry 'inner.{entry}': expected a Box of floats or a uint8"):
        make_scripted(monkeypatch, observation_space=whole)
    make_scripted(monkeypatch, observation_space=whole, keys=("good",))


def test_unknown_entry_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match=r"has no entry 'arm'; it has .*arm\.pose"):
        make_scripted(monkeypatch, observation_space=NESTED, keys=("arm",))


def test_observation_that_is_not_finite_is_refused(monkeypatch):
    arm, _ = make_scripted(monkeypatch, observations=np.array([0.0, np.nan], np.float32))
    with pytest.raises(DataError, match="observation observation: expected finite numbers, found"):
        arm.reset()


def test_a_step_that_ends_in_no_number_is_no_refusal_for_the_environment_has_moved(monkeypatch):
    arm, env = make_scripted(monkeypatch, observations=np.zeros(2, np.float32))
    arm.reset()
    env.observations = np.array([0.0, np.nan], np.float32)
    with pytest.raises(RuntimeError, match="observation observation: expected finite numbers, found"):
        arm.step(np.zeros(3))


def test_info_tells_success(monkeypatch):
    steps = [(1.0, False, False, {"is_success": False}), (0.0, False, True, {"succeed": np.True_})]
    arm, _ = make_scripted(monkeypatch, steps=steps)
    arm.reset()
    results = [arm.step(np.zeros(3)) for _ in steps]
    assert [(r.success, r.terminated, r.truncated) for r in results] == [(False, False, False), (True, False, True)]


def test_without_info_reaching_the_end_with_a_reward_is_success(monkeypatch):
    for reward, success in ((1.0, True), (0.0, False), (-1.0, False)):
        arm, _ = make_scripted(monkeypatch, steps=[(reward, True, True, {})])
        arm.reset()
        result = arm.step(np.zeros(3))
        assert (result.success, result.terminated, result.truncated) == (success, True, False)


def test_mountain_car_is_driven_to_its_goal():
    arm = make("MountainCarContinuous-v0")
    observation, result = arm.reset(seed=0), None
    while result is None or not (result.terminated or result.truncated):
        result = arm.step([np.sign(observation.state[1])])  # push the way it rolls
        observation = result.observation
    assert (result.success, result.terminated, result.truncated) == (True, True, False)
    assert result.reward > 90.0


def test_episode_length_is_the_environments_own_or_the_given_one():
    assert make("Pendulum-v1").spec.max_episode_steps == 200
    assert make("Pendulum-v1", max_episode_steps=7).spec.max_episode_steps == 7
    with pytest.raises(ConfigError, match="does not limit its episodes: set max_episode_steps"):
        make("rlpd_test/Endless-v0")
    arm = make("rlpd_test/Endless-v0", max_episode_steps=2)
    arm.reset()
    assert [arm.step(np.zeros(3)).truncated for _ in range(2)] == [False, True]


def test_keyword_arguments_reach_the_environment():
    arm = make("Pendulum-v1", gym_env_kwargs='{"g": 3.0}')
    assert arm._env.unwrapped.g == 3.0


@pytest.mark.parametrize(("options", "said"), [
    ({"env_id": ""}, "gym_env_id: expected the id of a Gymnasium environment"),
    ({"env_id": "Pendulun-v1"}, "gym_env_id 'Pendulun-v1' with {}: Environment `Pendulun` doesn't exist"),
    ({"env_id": "Pendulum-v1", "gym_env_kwargs": '{"mass": 1}'}, "with {'mass': 1}"),
    ({"env_id": "Pendulum-v1", "gym_env_kwargs": "[1]"}, "gym_env_kwargs: expected a JSON object, found '[1]'"),
    ({"env_id": "a/b-v0", "gym_import_module": "no_such_module"}, "No module named 'no_such_module'"),
])
def test_environments_that_cannot_be_made_are_refused_in_one_line(options, said):
    with pytest.raises(ConfigError) as refusal:
        make(**options)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


GYM_HIL = """
import json, numpy as np
from rlpd_ros.arm.config import GymnasiumArmConfig
from rlpd_ros.arm.gymnasium_arm import GymnasiumArm
from rlpd_ros.arm.opengl import find_backend
config = GymnasiumArmConfig(
    gym_env_id="gym_hil/PandaPickCubeBase-v0", gym_import_module="gym_hil",
    gym_env_kwargs='{"random_block_position": true, "image_obs": false}',
    gym_action_map='{"0": [-0.025, 0.025], "1": [-0.025, 0.025], "2": [-0.025, 0.025], "6": [-1, 1]}')
arm = GymnasiumArm(config)
starts = [arm.reset(seed).state.tolist() for seed in (3, 3, 4)]
expert, episodes = arm.expert(noise=0.2), []
for seed in range(3):
    observation, steps, result = arm.reset(seed), 0, None
    while result is None or not (result.terminated or result.truncated):
        result, steps = arm.step(expert(observation)), steps + 1
        observation = result.observation
    episodes.append([result.success, result.terminated, result.reward, steps])
print(json.dumps({"state": arm.spec.state_size, "action": arm.spec.action_size,
                  "limit": arm.spec.max_episode_steps, "starts": starts, "episodes": episodes}))
"""


def test_an_expert_that_is_not_shown_what_it_needs_is_none(monkeypatch):
    name = "gym_hil/PandaPickCubeBase-v0"
    space = spaces.Dict({"agent_pos": spaces.Box(-9.0, 9.0, (18,)), "front": spaces.Box(0, 255, (4, 4, 3), np.uint8),
                         "environment_state": spaces.Box(-9.0, 9.0, (3,))})
    monkeypatch.setitem(gymnasium.registry, name, gymnasium.envs.registration.EnvSpec(
        name, lambda: Scripted(observation_space=space, action_space=spaces.Box(-1.0, 1.0, (7,))), max_episode_steps=5))
    assert make(name).expert() is not None
    assert make(name, gym_observation_keys=("agent_pos", "front")).expert() is None


@pytest.mark.skipif(importlib.util.find_spec("gym_hil") is None, reason="gym_hil is not installed (make gym-hil)")
@pytest.mark.skipif(not find_backend(),
                    reason="gym_hil needs OpenGL: neither libosmesa6 nor EGL is installed")
def test_gym_hil_is_driven_by_its_expert(tmp_path):
    # in a process of its own: MuJoCo chooses its renderer when it is first imported
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    done = subprocess.run([sys.executable, "-c", GYM_HIL], check=False, timeout=120, cwd=tmp_path, env=environment,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["state"], told["action"], told["limit"]) == (21, 4, 100)
    first, again, other = told["starts"]
    assert first == again
    assert first != other
    for success, terminated, reward, steps in told["episodes"]:
        assert (success, terminated, reward) == (True, True, 1.0)
        assert steps < 40
