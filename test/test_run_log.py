# SPDX-License-Identifier: Apache-2.0
"""The log of a run: what is deleted when, what is still known of it, and what survives what."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recordings import STATE, content, make_record, make_records
from rosbags.rosbag2 import Reader
from test_bag_files import chunks_of

from rlpd_ros.data.intake import Intake
from rlpd_ros.data.replay_buffer import ReplayBuffer
from rlpd_ros.errors import DataError
from rlpd_ros.ros import bag_log, run_log
from rlpd_ros.ros.bags import TransitionLog
from rlpd_ros.ros.run_log import DELETED, RunLog
from rlpd_ros.settings import LogConfig
from rlpd_ros.status import LearnerReport
from rlpd_ros.types import Source, TransitionRecord

CAPACITY = 60
SMALL = LogConfig(log_file_size=0.01, log_sync="never")  # some ten transitions in a file
TOTAL = 300


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """Delete early, and do not wait for the disk."""
    monkeypatch.setattr(run_log, "MAX_SESSIONS", 2)
    monkeypatch.setattr(os, "fsync", lambda file: None)


class Life:
    """One life of a learner: its log and what it takes into its buffers."""

    def __init__(self, path: Path, config: LogConfig = SMALL, **options) -> None:
        self.report = LearnerReport("learner")
        self.online = ReplayBuffer(STATE, CAPACITY)
        self.log = RunLog(path, STATE, config, CAPACITY, **options)
        self.intake = Intake(STATE, self.online, ReplayBuffer(STATE, CAPACITY), self.report, self.log.write,
                             pytest.fail, lambda: 0.0)
        for record in self.log.restore():
            self.intake.restore(record)
        for session, account in self.log.accounts.items():
            self.intake.restore_deleted(session, account)

    def receive(self, records: list[TransitionRecord]) -> Life:
        for record in records:
            self.intake.receive(record)
            self.log.flush()
        return self

    def known(self) -> tuple:
        """Return all that a learner knows by its log: counts, accounts, and the buffer in its order."""
        rows = [self.online._rows[(self.online._oldest + i) % CAPACITY].tobytes() for i in range(len(self.online))]
        accounts = {name: (account.sequence, account.stored) for name, account in self.intake.ledger._accounts.items()}
        return self.report.env_steps, accounts, rows


def files(path: Path) -> list[str]:
    return sorted((file.name for file in path.glob("*.mcap")), key=lambda name: int(name.split("_")[1][:-5]))


def test_the_oldest_files_go_and_nothing_is_missed(tmp_path):
    path = tmp_path / "log"
    life = Life(path).receive(make_records(STATE, TOTAL))
    left = files(path)
    assert left[0] != "log_0.mcap"
    stored = list(TransitionLog.read(path, STATE))
    assert CAPACITY <= len(stored) <= CAPACITY + 40
    assert content(stored) == content(make_records(STATE, TOTAL)[-len(stored):])
    assert life.report.env_steps == TOTAL
    again = Life(path)
    assert again.known() == life.known()
    again.receive([make_record(STATE, TOTAL)])  # sent again
    assert again.report.transitions_duplicate == 1
    again.receive([make_record(STATE, TOTAL + 1)])
    assert again.report.env_steps == TOTAL + 1


def test_each_of_many_lives_knows_what_the_one_before_knew(tmp_path):
    records, known = make_records(STATE, TOTAL), None
    for i in range(0, TOTAL, 23):
        life = Life(tmp_path / "log")
        assert known is None or life.known() == known
        known = life.receive(records[i:i + 23]).known()  # and then it is killed
    assert "log_0.mcap" not in files(tmp_path / "log")


def test_other_tools_read_what_is_left(tmp_path):
    life = Life(tmp_path / "log").receive(make_records(STATE, TOTAL))
    life.log.close()
    with Reader(tmp_path / "log") as reader:
        assert len(list(reader.messages())) == reader.message_count > CAPACITY


def test_everything_stays_if_so_asked(tmp_path):
    Life(tmp_path / "log", replace(SMALL, log_everything=True)).receive(make_records(STATE, TOTAL))
    assert len(list(TransitionLog.read(tmp_path / "log", STATE))) == TOTAL


def test_interventions_stay_for_they_are_demonstrations(tmp_path):
    records = make_records(STATE, TOTAL)
    records[3] = replace(records[3], source=Source.INTERVENTION)
    life = Life(tmp_path / "log").receive(records)
    left = files(tmp_path / "log")
    assert left[0] == "log_0.mcap"
    assert left[1] != "log_1.mcap"
    again = Life(tmp_path / "log")
    assert again.known() == life.known()
    drawn = again.intake._demos.sample(20, np.random.default_rng(0))
    assert set(drawn.rewards.tolist()) == {np.float32(records[3].reward)}
    assert drawn.shown.all()


@pytest.mark.parametrize("between", [0, 60])
def test_the_file_that_completes_an_intervention_stays_too(tmp_path, between):
    """The last record of a file is an intervention; what follows it comes in the next, or after what others sent."""
    records, config = make_records(STATE, TOTAL), replace(SMALL, log_file_size=0.0115)  # ends amidst an episode
    life, at = Life(tmp_path / "log", config), 0
    while files(tmp_path / "log") in ([], ["log_0.mcap"]):
        life.receive([records[at]])
        at += 1
    assert not records[at - 2].last
    for last in (at - 3, at - 2, at - 1):  # the second of them ends the file
        path = tmp_path / f"log{last}"
        shown = [replace(r, source=Source.INTERVENTION if i == last else Source.POLICY) for i, r in enumerate(records)]
        life = Life(path, config).receive(shown[:last + 1]).receive(make_records(STATE, between, "actor-2"))
        life.receive(shown[last + 1:])
        assert len(files(path)) < 0.5 * (TOTAL + between) / at
        assert len(life.intake._demos) == len(Life(path, config).intake._demos) > 0


def test_sessions_that_are_gone_from_the_log_are_not_forgotten(tmp_path):
    life = Life(tmp_path / "log").receive(make_records(STATE, 30, "early")).receive(make_records(STATE, TOTAL))
    assert {record.session for record in TransitionLog.read(tmp_path / "log", STATE)} == {"actor-1"}
    again = Life(tmp_path / "log")
    assert again.known() == life.known()
    again.receive(make_records(STATE, 31, "early"))
    assert (again.report.transitions_duplicate, again.report.transitions_stored) == (30, 1)


@pytest.mark.parametrize("step", ["unlink", "_write_metadata"])
def test_dying_while_a_file_is_deleted_counts_nothing_twice(tmp_path, monkeypatch, step):
    class Death(BaseException):
        pass

    def die(*_, **__) -> None:
        raise Death

    life = Life(tmp_path / "log")
    deleting = run_log.write_atomically
    doomed = []

    def announce(path, text) -> None:
        deleting(path, text)
        doomed.append(text)
        monkeypatch.setattr(*((Path, "unlink") if step == "unlink" else (bag_log, "_write_metadata")), die)

    monkeypatch.setattr(run_log, "write_atomically", announce)
    records = make_records(STATE, TOTAL)
    count = 0
    with pytest.raises(Death):  # noqa: PT012
        for count in range(TOTAL):
            life.receive([records[count]])
    monkeypatch.undo()
    assert len(doomed) == 1
    again = Life(tmp_path / "log")
    assert "log_0.mcap" not in files(tmp_path / "log")
    assert again.known() == life.known()
    assert again.report.env_steps == count + 1


def test_a_file_that_cannot_be_deleted_is_tried_again(tmp_path, monkeypatch):
    life = Life(tmp_path / "log")
    unlink = Path.unlink

    def refuse(self, missing_ok=False) -> None:
        raise PermissionError(1, "no")

    monkeypatch.setattr(Path, "unlink", refuse)
    life.receive(make_records(STATE, 200))
    assert "log_0.mcap" in files(tmp_path / "log")
    monkeypatch.setattr(Path, "unlink", unlink)
    life.receive(make_records(STATE, TOTAL)[200:])
    assert "log_0.mcap" not in files(tmp_path / "log")
    assert Life(tmp_path / "log").known() == life.known()


@pytest.mark.parametrize("text", ["", "[]", '{"sessions": {"a": 3}}', '{"sessions": {}, "deleting": 5}'])
def test_a_damaged_record_of_what_was_deleted_is_an_error(tmp_path, text):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / DELETED).write_text(text)
    with pytest.raises(DataError, match=f"{DELETED}: expected what deleted files of the log held"):
        Life(tmp_path / "log")


@pytest.mark.parametrize(("policy", "synchronised"), [("never", 0), ("period", 5), ("always", 20)])
def test_what_survives_a_power_cut_is_as_asked_for(tmp_path, monkeypatch, policy, synchronised):
    sizes, now = [], [0.0]
    monkeypatch.setattr(os, "fsync", lambda file: sizes.append(os.fstat(file).st_size))
    life = Life(tmp_path / "log", LogConfig(log_sync=policy, log_sync_period=1.0), clock=lambda: now[0])
    for record in make_records(STATE, 20):
        now[0] += 0.25
        life.receive([record])
    assert len(sizes) - (synchronised > 0) == synchronised  # once its folder too
    if policy == "always":
        assert sizes[-1] == (tmp_path / "log" / "log_0.mcap").stat().st_size


def test_complete_files_are_synchronised_whenever_that_is_not_never(tmp_path, monkeypatch):
    paths = set()
    monkeypatch.setattr(os, "fsync", lambda file: paths.add(Path(os.readlink(f"/proc/self/fd/{file}")).name))
    config = LogConfig(log_file_size=0.01, log_sync="period", log_sync_period=1e9)
    Life(tmp_path / "log", config).receive(make_records(STATE, 60))
    assert {name for name in paths if name.endswith(".mcap")} == set(files(tmp_path / "log")[:-1])


# What a power cut or a full disk leaves of the newest file


def test_a_torn_end_costs_only_what_was_torn_and_is_told(tmp_path):
    path = tmp_path / "log"
    first = Life(path).receive(make_records(STATE, 35))
    newest = path / files(path)[-1]
    whole = newest.read_bytes()
    begin, end = chunks_of(whole)[-1]
    newest.write_bytes(whole[:end - 50] + bytes(len(whole) - end + 50))
    second = Life(path)
    assert second.report.env_steps == 34
    assert second.log.lost == [f"{newest}: going on without the last {len(whole) - begin} of its {len(whole)} bytes, "
                               "which were not written as a whole: the checksum of a chunk is wrong"]
    second.receive(make_records(STATE, TOTAL)[34:])
    assert second.report.env_steps == TOTAL
    assert first.log.lost == Life(path).log.lost == []
    assert Life(path).known() == second.known()


def test_a_kill_is_not_told_as_a_loss(tmp_path):
    Life(tmp_path / "log").receive(make_records(STATE, 35))
    assert Life(tmp_path / "log").log.lost == []


@pytest.mark.parametrize("left", [b"", b"\x89MC", bytes(5000)])
def test_a_file_that_was_only_begun_is_left_out_and_its_name_given_again(tmp_path, left):
    path = tmp_path / "log"
    Life(path).receive(make_records(STATE, 35))
    begun = path / f"log_{len(files(path))}.mcap"
    begun.write_bytes(left)
    second = Life(path)
    assert second.log.lost == [f"{begun}: nothing of it reached the disk: going on without it"]
    second.receive(make_records(STATE, TOTAL)[35:])  # so much that the file of that name is deleted in the end
    assert begun.name not in files(path)
    third = Life(path)
    assert third.log.lost == []
    assert third.known() == second.known()
    assert third.report.env_steps == TOTAL


def test_a_torn_file_that_is_not_the_newest_is_an_error_with_a_remedy(tmp_path):
    path = tmp_path / "log"
    Life(path).receive(make_records(STATE, 35))
    older = files(path)[-2]
    whole = (path / older).read_bytes()
    _, end = chunks_of(whole)[-1]
    (path / older).write_bytes(whole[:end - 50] + bytes(len(whole) - end + 50))
    with pytest.raises(DataError, match=rf"{older}: damaged at byte \d+: .*; move the file out of its folder to go on"):
        Life(path)
    (path / older).rename(tmp_path / older)
    assert 0 < Life(path).report.env_steps < 35
