"""Ray Serve on a cluster that is there already: three nodes on this machine, a head without CPUs and two with one."""

import dataclasses
import os
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

import harness
from harness.errors import InfrastructureError, UsageError
from harness.process import LOOPBACK, SERVER_HEADER
from harness.ray_session import ray_session
from harness.runtimes.onnx import Onnx
from harness.serving.protocol import decode_response, encode_request
from harness.store.bundle import read_bundle, write_bundle
from harness.targets.ray_serve import RayServe

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    # Ray still uses what pydantic has deprecated, and leaves a file open when it reads the source of a function.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

SPREAD = RayServe(max_replicas_per_node=1)


def node(_):
    import ray

    return ray.get_runtime_context().get_node_id()


def server(url):
    """Which of a server's processes answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/v2/health/live", timeout=30) as answer:
        return answer.headers[SERVER_HEADER]


def alive():
    """Every actor of the cluster that this process is connected to, by class, and its node."""
    import ray

    found = ray._private.state.actors().values()
    return {one["ActorClassName"]: one["Address"]["NodeID"] for one in found if one["State"] != "DEAD"}


def left(address, patience_s=60.0):
    """What is there when we are gone, after a moment in which it may go."""
    deadline_s = time.perf_counter() + patience_s
    with ray_session(0, address):
        import ray

        while (found := alive()) and time.perf_counter() < deadline_s:
            time.sleep(0.2)
        return found, ray.util.placement_group_table(), ray.available_resources()["CPU"]


NOTHING = ({}, {}, 2.0)


@pytest.fixture
def there(servable, shared_ray_cluster):
    return dataclasses.replace(servable, ray_address=shared_ray_cluster.address)


def test_two_replicas_on_two_nodes_answer_as_in_process_and_the_cluster_is_left_as_it_was(
    there, shared_ray_cluster, bundle, batch, signature, ask, capfd
):
    two = dataclasses.replace(there, replicas=2, cores=(0,))
    with SPREAD.serve(two) as endpoint:
        import ray

        replicas = [ray.get_actor(name, namespace="serve") for name in endpoint.replicas]
        nodes = set(ray.get([replica.__ray_call__.remote(node) for replica in replicas]))
        assert len(replicas) == len(nodes) == 2
        assert len({server(endpoint.url) for _ in range(10)}) == 2, "both of them answer, from the first moment on"
        status, answer = ask(endpoint.url + endpoint.infer_path, encode_request(batch, signature))
        assert status == 200
        found = decode_response(answer, signature)
        wanted = Onnx().load(bundle / "model.onnx", signature)(batch)
        assert np.array_equal(found.values, wanted.values)
        assert np.array_equal(found.probabilities, wanted.probabilities)
        # What was in force is what its processes say; nothing of ours was pinned, and nothing is claimed to be.
        assert {"RAY_SERVE_ENABLE_HA_PROXY=1", "RAY_SERVE_THROUGHPUT_OPTIMIZED=1"} <= set(endpoint.notes)
        assert endpoint.cores == endpoint.processes == ()
        SPREAD.refuse_changed(endpoint)
        with pytest.raises(UsageError, match="Another harness serves on the cluster"), SPREAD.serve(there):
            pytest.fail("entered")
    assert left(shared_ray_cluster.address) == NOTHING
    assert capfd.readouterr().out == ""


def test_what_cannot_be_is_said_by_whoever_finds_out_and_nothing_stays(
    there, shared_ray_cluster, bundle, tmp_path, monkeypatch, capfd
):
    with (
        pytest.raises(
            InfrastructureError, match=r"2 of 3 replicas run\. Each takes a CPU, and 0 are free beside theirs"
        ),
        RayServe(ready_timeout_s=40.0).serve(dataclasses.replace(there, replicas=3)),
    ):
        pytest.fail("entered")
    # Of a replica that does not stand, its own words arrive.
    copy, candidate = tmp_path / "c1", read_bundle(bundle)
    older = [one.model_copy(update={"made_with": {"scikit-learn": "1.2.3"}}) for one in candidate.artifacts]
    files = {artifact.file: (bundle / artifact.file).read_bytes() for artifact in candidate.artifacts}
    write_bundle(copy, candidate.model_copy(update={"artifacts": tuple(older)}), files)
    with (
        pytest.raises(InfrastructureError, match=r"was written by scikit-learn 1\.2\.3, and here is"),
        RayServe().serve(dataclasses.replace(there, bundle=copy)),
    ):
        pytest.fail("entered")
    (copy / "model.onnx").write_bytes(b"another")
    with (
        pytest.raises(InfrastructureError, match=r"c1/model\.onnx is not the file that was written"),
        RayServe().serve(dataclasses.replace(there, bundle=copy)),
    ):
        pytest.fail("entered")
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"Cannot listen on 127.0.0.1:{port}"), RayServe(port=port).serve(there):
            pytest.fail("entered")
    monkeypatch.setattr(harness, "__version__", "9.9")
    with (
        pytest.raises(InfrastructureError, match=r"The head of the cluster has harness .*, and this is 9\.9"),
        RayServe().serve(there),
    ):
        pytest.fail("entered")
    assert left(shared_ray_cluster.address) == NOTHING


def test_a_killed_harness_leaves_nothing_there_and_its_token_reached_the_replicas(
    bundle, shared_ray_cluster, batch, signature, ask, tmp_path
):
    command = [sys.executable, "-m", "harness", "serve", f"c1={bundle}", "--target", "ray_serve", "--processes", "2"]
    command += ["--ray-address", shared_ray_cluster.address, "--token-env", "TOKEN"]
    command += ["--access-log", str(tmp_path / "access.log")]
    surroundings = {**os.environ, "TOKEN": "a secret"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=surroundings) as process:
        url = process.stdout.readline().strip()
        body = encode_request(batch, signature)
        assert ask(url, body)[0] == 401
        request = urllib.request.Request(url, data=body, headers={"Authorization": "Bearer a secret"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            assert answer.status == 200
        process.kill()
    assert (tmp_path / "access.log").read_text().count("infer") == 2  # the node's own disk is this one
    assert left(shared_ray_cluster.address, 90.0) == NOTHING


def test_a_serve_of_others_is_used_as_it_is_and_goes_on(there, shared_ray_cluster, batch, signature, bundle, ask):
    class Theirs:
        def __call__(self, request):
            return "theirs"

    with ray_session(0, shared_ray_cluster.address):
        from ray import serve

        serve.start(proxy_location="HeadOnly", http_options={"host": LOOPBACK, "port": 28_999})
        theirs = serve.deployment(Theirs, ray_actor_options={"num_cpus": 0}).bind()
        serve.run(theirs, name="theirs", route_prefix="/")
        try:
            with RayServe().serve(there) as endpoint:
                assert endpoint.url.startswith(f"http://{LOOPBACK}:28999/harness-")
                status, answer = ask(endpoint.url + endpoint.infer_path, encode_request(batch, signature))
                assert status == 200
                wanted = Onnx().load(bundle / "model.onnx", signature)(batch)
                assert np.array_equal(decode_response(answer, signature).probabilities, wanted.probabilities)
                assert f"curl -s {endpoint.url}{endpoint.infer_path} " in ask(f"{endpoint.url}/")[1].decode()
                assert b'replica="' in ask(f"{endpoint.url}/metrics")[1]
                (told,) = (note for note in endpoint.notes if note.startswith("RAY_SERVE_ENABLE_HA_PROXY"))
                assert told.startswith("RAY_SERVE_ENABLE_HA_PROXY=0 (not 1: for that, export it on every node")
                assert ask(f"http://{LOOPBACK}:28999/")[1] == b"theirs"
            assert list(serve.status().applications) == ["theirs"]
            assert ask(f"http://{LOOPBACK}:28999/")[1] == b"theirs"
            with pytest.raises(UsageError, match="Leave out the port 28998"), RayServe(port=28_998).serve(there):
                pytest.fail("entered")
        finally:
            serve.shutdown()


def test_a_node_that_is_lost_is_told(there, shared_ray_cluster):
    with SPREAD.serve(dataclasses.replace(there, replicas=2)) as endpoint:
        shared_ray_cluster.lose_a_node()
        until_s = time.perf_counter() + 60
        with pytest.raises(InfrastructureError, match=r"1 of the 2 replicas at .* were lost while they were in use"):
            while time.perf_counter() < until_s:
                SPREAD.refuse_changed(endpoint)
                time.sleep(0.2)
    assert left(shared_ray_cluster.address)[:2] == ({}, {})
