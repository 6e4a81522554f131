# SPDX-License-Identifier: Apache-2.0
"""How settings learn: several seeds of each, in processes of their own, without ROS: ``make learning``."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import yaml
from picture import draw

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.config import from_mapping
from rlpd_ros.rl.config import AgentConfig, PolicyConfig
from rlpd_ros.settings import ActorConfig, LearnerConfig
from rlpd_ros.types import fingerprint

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"
NODES = {"arm_driver": ("arm",), "actor": ("policy", "actor"), "learner": ("policy", "agent", "learner")}
TYPES = {"arm": ArmConfig, "policy": PolicyConfig, "agent": AgentConfig, "learner": LearnerConfig, "actor": ActorConfig}
WITHOUT_END = {"eval_every": 0, "max_env_steps": 0, "max_steps": 10**9, "checkpoint_period": 10**9}
COMPETENT = 0.95
SETTINGS = "# settings "  # begins a CSV; the fingerprint follows


class Variant(NamedTuple):
    """Settings: files in config/, the last one wins, then values."""

    files: Sequence[str] = ()
    values: Mapping[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class Study:
    """Variants to compare, by name; for how many environment steps, with so many greedy episodes every ``period``."""

    variants: Mapping[str, Variant]
    env_steps: int
    period: int
    episodes: int


PIXELS = "mujoco_pixels.yaml"
POLICIES = {"tanh": {}, "tanh, LayerNorm": {"layer_norm": True}, "relu": {"activation": "relu"},
            "relu, LayerNorm": {"activation": "relu", "layer_norm": True}}
GYM_HIL = "gym_hil.yaml"  # after make gym-hil
SIX_AXES = {"arm": "reach:ReachArm", "arm_kwargs": '{"axes": 6}'}  # examples/reach.py
STUDIES = {
    "presets": Study({"default": Variant(), "hil_serl": Variant(["presets/hil_serl.yaml"]),
                      "rlpd": Variant(["presets/rlpd.yaml"])}, 15_000, 500, 50),
    "imitation": Study({f"imitation_weight {weight:g}": Variant(values={"imitation_weight": weight})
                        for weight in (0.0, 0.3, 1.0, 3.0)}, 4_000, 250, 50),
    "policy": Study({name: Variant(values=values) for name, values in POLICIES.items()}, 2_000, 250, 50),
    "policy-reach": Study({name: Variant(values=values | SIX_AXES) for name, values in POLICIES.items()},
                          2_000, 250, 50),
    "replay": Study({"features replayed": Variant([PIXELS]),
                     "features recomputed": Variant([PIXELS], {"feature_replay": False})}, 3_000, 500, 20),
    "gym_hil": Study({"bounds": Variant([GYM_HIL]), "no bounds": Variant([GYM_HIL], {"gym_observation_bounds": "{}"})},
                     4_000, 500, 20),
}


def settings_of(variant: Variant, seed: int) -> dict[str, Any]:
    """Return the configurations of a run, as ``rlpd train`` resolves them."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in TYPES}
    sections = [section for name in variant.files for section in yaml.safe_load((CONFIG / name).read_text()).items()]
    sections.append(("/**", {"ros__parameters": {**variant.values, **WITHOUT_END, "seed": seed}}))
    for pattern, section in sections:
        for kind in {kind for node, kinds in NODES.items() if pattern in ("/**", node) for kind in kinds}:
            known = {f.name for f in dataclasses.fields(TYPES[kind])}
            found[kind] |= {name: v for name, v in section["ros__parameters"].items() if name in known}
    return {kind: from_mapping(TYPES[kind], known, kind) for kind, known in found.items()}


def run(plan: Study, name: str, seed: int, path: Path) -> None:
    """Do one run; its evaluations go to a CSV, the learner's newest metrics with them (none before it trains)."""
    from loop import Loop, Settings

    from rlpd_ros.rl.compilation import keep_compiled

    keep_compiled()
    with path.open("w") as file:
        file.write(f"{SETTINGS}{settings_fingerprint(plan, name, seed)}\n")
        rows = csv.writer(file)
        rows.writerow(["env_steps", "seconds", "success", "metrics"])
        loop = Loop(Settings(**settings_of(plan.variants[name], seed)))
        for now in loop.run(plan.env_steps, plan.period, plan.episodes):
            rows.writerow([now.env_steps, f"{now.seconds:.1f}", now.success, json.dumps(now.metrics)])
            file.flush()


def settings_fingerprint(plan: Study, name: str, seed: int) -> str:
    """Return what tells runs apart that must not be pooled: all settings and how they are evaluated, but no code."""
    settings = {kind: dataclasses.asdict(config) for kind, config in settings_of(plan.variants[name], seed).items()}
    return fingerprint(json.dumps([settings, plan.period, plan.episodes], sort_keys=True))


def csv_of(folder: Path, name: str, seed: int | str) -> Path:
    """Return where a run's evaluations go; with ``*``, the pattern of all seeds."""
    return folder / f"{name.replace(' ', '_')}-{seed}.csv"


def read(path: Path) -> list[tuple[int, float, float]]:
    """Return environment steps, seconds and success of each evaluation of a run."""
    with path.open() as file:
        rows = list(csv.reader(file))[2:]
    return [(int(steps), float(seconds), float(success)) for steps, seconds, success, _ in rows]


def find_runs(plan: Study, name: str, folder: Path) -> tuple[list[list[tuple[int, float, float]]], list[str]]:
    """Return a variant's finished runs with these settings, of earlier calls too, and what was left out, and why."""
    runs, left_out, wanted = [], [], plan.env_steps // plan.period
    for path in sorted(folder.glob(csv_of(folder, name, "*").name)):
        seed, made_with = path.stem.rpartition("-")[-1], path.read_text().partition("\n")[0]
        if not seed.isdigit() or made_with != SETTINGS + settings_fingerprint(plan, name, int(seed)):
            left_out.append(f"{path}: left out: other settings, or an earlier version's")
        elif len(evaluations := read(path)) < wanted:
            left_out.append(f"{path}: left out: {len(evaluations)} of {wanted} evaluations, not finished")
        else:
            runs.append(evaluations[:wanted])
    return runs, left_out


def tell(name: str, runs: Sequence[Sequence[tuple[int, float, float]]]) -> None:
    """Print what a variant needed until an evaluation was good enough, and how it ended."""
    first = [next(((steps, seconds) for steps, seconds, success in run if success >= COMPETENT), None) for run in runs]
    there = [found for found in first if found]
    when = (f", after {', '.join(str(steps) for steps, _ in there)} environment steps, median "
            f"{median(steps for steps, _ in there):.0f} ({median(seconds for _, seconds in there):.0f} s of training)"
            if there else "")
    ends = ", ".join(f"{run[-1][2]:.0%}" for run in runs)
    print(f"{name}: {COMPETENT:.0%} in {len(there)} of {len(runs)} runs{when}; in the end {ends}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", help="default: all")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--env-steps", type=int, help="in place of the study's own number")
    parser.add_argument("--folder", type=Path, default=Path("reports"))
    options = parser.parse_args()
    sys.path.append(str(ROOT / "examples"))  # also in the processes
    plan = STUDIES[options.study]
    plan = dataclasses.replace(plan, env_steps=options.env_steps or plan.env_steps)
    unknown = [name for name in options.variants or () if name not in plan.variants]
    if unknown:
        parser.error(f"variant '{unknown[0]}': expected some of {', '.join(plan.variants)}")
    folder = options.folder / f"learning-{options.study}"
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(name, seed) for name in options.variants or plan.variants for seed in options.seeds]
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(run, plan, name, seed, path): path
                   for name, seed in jobs for path in [csv_of(folder, name, seed)]}
        for future in as_completed(waiting):
            future.result()
            print(waiting[future], ", ".join(f"{steps}: {success:.0%}" for steps, _, success in read(waiting[future])),
                  flush=True)
    found = {}
    for name in plan.variants:
        runs, left_out = find_runs(plan, name, folder)
        for line in left_out:
            print(line, flush=True)
        if runs:
            found[name] = runs
    for name, runs in found.items():
        tell(name, runs)
    print(draw({name: [[(steps, success) for steps, _, success in run] for run in runs]
                for name, runs in found.items()}, folder / "success_rate.png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
