"""An environment is there when its make target has come to its end, and both locks agree on what speaks to it."""

import re
import sys
from pathlib import Path

import pytest

from harness.environments import interpreter, is_installed

ROOT = Path(__file__).resolve().parents[1]


def test_it_is_installed_once_its_target_has_written_its_last_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert not is_installed("other")
    interpreter("other").parent.mkdir(parents=True)
    interpreter("other").touch()
    assert not is_installed("other")  # it broke off
    (tmp_path / "environments" / "other" / ".setup").touch()
    assert is_installed("other")


@pytest.mark.parametrize("library", ["ray", "pydantic"])
def test_what_carries_records_between_environments_is_one_version_in_all_of_them(library: str) -> None:
    pinned = re.compile(rf"^{library}==(\S+)", re.MULTILINE)
    ours = pinned.findall((ROOT / "requirements.lock").read_text())
    assert len(ours) == 1
    for lock in ROOT.glob("requirements-autogluon.lock"):
        assert pinned.findall(lock.read_text()) == ours


def test_the_makefile_has_a_target_for_every_lock_of_an_environment() -> None:
    assert "autogluon: $(OWN)/autogluon/.setup" in (ROOT / "Makefile").read_text()
    lock = (ROOT / "requirements-autogluon.lock").read_text()
    assert "autogluon-tabular==" in lock
    assert "://" not in lock  # whoever installs says from where
