"""What the load generator can do is kept for the host it was measured on, and for no other."""

import subprocess
from pathlib import Path

import pytest

from harness.errors import IntegrityError, UsageError
from harness.records.run import Host, Roofline
from harness.store.roofline import keep_roofline, read_roofline
from harness.store.runs import find_run, new_run, runs

ROOT = Path(__file__).resolve().parents[2]
HOST = Host(
    system="Linux 6.1",
    machine="x86_64",
    cpu="A processor",
    cores=2,
    memory_bytes=24 * 2**30,
    python="3.11.9",
    versions={"locust": "2.47.0", "gevent": "26.9.0", "numpy": "2.4.0"},
    generator_cores=(1,),
    target_cores=(0,),
)


def roofline(rate_rps: float = 60_000.0, measured_by: str = "harness doctor") -> Roofline:
    return Roofline(
        rate_rps=rate_rps,
        measured_utc="2026-01-01T00:00:00Z",
        measured_by=measured_by,
        workers=1,
        rows=1,
        host=HOST,
    )


def test_what_was_kept_is_read_again(tmp_path: Path) -> None:
    assert read_roofline(tmp_path, HOST) is None
    assert keep_roofline(tmp_path, roofline()) == tmp_path / "roofline.json"
    assert read_roofline(tmp_path, HOST) == roofline()


def test_the_last_one_wins(tmp_path: Path) -> None:
    keep_roofline(tmp_path, roofline())
    keep_roofline(tmp_path, roofline(50_000.0, "20260102T000000Z-quickstart"))
    found = read_roofline(tmp_path, HOST)
    assert found is not None and (found.rate_rps, found.measured_by) == (50_000.0, "20260102T000000Z-quickstart")
    assert [path.name for path in tmp_path.iterdir()] == ["roofline.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"cpu": "Another processor"},
        {"machine": "aarch64"},
        {"cores": 4},
        {"generator_cores": (3,)},
        {"target_cores": (0, 1)},
        {"python": "3.12.1"},
        {"versions": {**HOST.versions, "locust": "2.48.0"}},
        {"versions": {**HOST.versions, "gevent": "27.0.0"}},
        {"versions": {"numpy": "2.4.0"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_of_another_host_it_says_nothing(tmp_path: Path, change: dict[str, object]) -> None:
    keep_roofline(tmp_path, roofline())
    assert read_roofline(tmp_path, HOST.model_copy(update=change)) is None


@pytest.mark.parametrize("change", [{"memory_bytes": 2**30}, {"versions": {**HOST.versions, "numpy": "3.0.0"}}])
def test_what_has_no_part_in_the_rate_makes_no_other_host(tmp_path: Path, change: dict[str, object]) -> None:
    keep_roofline(tmp_path, roofline())
    assert read_roofline(tmp_path, HOST.model_copy(update=change)) == roofline()


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"rate_rps": 1}', roofline().model_dump_json().replace("60000.0", "-1").encode()],
)
def test_a_damaged_file_is_told_and_can_be_measured_anew(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "roofline.json").write_bytes(damage)
    with pytest.raises(IntegrityError, match=r"roofline\.json cannot be read .* `harness doctor` measure it anew"):
        read_roofline(tmp_path, HOST)
    keep_roofline(tmp_path, roofline())
    assert read_roofline(tmp_path, HOST) == roofline()


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "roofline.json").mkdir()
    with pytest.raises(IntegrityError, match="cannot be read"):
        read_roofline(tmp_path, HOST)


def test_the_file_is_no_run(tmp_path: Path) -> None:
    keep_roofline(tmp_path, roofline())
    assert runs(tmp_path) == []
    for run_id in ("latest", "roofline.json"):
        with pytest.raises(UsageError, match="There is no run"):
            find_run(tmp_path, run_id)


def test_no_run_takes_its_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be the id of a run"):
        new_run(tmp_path, "roofline.json", lambda made: None)
    assert list(tmp_path.iterdir()) == []


def test_it_is_never_committed() -> None:
    asked = ["git", "check-ignore", "--quiet", "results/roofline.json"]
    assert subprocess.run(asked, cwd=ROOT, check=False).returncode == 0
