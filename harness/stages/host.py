"""The host: what a figure must not be compared without, and who gets which cores.

In: nothing but the machine. Out: `fingerprint`, its record, `available_cores`, and `split_cores`.
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
