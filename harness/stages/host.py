"""The host: what a figure must not be compared without, and who gets which cores.

In: nothing but the machine. Out: `fingerprint`, its record, `differences` of two, `available_cores`, and `split_cores`.
"""

import importlib.metadata
import os
import platform
from pathlib import Path

import psutil

from harness.records.run import Host

LIBRARIES = (
    "ray",
    "optuna",
    "flaml",
    "locust",
    "gevent",
    "geventhttpclient",
    "scikit-learn",
    "onnxruntime",
    "lightgbm",
    "xgboost",
    "numpy",
    "pandas",
    "uvicorn",
    "uvloop",
)
"""Distributions whose version can change a figure."""


def fingerprint() -> Host:
    """This machine, the Python that runs on it, and the versions of `LIBRARIES` (those that are installed).

    Cores are those this process may use, which in a container or under a batch system are fewer than the machine has.
    """
    generator_cores, target_cores = split_cores()
    return Host(
        system=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        cpu=_cpu(),
        cores=len(available_cores()),
        memory_bytes=psutil.virtual_memory().total,
        python=platform.python_version(),
        versions=_versions(),
        generator_cores=generator_cores,
        target_cores=target_cores,
    )


def differences(host: Host, other: Host, libraries: bool = True) -> list[str]:
    """What makes times of two hosts unlike, in words; nothing where they may be pooled.

    A trial has one thread and a limit of memory: how many cores a host has and how much memory, and its kernel, do not
    count. Without `libraries` it is the hardware alone, for what runs in an environment of its own.
    """
    found = [(name, getattr(host, name), getattr(other, name)) for name in ("machine", "cpu")]
    if libraries:
        found.append(("python", host.python, other.python))
        names = sorted(set(host.versions) | set(other.versions))
        found += [(name, host.versions.get(name, "none"), other.versions.get(name, "none")) for name in names]
    return [f"{name} {one} and not {another}" for name, one, another in found if one != another]


def split_cores() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Cores of the load generator and cores of the server: the last one available, and all others.

    The generator is one thread, a second core would do nothing for it. With a single core both share it.
    """
    *others, last = available_cores()
    return (last,), tuple(others) or (last,)


def available_cores() -> list[int]:
    """Those this process may use, by number."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    """The processor's name; on Linux `platform.processor` is empty or the mere architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Processor", "Model")))
    return next((name for name in named if name), platform.processor() or "unknown")
