# SPDX-License-Identifier: Apache-2.0
"""The files of a spool: what is flushed is there, what is damaged is named, what is not needed goes."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from rlpd_ros.data.spool_files import FILE_SIZE, SpoolFiles, SpoolFolder
from rlpd_ros.errors import ConfigError, DataError
from rlpd_ros.ros.spools import open_folder
from rlpd_ros.settings import ActorNodeConfig


def folder_at(path: Path, limit: float = 100.0) -> SpoolFolder:
    folder = open_folder(ActorNodeConfig(spool_folder=str(path), spool_limit=limit), "/actor")
    assert folder is not None
    return folder


# Files


def test_what_is_appended_is_read_by_the_next_life(tmp_path):
    files = SpoolFiles(tmp_path, "a", lambda size: None)
    data = [bytes([i]) * (i + 1) for i in range(200)]
    for i, record in enumerate(data, start=1):
        files.append(i, record)
    later = SpoolFiles(tmp_path, "a")
    assert (later.first, later.end) == (1, 201)
    assert [later.read(i) for i in range(1, 201)] == data
    later.append(201, b"more")
    assert SpoolFiles(tmp_path, "a").read(201) == b"more"


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 12])
def test_a_torn_tail_is_cut_and_written_over(tmp_path, cut):
    files = SpoolFiles(tmp_path, "a")
    for i in range(1, 4):
        files.append(i, b"data!")
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-cut] if cut < 13 else b"")
    later = SpoolFiles(tmp_path, "a")
    assert (later.first, later.end) == (1, 3)
    later.append(3, b"another")
    again = SpoolFiles(tmp_path, "a")
    assert [again.read(i) for i in (1, 2, 3)] == [b"data!", b"data!", b"another"]


def test_zeros_that_a_crashed_file_system_leaves_are_no_records(tmp_path):
    SpoolFiles(tmp_path, "a").append(1, b"data")
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes() + bytes(100))
    assert SpoolFiles(tmp_path, "a").end == 2
    path.write_bytes(bytes(100))
    assert SpoolFiles(tmp_path, "a").end == 1
    assert not list(tmp_path.iterdir())


def test_a_flipped_bit_is_noticed(tmp_path):
    SpoolFiles(tmp_path, "a").append(1, b"data")
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged at byte 0"):
        SpoolFiles(tmp_path, "a").read(1)


def test_files_go_when_all_in_them_is_acknowledged(tmp_path):
    files, data = SpoolFiles(tmp_path, "a"), bytes(FILE_SIZE // 2)
    for i in range(1, 6):
        files.append(i, data)
    assert len(list(tmp_path.iterdir())) == 3
    files.forget(3)
    assert (files.first, files.end) == (3, 6)
    files.forget(5)
    assert not list(tmp_path.iterdir())
    files.append(9, data)  # 6 to 8 were acknowledged before they came here
    assert (files.first, files.end) == (9, 10)


def test_renumbered_files_are_another_sessions(tmp_path):
    files = SpoolFiles(tmp_path, "a")
    for i in range(1, 6):
        files.append(i, b"%d" % i)
    files.renumber("b", 3)
    later = SpoolFiles(tmp_path, "b")
    assert (later.first, later.end, later.read(1)) == (-2, 3, b"4")
    assert SpoolFiles(tmp_path, "a").end == 1


def test_a_folder_belongs_to_one_actor_and_tells_what_was_left(tmp_path):
    folder = folder_at(tmp_path)
    with pytest.raises(ConfigError, match="in use by another actor"):
        folder_at(tmp_path)
    for session in ("b", "a"):
        folder.begin(session).append(1, b"data")
    folder.close()
    assert folder_at(tmp_path).sessions() == ["b", "a"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"spool_folder: cannot write to .*/file/actor"):
        folder_at(tmp_path / "file")


def test_no_folder_no_spool():
    assert open_folder(ActorNodeConfig(), "/actor") is None


def test_namespaces_have_folders_of_their_own(tmp_path):
    folder = open_folder(ActorNodeConfig(run=str(tmp_path)), "/lab/left/actor")
    assert folder is not None
    assert folder.path == tmp_path / "spool" / "lab.left.actor"


def test_a_spool_stays_within_its_limit(tmp_path):
    files = folder_at(tmp_path, limit=0.001).begin("a")
    for i in range(1, 10):
        files.append(i, bytes(100))
    with pytest.raises(OSError, match=r"spool_limit 0\.001 MB") as caught:
        files.append(10, bytes(100))
    assert caught.value.errno == errno.ENOSPC
    files.forget(9)
    files.append(10, bytes(100))
