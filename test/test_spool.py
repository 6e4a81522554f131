# SPDX-License-Identifier: Apache-2.0
"""Transitions on the actor's disk: nothing that was executed is lost while the learner is away, whoever dies."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recordings import PIXELS, STATE, expect_same, make_record, make_records
from test_spool_files import folder_at

from rlpd_ros.data.outbox import Outbox
from rlpd_ros.data.sender import Sender
from rlpd_ros.data.spool import Spool
from rlpd_ros.data.spool_files import SpoolFolder
from rlpd_ros.ros.spools import open_spool
from rlpd_ros.status import ActorReport
from rlpd_ros.types import Acknowledgement, TransitionRecord

DEADLINE = 60.0  # s
SESSION = make_record(STATE, 1).session


def wait_for(condition, *also) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        for call in also:
            call()
        time.sleep(0.001)  # between two looks


def ack(sequence: int, learner: str = "l1", session: str = SESSION) -> Acknowledgement:
    return Acknowledgement(session, learner, sequence, 10**6)


# The spool behind an outbox


def filled(spool: Spool, spec, records: int, **options) -> Outbox:
    outbox = Outbox(window=20, spool=spool, **options)
    for record in make_records(spec, records):
        outbox.add(record)
    return outbox


@pytest.mark.parametrize("spec", [STATE, PIXELS])
def test_memory_holds_only_what_is_sent_soon_and_all_comes_back_in_order(tmp_path, spec):
    spool = open_spool(folder_at(tmp_path), SESSION, spec)
    outbox = filled(spool, spec, 300)
    assert spool.flush(DEADLINE)
    outbox.add(make_record(spec, 301))
    assert outbox.in_memory <= 41
    assert outbox.unacknowledged == 301
    arrived: list[TransitionRecord] = []

    def exchange() -> None:
        arrived.extend(outbox.due(0.0))
        outbox.acknowledge(ack(len(arrived)), 0.0)

    wait_for(lambda: len(arrived) == 301, exchange)
    expect_same(arrived, make_records(spec, 301))
    assert outbox.resent == 0
    assert spool.flush(DEADLINE)
    assert outbox.in_memory == spool.stored == 0
    assert [path.name for path in (tmp_path / "actor").iterdir()] == ["lock"]


def test_few_are_not_written_if_so_asked(tmp_path):
    spool = open_spool(folder_at(tmp_path), SESSION, STATE)
    outbox = filled(spool, STATE, 10, spool_beyond=10)
    assert (spool.flush(DEADLINE), spool.written) == (True, 0)
    outbox.add(make_record(STATE, 11))
    assert (spool.flush(DEADLINE), spool.written) == (True, 11)


def test_a_damaged_record_stops_its_session_and_says_so(tmp_path):
    folder = folder_at(tmp_path)
    assert filled(open_spool(folder, "actor-1", STATE), STATE, 5).close()
    (path,) = folder.path.glob("*.spool")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, (1, 1))  # older, also for a clock that ticks seldom
    assert filled(open_spool(folder, "actor-2", STATE), STATE, 3).close()
    sender, warnings, sent = make_sender(folder, STATE)
    wait_for(lambda: len(sent) >= 5, lambda: sent.extend(sender.due(0.0)), lambda: answer(sender, sent))
    assert [(r.session, r.sequence) for r in sent[:2]] == [("actor-1", 1), ("actor-1", 2)]
    assert sent[-1].session == "actor-2"
    assert "damaged at byte" in warnings[0]
    assert path.exists()


def test_what_was_made_in_another_space_stays_on_disk(tmp_path):
    folder = folder_at(tmp_path)
    assert filled(open_spool(folder, "actor-1", PIXELS), PIXELS, 5).close()
    sender, warnings, _ = make_sender(folder, STATE)
    wait_for(lambda: warnings, lambda: list(sender.due(0.0)))
    assert "it was made in another space" in warnings[0]
    assert folder.sessions() == ["actor-1"]


# What earlier lives left


def make_sender(folder: SpoolFolder, spec) -> tuple[Sender, list[str], list[TransitionRecord]]:
    warnings: list[str] = []
    sender = Sender("actor-9", 1.0, 1000, warnings.append, lambda name: open_spool(folder, name, spec),
                    folder.sessions())
    return sender, warnings, []


def answer(sender: Sender, sent: list[TransitionRecord]) -> None:
    """Acknowledge as a learner does that stores all that it is sent."""
    for session in {record.session for record in sent}:
        sender.acknowledge(ack(max(r.sequence for r in sent if r.session == session), session=session), 0.0)


ACTOR = """
import sys
from pathlib import Path
from recordings import PIXELS, make_record
from rlpd_ros.data.outbox import Outbox
from rlpd_ros.data.spool_files import SpoolFolder
from rlpd_ros.ros.spools import open_spool
session = sys.argv[2]
spool = open_spool(SpoolFolder(Path(sys.argv[1]), 10**9), session, PIXELS)
outbox = Outbox(spool=spool)
for sequence in range(1, 10**6):
    outbox.add(make_record(PIXELS, sequence))
    if sequence % 50 == 0:
        spool.flush(60.0)
        print(sequence, flush=True)
"""


def test_what_killed_actors_left_is_sent_by_the_next_one(tmp_path):
    """Several actors die by SIGKILL while the learner is away; the next one brings all that they had."""
    done = {}
    for number in (1, 2, 3):
        child = subprocess.Popen([sys.executable, "-c", ACTOR, str(tmp_path), f"actor-{number}"],
                                 stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
        lines = [child.stdout.readline() for _ in range(2 + number)]
        child.kill()
        assert child.wait() == -signal.SIGKILL
        done[f"actor-{number}"] = int(lines[-1])
    folder = SpoolFolder(tmp_path, 10**9)
    sender, warnings, sent = make_sender(folder, PIXELS)
    sender.add(make_record(PIXELS, 1, "actor-9"))
    wait_for(lambda: folder.sessions() == [], lambda: sent.extend(sender.due(0.0)), lambda: answer(sender, sent))
    for session, count in done.items():
        records = [record for record in sent if record.session == session]
        assert [record.sequence for record in records] == list(range(1, len(records) + 1))
        assert len(records) >= count
        for record, made in zip(records, make_records(PIXELS, len(records)), strict=True):
            assert record.observation.state.tobytes() == made.observation.state.tobytes()
    assert warnings == []
    report = ActorReport("actor-9")
    sender.fill(report)
    assert (report.transitions_unacked, report.transitions_spooled, report.spool_error) == (0, 0, "")


def test_a_learner_of_another_run_gets_the_rest_under_another_name(tmp_path):
    folder = folder_at(tmp_path)
    outbox = filled(spool := open_spool(folder, SESSION, STATE), STATE, 30)
    list(outbox.due(0.0))
    outbox.acknowledge(ack(12), 0.0)
    assert spool.flush(DEADLINE)
    assert outbox.is_foreign(ack(0, "l2"))
    outbox.renumber("other")
    arrived: list[TransitionRecord] = []
    outbox.acknowledge(ack(0, "l2", "other"), 0.0)
    wait_for(lambda: len(arrived) == 18, lambda: arrived.extend(outbox.due(0.0)),
             lambda: outbox.acknowledge(ack(len(arrived), "l2", "other"), 0.0))
    assert [(r.session, r.sequence, r.reward) for r in arrived] == [
        ("other", i - 12, make_record(STATE, i).reward) for i in range(13, 31)]


# No room


def test_a_full_disk_is_told_costs_only_what_memory_cannot_hold_and_recovers(tmp_path):
    folder = folder_at(tmp_path, limit=0.01)
    spool = open_spool(folder, SESSION, STATE)
    outbox = Outbox(window=10, memory=20, spool=spool)
    added = 0
    while not outbox.lost:
        record = make_record(STATE, outbox.next_sequence)
        before = spool.written
        outbox.add(record)
        added += not outbox.lost
        wait_for(lambda before=before: spool.written > before or spool.error)
    assert "the spool is full (spool_limit 0.01 MB)" in spool.error
    assert spool.written == added - 20
    for _ in range(5):
        outbox.add(make_record(STATE, outbox.next_sequence))
    assert outbox.lost == 6
    assert outbox.in_memory <= 20 + 20
    arrived: list[int] = []
    wait_for(lambda: len(arrived) == added, lambda: arrived.extend(r.sequence for r in outbox.due(0.0)),
             lambda: outbox.acknowledge(ack(len(arrived)), 0.0))
    assert arrived == list(range(1, added + 1))
    outbox.add(make_record(STATE, outbox.next_sequence))
    assert spool.flush(DEADLINE)
    assert spool.error == ""


def test_what_is_acknowledged_while_it_is_being_fetched_is_not_missed(tmp_path):
    spool = open_spool(folder_at(tmp_path), SESSION, STATE)
    for record in make_records(STATE, 10):
        spool.put(record)
    assert spool.flush(DEADLINE)
    with spool._done:  # the thread cannot do the first before it knows the second
        spool.fetch(range(3, 8))
        spool.forget(10)
    spool.put(make_record(STATE, 11))
    assert spool.flush(DEADLINE)
    spool.fetch(range(11, 12))
    found: dict[int, TransitionRecord] = {}
    wait_for(lambda: 11 in found or spool.damage, lambda: found.update(spool.take()))
    assert spool.damage == ""
    assert found.keys() == {11}


def test_without_a_spool_memory_is_bounded(tmp_path):
    outbox = Outbox(memory=10)
    for _ in range(15):
        outbox.add(make_record(STATE, outbox.next_sequence))
    assert (outbox.unacknowledged, outbox.lost) == (10, 5)
    list(outbox.due(0.0))
    outbox.acknowledge(ack(10), 0.0)
    outbox.add(make_record(STATE, outbox.next_sequence))
    assert [record.sequence for record in outbox.due(0.0)] == [11]


def test_a_disk_that_hangs_stalls_nobody(tmp_path, monkeypatch):
    """A file system that does not answer: the thread waits for it, who adds and sends does not."""
    spool = open_spool(folder_at(tmp_path), SESSION, STATE)
    write, hanging = os.pwrite, [True]

    def hang(*arguments) -> int:
        while hanging:
            time.sleep(0.001)
        return write(*arguments)

    monkeypatch.setattr(os, "pwrite", hang)
    outbox = Outbox(spool=spool)
    for record in make_records(STATE, 100):
        outbox.add(record)
    assert len(list(outbox.due(0.0))) == 100
    assert spool.written == 0
    hanging.clear()
    assert spool.flush(DEADLINE)
    assert spool.written == 100


def test_everything_arrives_once_and_in_order_whoever_restarts(tmp_path):
    """A lossy link; the learner and the actor die again and again, the latter with all that it has in memory."""
    rng = random.Random(3)
    stored: dict[str, list[TransitionRecord]] = {}  # the learner's disk
    folder, learner, now = folder_at(tmp_path), 0, 0.0
    added: dict[str, int] = {}

    def live() -> Sender:
        return Sender(f"actor-{len(added)}", 1.0, 1000, pytest.fail, lambda name: open_spool(folder, name, STATE),
                      folder.sessions())

    def exchange(sender: Sender) -> None:
        nonlocal now
        now += 0.3
        for record in sender.due(now):
            account = stored.setdefault(record.session, [])
            if rng.random() < 0.9 and record.sequence == len(account) + 1:
                account.append(record)
        for session, account in stored.items():
            if rng.random() < 0.7:
                sender.acknowledge(ack(len(account), f"l{learner}", session), now)

    for life in range(6):
        sender = live()
        added[sender.session] = 0
        for _ in range(rng.randint(20, 80)):
            sender.add(make_record(STATE, sender.next_sequence, sender.session))
            added[sender.session] += 1
            if life % 2:  # in the other lives the learner is away
                learner += rng.random() < 0.05
                exchange(sender)
        assert sender._spool.flush(DEADLINE)  # then it is killed: nothing is closed
    sender = live()
    wait_for(lambda: folder.sessions() == [], lambda: exchange(sender))
    assert {session: len(account) for session, account in stored.items()} == added
    for account in stored.values():
        assert [record.reward for record in account] == [record.reward for record in make_records(STATE, len(account))]
