# SPDX-License-Identifier: Apache-2.0
"""What the policy network is (actor and learner must agree on it) and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from rlpd_ros.config import parameter

ACTIVATIONS = ("tanh", "relu", "silu")
FROZEN = "resnet10-frozen"


@dataclass(frozen=True)
class PolicyConfig:
    """The policy network. Every actor and the learner need the same values: their fingerprint is compared."""

    hidden_dims: tuple[int, ...] = parameter((256, 256), "units of each hidden layer", 1, 65536)
    activation: str = parameter("tanh", "nonlinearity of the hidden layers", choices=ACTIVATIONS)
    layer_norm: bool = parameter(
        False, "LayerNorm before each nonlinearity of the policy; it hides how close a goal is")
    normalize_observations: bool = parameter(
        True, "map state elements with finite bounds to [-1, 1], those without by a logarithm above about 0.1, for the "
        "critics too; give bounds where small differences of large numbers count")
    log_std_min: float = parameter(-11.513, "lowest log standard deviation of the Gaussian before tanh", -30.0, 10.0)
    log_std_max: float = parameter(1.609, "highest log standard deviation of the Gaussian before tanh", -30.0, 10.0)
    encoder: str = parameter(
        FROZEN, "what sees the images: a ResNet-10 that stays as its file has it, one that is trained, or a small "
                "convolutional network that is trained", choices=(FROZEN, "resnet10", "small"))
    backbone: str = parameter(
        "", "weights of resnet10-frozen: a safetensors file or HIL-SERL's resnet10_params.pkl; none: random ones")
    backbone_stages: int = parameter(
        2, "stages of resnet10-frozen that are used: early ones see where things are, late ones what they are", 1, 4)
    spatial_embeddings: int = parameter(8, "learned weightings of the places in an image, per channel", 1, 64)
    bottleneck_dim: int = parameter(256, "numbers into which each camera's image is compressed", 1, 65536)
    proprio_dim: int = parameter(64, "units of the layer that sees the state, where there are images", 1, 65536)
    hybrid_gripper: bool = parameter(
        False, "the last action element, the gripper's, is -1, 0 or 1 (close, hold, open) as a discrete critic says")
    grasp_hidden_dims: tuple[int, ...] = parameter((128, 128), "units of each hidden layer of that critic", 1, 65536)
    grasp_epsilon: float = parameter(0.05, "share of steps of training in which that gripper acts at random", 0.0, 1.0)


@dataclass(frozen=True)
class AgentConfig:
    """RLPD: soft actor-critic with an ensemble of critics and many critic steps per update."""

    num_qs: int = parameter(2, "critics in the ensemble", 1, 100)
    num_min_qs: int = parameter(
        2, "critics whose minimum is the target, drawn anew at each critic step; at most num_qs", 1, 100)
    critic_hidden_dims: tuple[int, ...] = parameter((256, 256), "units of each hidden layer of a critic", 1, 65536)
    critic_activation: str = parameter("relu", "nonlinearity of the critics", choices=ACTIVATIONS)
    critic_layer_norm: bool = parameter(True, "LayerNorm before each nonlinearity of the critics")
    utd_ratio: int = parameter(2, "critic steps per update (update-to-data ratio, HIL-SERL's cta_ratio)", 1, 1000)
    discount: float = parameter(0.95, "discount factor per environment step", 0.0, 1.0)
    tau: float = parameter(0.01, "share of the critic that goes into the target critic at each critic step", 0.0, 1.0)
    actor_lr: float = parameter(1e-3, "learning rate of the policy", 0.0, 1.0)
    critic_lr: float = parameter(1e-3, "learning rate of the critics", 0.0, 1.0)
    temperature_lr: float = parameter(3e-4, "learning rate of the log temperature; 0: a fixed temperature", 0.0, 1.0)
    init_temperature: float = parameter(0.01, "initial weight of the entropy", 1e-8, 1e3)
    target_entropy_per_dim: float = parameter(
        -0.5, "target entropy in nats divided by the number of action elements", -100.0, 100.0)
    backup_entropy: bool = parameter(False, "include the entropy of the next action in the target of the critics")
    actor_q_reduction: str = parameter(
        "mean", "what the policy maximises over the ensemble", choices=("mean", "min"))
    imitation_weight: float = parameter(
        3.0, "weight of behaviour cloning in the policy's loss: the mean over what people and experts did in a batch; "
        "0: none", 0.0, 1e3)
    grasp_penalty: float = parameter(
        0.0, "taken from the discrete gripper's reward in every step that commands opening or closing, as 0.02; meant "
        "for where hold is the usual command: where -1 or 1 is given all the time, success itself costs", 0.0, 1e3)
