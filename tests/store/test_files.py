"""A file is found whole or not at all."""

import hashlib
from pathlib import Path

import pytest

from harness.store.files import sha256_of, write_atomically


def test_a_file_and_its_folder_are_made(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b", b"content")
    assert (tmp_path / "a" / "b").read_bytes() == b"content"
    assert sha256_of(tmp_path / "a" / "b") == hashlib.sha256(b"content").hexdigest()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept"
    write_atomically(path, b"old")

    def refuse(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]
    assert path.read_bytes() == b"old"
