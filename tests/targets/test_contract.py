"""What every target promises: ready before it is entered, the same answers as in process, nothing left afterwards."""

import contextlib
import dataclasses
import importlib
import os
import pkgutil
import socket
import subprocess
import sys
import urllib.request
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest

import harness.targets
from harness.errors import InfrastructureError, UsageError
from harness.process import LOOPBACK
from harness.runtimes.onnx import Onnx
from harness.serving.protocol import decode_response, encode_request
from harness.stages.load.timing import stages_ns
from harness.targets.asgi import Asgi

NAMES = sorted(module.name for module in pkgutil.iter_modules(harness.targets.__path__))
STARTING = [name for name in NAMES if name != "external"]
"""Targets that start something."""

# Ray still uses what pydantic has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def target_class(name):
    module = importlib.import_module(f"harness.targets.{name}")
    (found,) = (
        value
        for key, value in vars(module).items()
        if dataclasses.is_dataclass(value) and value.__module__ == module.__name__ and not key.startswith("_")
    )
    return found


@contextlib.contextmanager
def served(name, servable):
    """The endpoint of a target; the one that starts nothing is given a server to find."""
    if name == "external":
        with Asgi().serve(servable) as there:
            made = target_class(name)(url=f"{there.url}/", model=there.model)
            with made.serve(servable) as endpoint:
                yield endpoint
        return
    with target_class(name)().serve(servable) as endpoint:
        yield endpoint


def timing_of(url, body):
    """Where the server says its time went, as it arrives here."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, data=body), timeout=30) as answer:
        return answer.headers["Server-Timing"]


def descendants():
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]


def refused(url):
    with socket.socket() as sock:
        return sock.connect_ex((LOOPBACK, urlsplit(url).port)) != 0


@pytest.mark.parametrize("name", NAMES)
def test_a_target_is_ready_answers_as_in_process_and_leaves_nothing(name, servable, signature, batch, bundle, ask):
    for library in importlib.import_module(f"harness.targets.{name}").REQUIRES:
        importlib.import_module(library)  # what Ray sets in the environment on import, it needs as long as it is loaded
    before, environment, cores = descendants(), dict(os.environ), os.sched_getaffinity(0)
    replicas = 1 if name in ("external", "ray_serve") else 2
    servable = dataclasses.replace(servable, replicas=replicas, cores=(min(cores),))

    with served(name, servable) as endpoint:
        assert urlsplit(endpoint.url).hostname == LOOPBACK
        assert endpoint.startup_s > 0
        assert ask(f"{endpoint.url}/v2/health/ready")[0] == 200
        assert os.sched_getaffinity(0) == cores
        started = [process for process in descendants() if process not in before]
        assert started
        for process in started:
            if "harness.sweeper" not in process.cmdline():  # it sleeps until the end, and answers nobody
                assert process.cpu_affinity() == [min(cores)], process.name()
        status, answer = ask(endpoint.url + endpoint.infer_path, encode_request(batch, signature))
        assert status == 200
        if not target_class(name).bare or name == "external":
            found = decode_response(answer, signature)
            wanted = Onnx().load(bundle / "model.onnx", signature)(batch)
            assert np.array_equal(found.values, wanted.values)
            assert np.array_equal(found.probabilities, wanted.probabilities)
            bad = encode_request(batch, signature).replace(b'"height"', b'"weight"')
            assert ask(endpoint.url + endpoint.infer_path, bad)[0] == 400
            assert stages_ns(timing_of(endpoint.url + endpoint.infer_path, encode_request(batch, signature)))
        if not target_class(name).bare:
            assert endpoint.notes, "the settings that were in force"
            assert endpoint.cores == servable.cores
            # Where everyone is to ask, not where a proxy in front does.
            assert f"curl -s {endpoint.url}{endpoint.infer_path} " in ask(f"{endpoint.url}/")[1].decode()

    assert refused(endpoint.url)
    assert not [process for process in started if process in descendants()]
    assert {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")} == {
        key: value for key, value in environment.items() if not key.startswith("PYTEST")
    }


@pytest.mark.parametrize("name", [name for name in STARTING if name != "ray_serve"])
def test_a_target_is_left_clean_after_an_exception_too(name, servable):
    with pytest.raises(KeyboardInterrupt), served(name, servable) as endpoint:
        raise KeyboardInterrupt

    assert refused(endpoint.url)


@pytest.mark.parametrize("name", STARTING)
def test_a_port_that_is_taken_is_named(name, servable):
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=str(port)), target_class(name)(port=port).serve(servable):
            pytest.fail("entered")


@pytest.mark.parametrize("name", [name for name in STARTING if name != "ray_serve" and not target_class(name).bare])
def test_a_candidate_that_cannot_be_served_is_an_error_with_the_servers_own_words(name, servable, tmp_path):
    missing = dataclasses.replace(servable, bundle=tmp_path / "none")

    with pytest.raises(InfrastructureError, match=r"(?s)is not the folder of a candidate"), served(name, missing):
        pytest.fail("entered")

    assert not [process for process in descendants() if "harness.server" in process.cmdline()]


@pytest.mark.parametrize("name", [name for name in NAMES if not target_class(name).bare])
def test_a_target_of_ours_wants_a_candidate(name, servable):
    with pytest.raises(UsageError, match=name), served(name, dataclasses.replace(servable, bundle=None)):
        pytest.fail("entered")


@pytest.mark.parametrize("name", STARTING)
def test_a_killed_harness_takes_its_server_along(name, servable):
    if name == "ray_serve":
        pytest.skip("its own test says so of Ray")
    code = (
        "import sys, time, dataclasses, pathlib\n"
        f"from harness.targets.{name} import {target_class(name).__name__} as Target\n"
        "from harness.ports import Servable\n"
        f"servable = Servable(entry='harness.server', bundle=pathlib.Path({str(servable.bundle)!r}), runtime='onnx',\n"
        f"    model='c1', replicas=1, cores=(), log=pathlib.Path({str(servable.log)!r}))\n"
        "with Target().serve(servable) as endpoint:\n"
        "    print(endpoint.url, flush=True)\n"
        "    time.sleep(300)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        try:
            url = parent.stdout.readline().strip()
            servers = psutil.Process(parent.pid).children()
            assert len(servers) == 1
        finally:
            parent.kill()
    psutil.wait_procs(servers, timeout=30)

    assert refused(url)


@pytest.mark.parametrize("name", NAMES)
def test_its_libraries_wait_until_it_is_used(name):
    libraries = {"ray", "uvicorn", "uvloop", "httptools", "sklearn", "pandas", "onnxruntime"}
    asked = f"import sys, harness.targets.{name}; print(sorted({libraries!r} & set(sys.modules)))"
    answered = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert answered.stdout.strip() == "[]"
