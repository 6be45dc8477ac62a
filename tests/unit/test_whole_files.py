import os
import stat

import pytest

from muster.whole_files import PRIVATE_FILE, PUBLIC_FILE, NewFile, write_private, write_together


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_private_file_is_private_whatever_the_umask(tmp_path, umask):
    path = tmp_path / "key"
    write_private(path, b"1")
    write_private(path, b"2")
    assert (path.read_bytes(), mode(path)) == (b"2", 0o600)
    assert names(tmp_path) == ["key"]


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(tmp_path):
    (tmp_path / "key").mkdir()
    with pytest.raises(IsADirectoryError):
        write_private(tmp_path / "key", b"1")
    assert names(tmp_path) == ["key"]


def test_files_have_their_modes_and_directories_are_made(tmp_path, umask):
    one, other = tmp_path / "new" / "a.key", tmp_path / "other" / "a.pem"
    write_together([NewFile(one, b"key", PRIVATE_FILE), NewFile(other, b"pem", PUBLIC_FILE)], replace=False)
    assert (one.read_bytes(), other.read_bytes()) == (b"key", b"pem")
    assert (mode(one), mode(other)) == (0o600, 0o644 & ~umask)


def test_nothing_is_written_when_one_is_there(tmp_path):
    (tmp_path / "b").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write_together([NewFile(tmp_path / name, b"new", PUBLIC_FILE) for name in "abc"], replace=False)
    assert names(tmp_path) == ["b"]
    assert (tmp_path / "b").read_bytes() == b"old"


def test_what_was_there_is_replaced(tmp_path):
    (tmp_path / "b").write_bytes(b"old")
    (tmp_path / ".b.new").write_bytes(b"left behind by a crash")
    write_together([NewFile(tmp_path / name, b"new", PUBLIC_FILE) for name in "ab"], replace=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"new", "b": b"new"}


def test_what_was_there_stays_when_a_new_one_cannot_be_written(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / ".b.new").mkdir()
    with pytest.raises(OSError):
        write_together([NewFile(tmp_path / name, b"new", PUBLIC_FILE) for name in "ab"], replace=True)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == [".b.new", "a"]
