# SPDX-License-Identifier: Apache-2.0
"""What the documents say is there: files, commands, parameters, topics, messages, and the same in both languages."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from rclpy.qos import QoSDurabilityPolicy, QoSReliabilityPolicy

from rlpd_ros.arm.config import ArmConfig
from rlpd_ros.arm.factory import make_arm
from rlpd_ros.bench.suite import BENCHMARKS
from rlpd_ros.cli import _parser
from rlpd_ros.diagnosis import LANGUAGES, troubleshooting_rows
from rlpd_ros.preparation import Configurations, preset_file, resolve
from rlpd_ros.ros import qos
from rlpd_ros.settings import NODES

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
READMES = (ROOT / "README.md", ROOT / "README.zh.md")
CODE = [*ROOT.glob("rlpd_ros/**/*.py"), *ROOT.glob("scripts/*.sh")]
FOLDERS = "rlpd_ros(?!/msg/)|config|docs|examples|test|msg|launch|scripts|requirements"
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
each_readme = pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)


def blocks(path: Path, language: str = r"\w*") -> list[str]:
    """Return the contents of the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


@cache
def prose(path: Path) -> str:
    """Return a document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def quoted(path: Path) -> list[str]:
    return re.findall(r"`([^`]+)`", prose(path))


def headings(path: Path) -> list[str]:
    return re.findall(r"^#+ .*$", prose(path), re.MULTILINE)


def tables(path: Path) -> list[list[list[str]]]:
    """Return tables -> rows -> cells, without the line below the head."""
    found = re.findall(r"(?:^\|.*\|$\n?)+", prose(path), re.MULTILINE)
    rows = [[line.strip("|").split("|") for line in table.splitlines()] for table in found]
    return [[[cell.strip() for cell in row] for i, row in enumerate(table) if i != 1] for table in rows]


def commands(path: Path) -> list[list[str]]:
    """Return the words of every shell command in blocks and in quotes, without comments."""
    lines = [line for block in blocks(path, "bash") for line in block.splitlines()]
    lines += [text for text in quoted(path) if re.match(r"(rlpd|make|ros2) \w", text)]
    parts = [part for line in lines if "<<" not in line for part in re.split(r"; |&& |\|\| ", line)]
    return [words for words in (shlex.split(part, comments=True) for part in parts) if words]


def parsed(path: Path):
    """Yield what the real parser makes of every `rlpd` command, and of what `make train` passes to it."""
    for words in commands(path):
        arguments = None
        if "rlpd" in words:
            arguments = words[words.index("rlpd") + 1:]
        elif words[:2] == ["make", "train"]:
            given = [word.removeprefix("ARGS=") for word in words if word.startswith("ARGS=")]
            arguments = ["train", *shlex.split(" ".join(given))]
        if arguments:
            yield _parser().parse_args([word.replace("$seed", "1") for word in arguments])


@cache
def texts() -> str:
    """Return every text in the code, joined as Python joins it, with `…` for what is filled in."""
    found = []
    for path in CODE:
        if path.suffix == ".sh":
            found.append(re.sub(r"\$\w+", "…", path.read_text()))
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(parts))
    return "\n".join(found)


@cache
def names() -> set[str]:
    """Return every word that stands in the repository's sources."""
    files = [*CODE, *ROOT.glob("msg/*.msg"), *ROOT.glob("config/**/*.yaml"), *ROOT.glob("launch/*.py"),
             *ROOT.glob("examples/*"), *ROOT.glob("test/*.py"), ROOT / "package.xml"]
    return {word for path in files if path.is_file() for word in re.findall(r"\w+", path.read_text())}


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower()).replace(" ", "-")


@each_document
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)]+)\)", prose(path)):
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), link
        assert not anchor or anchor in map(slug, headings(file)), link


@each_document
def test_files_that_are_named_exist(path):
    for text in quoted(path):
        if re.fullmatch(rf"({FOLDERS})/[\w./]*", text):
            assert (ROOT / text).exists(), text


@each_document
def test_tests_that_are_named_stand_in_the_file_named(path):
    for tests, file in re.findall(r"((?:`test_\w+`(?:, )?)+) in \[[\w.]+\]\(([^)]+)\)", prose(path)):
        source = (path.parent / file).read_text()
        for test in re.findall(r"\w+", tests):
            assert f"def {test}(" in source, f"{test} in {file}"


@each_document
def test_commands_are_accepted(path):
    for options in parsed(path):
        configurations = Configurations()
        for text in getattr(options, "overrides", ()):
            configurations.add_override(text)
        for file in getattr(options, "config", ()):
            assert file == "mine.yaml" or (ROOT / file).is_file(), file
        if getattr(options, "preset", None):
            assert preset_file(options.preset).is_file()
        assert set(getattr(options, "nodes", ())) <= set(NODES)


def test_commands_are_found_at_all():
    found = {options.command for options in parsed(READMES[0])}
    assert found == {"train", "eval", "play", "report", "record", "teleop", "doctor"}


@each_document
def test_make_has_the_targets(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands(path):
        assert words[0] != "make" or words[1] in targets, words


def launch_arguments(file: str) -> dict:
    tree = ast.parse((ROOT / "launch" / file).read_text())
    return next(ast.literal_eval(node.value) for node in tree.body
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ARGUMENTS")


@each_document
def test_launch_arguments_exist(path):
    for words in commands(path):
        if words[:2] == ["ros2", "launch"] and len(words) > 2:
            assert words[2] == "rlpd_ros"
            given = dict(word.split(":=") for word in words[4:])
            assert set(given) <= set(launch_arguments(words[3]))
            assert set(given.get("nodes", "actor").split(",")) <= set(NODES)


def test_launch_arguments_are_told():
    told = next(table for table in tables(ROOT / "docs" / "ros2.md") if table[0][0] == "Argument")
    assert [row[0].strip("`") for row in told[1:]] == list(launch_arguments("train.launch.py"))


def test_the_table_of_topics_is_that_of_the_code():
    table = next(table for table in tables(ROOT / "docs" / "architecture.md") if table[0][0] == "Topic")
    told = {row[0].strip("`"): (row[1].strip("`"), row[2]) for row in table[1:]}
    nodes = "".join(path.read_text() for path in (ROOT / "rlpd_ros" / "nodes").glob("*.py"))
    used = {topic for name, topic in vars(qos).items()
            if isinstance(topic, qos.Topic) and re.search(rf"qos\.{name}\b", nodes)}
    assert told == {topic.name: (topic.type_name, described(topic)) for topic in used}


def described(topic: qos.Topic) -> str:
    """Say a profile as the table does; from the profile itself, not from what it is made of."""
    profile = topic.qos
    words = ["reliable" if profile.reliability == QoSReliabilityPolicy.RELIABLE else "best effort"]
    words += ["latched"] if profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL else []
    return ", ".join([*words, str(profile.depth)])


def test_the_table_of_benchmarks_is_that_of_the_code():
    table = next(table for table in tables(ROOT / "docs" / "performance.md") if table[0][0] == "Benchmark")
    assert [row[0].strip("`") for row in table[1:]] == [name for name in BENCHMARKS if name != "machine"]


def test_the_drawing_shows_the_topics_that_there_are():
    drawing = re.sub(r"<(style|desc|title).*?</\1>", "", (ROOT / "docs/images/graph.svg").read_text(), flags=re.DOTALL)
    shown = {word for text in re.findall(r"<text[^>]*>([^<]*)</text>", drawing) for word in re.findall(r"\w+", text)}
    topics = {topic.name.strip("/") for topic in vars(qos).values() if isinstance(topic, qos.Topic)}
    told = {row[0].strip("`/") for row in tables(ROOT / "docs" / "architecture.md")[0][1:]}
    assert shown & topics == told
    assert set(NODES) <= shown


@each_document
def test_what_is_quoted_stands_in_the_sources(path):
    """Parameters, fields, topics, states, classes, tests: whatever looks like a name of something in here."""
    for text in quoted(path):
        if re.fullmatch(r"[\w.]*[a-z]_[a-z][\w.]*", text) and "/" not in text:
            known = re.split(r"\.(?=py$|md$|yaml$|json$|msg$|html$|params$|csv$)", text)[0].split(".")
            assert set(known) <= names(), text


@pytest.mark.parametrize("path", sorted(ROOT.glob("config/**/*.yaml")) + sorted(ROOT.glob("examples/*.yaml")), ids=str)
def test_parameter_files_are_accepted(path):
    resolve([path])


@each_document
def test_yaml_in_documents_is_accepted(path, tmp_path):
    for block in blocks(path, "yaml"):
        file = tmp_path / "block.yaml"
        file.write_text(block)
        resolve([file])


def test_the_table_of_arm_parameters_is_that_of_the_code():
    table = next(table for table in tables(ROOT / "docs" / "your_arm.md") if table[0][0].startswith("Parameter"))
    told = {row[0].strip("`") for row in table[1:]}
    known = {name for config in NODES["arm_driver"] for name in config.__dataclass_fields__}
    assert told <= known
    assert {name for name in known if name.startswith("gym_")} <= told


@each_readme
def test_what_the_system_says_is_what_it_says(path):
    """The troubleshooting table and that of the printed lines quote texts of the code, `…` for what is filled in."""
    trouble, printed = tables(path)[0], tables(path)[2]
    said = [text for row in trouble[1:] for text in re.findall(r"`([^`]+)`", row[1])]
    said += [row[0].strip("`") for row in printed[1:]]
    assert len(said) > 20
    for text in said:
        for part in filter(None, re.sub(r"version 1, learner step 0|(?<=: )version ", "…", text).split("…")):
            assert part.strip() in texts() or part in names(), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_table_of_checks_is_that_of_the_doctor(language):
    assert "\n".join(troubleshooting_rows(language)) in (ROOT / "docs" / "troubleshooting.md").read_text()


def test_both_languages_have_the_same_structure():
    english, chinese = READMES
    assert [len(h.split()[0]) for h in headings(english)] == [len(h.split()[0]) for h in headings(chinese)]
    assert [[len(row) for row in table] for table in tables(english)] == [
        [len(row) for row in table] for table in tables(chinese)]
    assert without_comments(english) == without_comments(chinese)
    assert links(english) == links(chinese)
    for ours, theirs in zip(tables(english), tables(chinese), strict=True):
        assert [re.findall(r"`[^`]*`", row[0]) for row in ours] == [re.findall(r"`[^`]*`", row[0]) for row in theirs]


def without_comments(path: Path) -> list[list[str]]:
    return [shlex.split(block, comments=True) for block in blocks(path)]


def links(path: Path) -> list[str]:
    found = re.findall(r"\]\(([^)]+)\)", prose(path))
    return [link for link in found if link not in ("README.md", "README.zh.md")]


def test_the_example_of_an_arm_runs_and_its_expert_does_the_task(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    arm = make_arm(resolve([ROOT / "examples" / "reach.yaml"]).get("arm_driver", ArmConfig))
    expert, observation, result = arm.expert(), arm.reset(seed=1), None
    while result is None or not (result.terminated or result.truncated):
        result = arm.step(expert(observation))
        observation = result.observation
    assert result.success
    assert result.terminated
    arm.close()
