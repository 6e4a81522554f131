# SPDX-License-Identifier: Apache-2.0
"""The parameters of every node. Those of the arm, the policy and the agent are declared where they are used."""

from __future__ import annotations

from dataclasses import dataclass

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.config import parameter
from rlpd_ros.rl.config import AgentConfig, PolicyConfig


@dataclass(frozen=True)
class DriverNodeConfig:
    """Parameters of the arm driver node, besides those of the arm that it drives."""

    repeat_period: float = parameter(0.2, "s without an answer after which an observation is published again", 0.01)
    max_observation_age: float = parameter(
        2.0, "s without an answer after which the arm is observed afresh (lockstep); more than the policy takes to act",
        0.1)


@dataclass(frozen=True)
class ActorConfig:
    """Parameters of the actor."""

    random_steps: int = parameter(0, "training steps with uniformly random actions before the policy acts", low=0)
    eval_every: int = parameter(10, "training episodes between two evaluations; 0: never evaluate", low=0)
    eval_episodes: int = parameter(50, "greedy episodes in an evaluation that counts", low=1)
    eval_min_episodes: int = parameter(
        10, "an evaluation goes on for so many episodes even when it cannot reach success_target any more", low=1)
    success_target: float = parameter(0.95, "share of successful greedy episodes at which training is done", 0.0, 1.0)
    policy_acts: bool = parameter(
        True, "act where no person does; otherwise the arm then holds still and nothing is recorded or evaluated")
    intervention_timeout: float = parameter(0.25, "s for which a person's last command goes before the policy", 0.0)
    resend_period: float = parameter(1.0, "s without a receipt after which transitions are sent again", 0.01)
    outbox_memory: int = parameter(
        10_000, "unacknowledged transitions held in memory where there is no spool, or its disk is full", low=1)
    spool_beyond: int = parameter(
        0, "unacknowledged transitions beyond which all are written to the spool as well; 0: each one at once", low=0)
    status_period: float = parameter(0.5, "s between two messages on actor_status", 0.05)
    deterministic: bool = parameter(False, "act greedily in training too, without exploration")
    seed: int = parameter(0, "of exploration", low=0)


@dataclass(frozen=True)
class ActorNodeConfig:
    """Parameters of the actor node that its logic does not need."""

    run: str = parameter("", "run directory: the spool is kept there")
    spool_folder: str = parameter("", "keep the spool there and not in the run directory; both empty: there is none")
    spool_limit: float = parameter(10_000.0, "MB (10^6 bytes) that the spool may take", low=0.0)
    policy: str = parameter("", "policy file of a run: act on it greedily, without a learner; empty: the learner's")
    episodes: int = parameter(0, "of that policy, then end; 0: until stopped", low=0)


@dataclass(frozen=True)
class LearnerConfig:
    """Parameters of the learner, besides those of the agent and of the policy."""

    batch_size: int = parameter(256, "transitions per mini-batch; half of them are demonstrations", low=2)
    training_starts: int = parameter(100, "online transitions before training starts", low=1)
    max_steps: int = parameter(100_000, "gradient steps at which training ends in any case", low=1)
    max_env_steps: int = parameter(0, "environment steps at which training ends in any case; 0: no such limit", low=0)
    steps_per_update: int = parameter(50, "gradient steps between two publications of the policy", low=1)
    replay_buffer_capacity: int = parameter(200_000, "transitions in the online buffer", low=1)
    demo_buffer_capacity: int = parameter(200_000, "transitions in the demonstration buffer", low=1)
    feature_replay: bool = parameter(
        True, "with a frozen encoder, keep its features of images in place of them; false: see images at each step")
    feature_shifts: int = parameter(2, "random shifts of each image whose features are kept", 1, 16)
    demo_feature_shifts: int = parameter(
        8, "the same of demonstrations: there are few, and half of each mini-batch is drawn from them", 1, 16)
    require_demonstrations: bool = parameter(True, "wait for the demo loader's manifest and for all that it counts")
    checkpoint_period: int = parameter(5_000, "gradient steps between two checkpoints", low=1)
    log_period: int = parameter(100, "gradient steps between two lines of metrics", low=1)
    status_period: float = parameter(0.5, "s between two messages on learner_status", 0.05)
    steps_ahead: int = parameter(20, "environment steps that actors may be ahead of training (lockstep)", low=1)
    success_target: float = parameter(0.95, "training is done when an evaluation succeeds this often", 0.0, 1.0)
    eval_episodes: int = parameter(50, "episodes that such an evaluation must have", low=1)
    seed: int = parameter(0, "of the network's initialisation, of sampling and of the losses' noise", low=0)


@dataclass(frozen=True)
class LearnerNodeConfig:
    """Parameters of the learner node that its logic does not need."""

    run: str = parameter("", "run directory: metrics, checkpoints and transitions go there; an earlier life is resumed")
    preset: str = parameter("default", "name of the settings, for the summary")
    checkpoints_kept: int = parameter(3, "newest checkpoints to keep", low=1)
    devices: int = parameter(
        1, "devices, on a CPU cores, that share an update; they divide num_qs and batch_size; 0: as fits", 0, 1024)


@dataclass(frozen=True)
class LogConfig:
    """Parameters of the log of transitions that the learner writes into the run directory."""

    log_file_size: float = parameter(64.0, "MB (10^6 bytes) after which the log begins a new file", low=0.001)
    log_everything: bool = parameter(
        False, "keep all transitions; otherwise the oldest files go when the online buffer has no room for them anyway")
    log_sync: str = parameter(
        "period", "when acknowledged transitions are made to survive a power cut: never, every log_sync_period, or "
                  "always, before they are acknowledged", choices=("never", "period", "always"))
    log_sync_period: float = parameter(5.0, "s between two synchronisations of the log with log_sync period", low=0.0)


@dataclass(frozen=True)
class LoaderConfig:
    """Parameters of the demo loader."""

    demo_path: tuple[str, ...] = parameter((), "rosbag2 bags of transitions: files, folders, or folders of bags")
    successful_only: bool = parameter(False, "leave out episodes that did not end in success")
    resend_period: float = parameter(1.0, "s without a receipt after which demonstrations are sent again", 0.01)


@dataclass(frozen=True)
class MonitorConfig:
    """Parameters of the monitor."""

    period: float = parameter(1.0, "s between two messages on /diagnostics", 0.1, 60.0)
    patience: int = parameter(5000, "environment steps without success that are no fault yet", low=1)
    language: str = parameter("en", "of summaries and remedies", choices=("en", "zh"))


@dataclass(frozen=True)
class TeleopJoyConfig:
    """Parameters of the node by which a person moves the arm with a joystick, a gamepad or a SpaceMouse."""

    axes: tuple[int, ...] = parameter(
        (0, 1, 2), "axis of the device for each element of the action but the gripper's, in order; -1: none", low=-1)
    scales: tuple[float, ...] = parameter(
        (1.0,), "factor of each of these axes, negative to turn it round; a single one is that of all", -10.0, 10.0)
    deadband: float = parameter(0.1, "share of an axis's way, from its middle, that does not count", 0.0, 0.9)
    close_button: int = parameter(0, "button that closes the gripper, whose element then stays at -1; -1: none", low=-1)
    open_button: int = parameter(1, "button that opens the gripper, whose element then stays at 1; -1: none", low=-1)
    gripper: int = parameter(
        -1, "the gripper's element of the action, from 0; -1: the last one, if space_spec names it a gripper", low=-1)
    gripper_start: float = parameter(
        1.0, "value of that element until a button is pressed, if it is not the one that space_spec names a gripper, "
             "which stays as it is", -1.0, 1.0)
    stop_button: int = parameter(-1, "button that stops the policy, and lets it act again; -1: none", low=-1)
    success_button: int = parameter(-1, "button that ends the episode in success, with reward 1; -1: none", low=-1)
    failure_button: int = parameter(-1, "button that ends the episode without success; -1: none", low=-1)
    enable_button: int = parameter(
        -1, "button that must be held for the person to act; -1: none, who moves an axis or the gripper acts", low=-1)
    linger: float = parameter(
        0.5, "s that a person keeps the policy from acting after that, and that a gripper has to close or open", 0.0)
    always: bool = parameter(False, "hold the arm when the person does not act: then no policy ever does")
    rate: float = parameter(20.0, "Hz of actions; above 1 / intervention_timeout of the actor", 1.0, 1000.0)
    timeout: float = parameter(0.5, "s without a message of the device after which the arm is stopped", 0.05)


NODES: dict[str, tuple[type, ...]] = {
    "arm_driver": (DriverNodeConfig, ArmConfig),
    "demo_loader": (LoaderConfig,),
    "learner": (LearnerNodeConfig, LogConfig, LearnerConfig, AgentConfig, PolicyConfig),
    "actor": (ActorNodeConfig, ActorConfig, PolicyConfig),
    "monitor": (MonitorConfig,),
}
"""Node -> the configurations whose fields are its ROS parameters."""

TOOLS: dict[str, tuple[type, ...]] = {
    "teleop_joy": (TeleopJoyConfig,),
}
"""The same for nodes that no run starts: a person does, beside it."""
