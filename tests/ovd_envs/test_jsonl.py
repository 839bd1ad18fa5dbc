from __future__ import annotations

import errno
import os
import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovd_envs import OVDError
from ovd_envs.jsonl import read_jsonl, read_jsonl_numbered, write_atomic, write_jsonl

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet=st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=5))
def test_rows_come_back_as_they_were(tmp_path, rows):
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert list(read_jsonl(tmp_path / "rows.jsonl")) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n\n{"a": \n', r"rows.jsonl, row 3: not valid JSON"),
        ('{"a": 1}\n[1, 2]\n', r"rows.jsonl, row 2: expected a JSON object, got list"),
        ('{"a": 1}\n\xff\n', r"rows.jsonl, row 2: not valid JSON"),
        ("[" * 100_000, r"rows.jsonl, row 1: not valid JSON"),
    ],
)
def test_a_bad_row_is_named(tmp_path, text, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(OVDError, match=message):
        list(read_jsonl(path))


def test_line_numbers_count_blank_lines(tmp_path):
    (tmp_path / "rows.jsonl").write_text('\n{"a": 1}\n\n{"a": 2}\n')
    assert list(read_jsonl_numbered(tmp_path / "rows.jsonl")) == [(2, {"a": 1}), (4, {"a": 2})]


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(OVDError, match=r"missing.jsonl: cannot be read \(no such file"):
        list(read_jsonl(tmp_path / "missing.jsonl"))
    with pytest.raises(OVDError, match="it is a folder"):
        list(read_jsonl(tmp_path))


def test_folders_are_made_and_the_umask_is_kept(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    old = os.umask(0o027)
    try:
        write_atomic(path, "text")
    finally:
        os.umask(old)
    assert path.read_text() == "text"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("call", "number", "message"),
    [
        ("fsync", errno.ENOSPC, "the disk is full"),
        ("fsync", errno.EIO, "Input/output error"),
        ("open", errno.EROFS, "the file system is read-only"),
        ("open", errno.EACCES, "permission denied"),
        ("replace", errno.ENOSPC, "the disk is full"),
    ],
)
def test_a_failed_write_is_told_in_one_line_and_leaves_the_old_file(
    tmp_path, monkeypatch, call, number, message
):
    path = tmp_path / "file.txt"
    write_atomic(path, "old")

    def fail(*args, **options):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OVDError, match=message) as caught:
            write_atomic(path, "new")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_rows_that_fail_half_way_leave_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"n": 0}])

    def rows():
        yield {"n": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, rows())
    assert list(read_jsonl(path)) == [{"n": 0}]
    assert os.listdir(tmp_path) == ["rows.jsonl"]


def test_the_file_and_its_folder_are_synced_around_the_replacement(tmp_path, monkeypatch):
    calls = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_fsync(descriptor)

    def replace(*args):
        calls.append("replace")
        real_replace(*args)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_atomic(tmp_path / "file", b"data")
    assert calls == ["file", "replace", "folder"]
