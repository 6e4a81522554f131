# SPDX-License-Identifier: Apache-2.0
"""How settings learn, side by side: several seeds of each, in processes of their own, without ROS: ``make learning``."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import multiprocessing
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.config import from_mapping
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.settings import ActorConfig, LearnerConfig

CONFIG = Path(__file__).resolve().parents[2] / "config"
NODES = {"arm_driver": ("arm",), "actor": ("policy", "actor"), "learner": ("policy", "agent", "learner")}
TYPES = {"arm": ArmConfig, "policy": PolicyConfig, "agent": AgentConfig, "learner": LearnerConfig, "actor": ActorConfig}
WITHOUT_END = {"eval_every": 0, "max_env_steps": 0, "max_steps": 10**9, "checkpoint_period": 10**9}


@dataclasses.dataclass(frozen=True)
class Study:
    """Settings to compare by name: files in config/, then values; how long, and how often to look."""

    variants: Mapping[str, tuple[tuple[str, ...], dict[str, Any]]]
    env_steps: int
    period: int
    episodes: int = 50


STUDIES = {
    "presets": Study({"default": ((), {}), "hil_serl": (("presets/hil_serl.yaml",), {}),
                      "rlpd": (("presets/rlpd.yaml",), {})}, 20_000, 500),
    "replay": Study({"features replayed": (("mujoco_pixels.yaml",), {}),
                     "features recomputed": (("mujoco_pixels.yaml",), {"feature_replay": False})}, 3_000, 500, 20),
    "w": Study({f"w{w}d{d}": (("mujoco_pixels.yaml",), {"imitation_weight": w, "demo_feature_shifts": d}) for w in (1.0, 3.0) for d in (4, 8)}, 2_500, 250, 20),
    "pixels": Study({"default": (("mujoco_pixels.yaml",), {})}, 12_000, 1_000),
    "bc": Study({**{f"w{w}": ((), {"imitation_weight": w}) for w in (0.0, 0.1, 0.3, 1.0, 3.0)},
        **{f"w{w}q": ((), {"imitation_weight": w, "imitation_filter": True}) for w in (1.0, 3.0)},
        **{f"w{w}u4": ((), {"imitation_weight": w, "utd_ratio": 4}) for w in (1.0, )}}, 4_000, 250),
}


def settings_of(files: tuple[str, ...], values: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return the configurations of a run: as ``rlpd train`` resolves them."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in TYPES}
    sections = [section for name in files for section in yaml.safe_load((CONFIG / name).read_text()).items()]
    sections += [("/**", {"ros__parameters": {**values, **WITHOUT_END, "seed": seed}})]
    for pattern, section in sections:
        for kind in {kind for node, kinds in NODES.items() if pattern in ("/**", node) for kind in kinds}:
            known = {f.name for f in dataclasses.fields(TYPES[kind])}
            found[kind] |= {name: v for name, v in section["ros__parameters"].items() if name in known}
    return {kind: from_mapping(TYPES[kind], known, kind) for kind, known in found.items()}


def run(study: str, variant: str, seed: int, folder: Path, env_steps: int | None) -> list[tuple[int, float, float]]:
    """Do one run; return environment steps, seconds and success of each evaluation, which go to a CSV too."""
    from loop import Loop, Settings
    from rlpd_ros.rl.compilation import keep_compiled

    keep_compiled()
    plan = STUDIES[study]
    found = []
    with (folder / f"{variant.replace(' ', '_')}-{seed}.csv").open("w") as file:
        rows = csv.writer(file)
        for now in Loop(Settings(**settings_of(*plan.variants[variant], seed))).run(
                env_steps or plan.env_steps, plan.period, plan.episodes):
            if not found:
                rows.writerow(["env_steps", "seconds", "success", *now.metrics])
            rows.writerow([now.env_steps, f"{now.seconds:.1f}", now.success, *now.metrics.values()])
            file.flush()
            found.append((now.env_steps, now.seconds, now.success))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+")
    parser.add_argument("--env-steps", type=int, help="in place of the study's own number")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--folder", type=Path, default=Path("reports"))
    options = parser.parse_args()
    folder = options.folder / options.study
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(variant, seed) for seed in options.seeds for variant in options.variants or STUDIES[options.study].variants]
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(run, options.study, *job, folder, options.env_steps): job for job in jobs}
        for future in as_completed(waiting):
            variant, seed = waiting[future]
            print(f"{variant}, seed {seed}:", ", ".join(f"{steps}: {success:.0%}" for steps, _, success
                                                        in future.result()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
