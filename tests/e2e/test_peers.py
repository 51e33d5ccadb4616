"""The comparison with other servers runs from end to end, with those that are installed here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.environments import is_installed

ROOT = Path(__file__).resolve().parents[2]
PEERS = {"MLServer": "mlserver", "MLflow": "mlflow", "BentoML": "bentoml"}

pytestmark = [pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(600)]


def test_every_server_that_is_installed_answers_rightly_and_is_measured(tmp_path: Path) -> None:
    names = ["asgi + onnx", *PEERS]
    asked = [part for name in names for part in ("--only", name)]
    found = tmp_path / "found.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "peers"), "--rounds", "1", "--seconds", "0.5", *asked]
    command += ["--json", str(found)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(found.read_text())
    assert set(measured) == {"asgi + onnx", *(name for name, environment in PEERS.items() if is_installed(environment))}
    for one in measured.values():
        (rates,) = one["rates_rps"]
        assert one["failure"] is None and all(rate > 0 for rate in rates.values())
    for name in set(names) - set(measured):
        assert f"| {name} | not installed: `make peers` |" in done.stdout
