"""The host's fingerprint, and how its cores are shared out."""

import importlib.metadata
import os
import platform
from pathlib import Path

import pytest

from harness.process import on_cores
from harness.stages.host import LIBRARIES, differences, fingerprint, split_cores

needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no core affinity")


def test_it_names_the_machine_and_the_python():
    host = fingerprint()
    assert host.system.startswith(platform.system())
    assert host.machine == platform.machine() and host.python == platform.python_version()
    assert host.cpu != ""


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="the kernel's own count is in /proc on Linux")
def test_its_memory_is_what_the_kernel_says():
    words = Path("/proc/meminfo").read_text().splitlines()[0].split()
    assert words[0] == "MemTotal:" and fingerprint().memory_bytes == int(words[1]) * 1024


def test_it_knows_the_version_of_every_library_that_can_change_a_figure():
    assert fingerprint().versions == {name: importlib.metadata.version(name) for name in LIBRARIES}


def test_a_library_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr("harness.stages.host.LIBRARIES", ("numpy", "no-such-library-anywhere"))
    assert list(fingerprint().versions) == ["numpy"]


@needs_affinity
def test_the_generator_gets_the_last_available_core_and_the_server_the_others():
    available = sorted(os.sched_getaffinity(0))
    generator_cores, target_cores = split_cores()
    assert generator_cores == (available[-1],)
    assert target_cores == (tuple(available[:-1]) or generator_cores)
    assert fingerprint().cores == len(available)


@needs_affinity
def test_with_a_single_core_both_share_it_and_the_record_says_so():
    core = min(os.sched_getaffinity(0))
    with on_cores((core,)):
        assert split_cores() == ((core,), (core,))
        host = fingerprint()
        assert host.cores == 1 and host.shared_cores


@needs_affinity
@pytest.mark.skipif(os.cpu_count() == 1, reason="needs two cores")
def test_with_two_cores_nothing_is_shared():
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    assert not fingerprint().shared_cores


def test_hosts_are_alike_whose_trials_take_the_same_time() -> None:
    host = fingerprint()
    assert differences(host, host.model_copy(update={"cores": 64, "memory_bytes": 1, "system": "Linux 1"})) == []
    other = host.model_copy(update={"cpu": "Abacus", "versions": {**host.versions, "numpy": "0.1"}})
    numpy = host.versions["numpy"]
    assert differences(host, other) == [f"cpu {host.cpu} and not Abacus", f"numpy {numpy} and not 0.1"]
    assert differences(host, other, libraries=False) == [f"cpu {host.cpu} and not Abacus"]
