"""Where Serve on a cluster can be asked, and what is said where it cannot; no cluster is needed for that."""

import re
from types import SimpleNamespace

import pytest

from harness.errors import UsageError
from harness.ray_serving.cluster import Nodes, found_at, refuse_out_of_reach

ONE_MACHINE = Nodes(here="10.0.0.1", head="10.0.0.1", working=("10.0.0.1", "10.0.0.1"))
TWO_MACHINES = Nodes(here="10.0.0.1", head="10.0.0.1", working=("10.0.0.1", "10.0.0.2"))
FROM_A_WORKER = Nodes(here="10.0.0.2", head="10.0.0.1", working=("10.0.0.2",))


@pytest.mark.parametrize(
    ("nodes", "opened", "haproxy"),
    [
        (ONE_MACHINE, False, True),
        (TWO_MACHINES, False, False),
        (TWO_MACHINES, True, True),
        (FROM_A_WORKER, True, True),
    ],
)
def test_what_can_be_reached_is_not_refused(nodes, opened, haproxy):
    refuse_out_of_reach(nodes, opened, haproxy)


@pytest.mark.parametrize(
    ("nodes", "haproxy", "said"),
    [
        (
            FROM_A_WORKER,
            False,
            "on the head of the cluster, 10.0.0.1, where it listens on loopback, and this is 10",
        ),
        (TWO_MACHINES, True, "HAProxy on the head, 10.0.0.1, sends requests to replicas at .* those on 10.0.0.2 would"),
    ],
)
def test_loopback_that_is_not_enough_is_refused_with_what_opens_it(nodes, haproxy, said):
    with pytest.raises(UsageError, match=f"{said}.*`opened = true`"):
        refuse_out_of_reach(nodes, False, haproxy)


def config(host="127.0.0.1", port=8000, ssl_certfile=None):
    return SimpleNamespace(host=host, port=port, ssl_certfile=ssl_certfile)


@pytest.mark.parametrize(
    ("listening", "proxies", "nodes", "url"),
    [
        (config(), ["10.0.0.1"], ONE_MACHINE, "http://127.0.0.1:8000"),
        (config(), ["10.0.0.1", "10.0.0.2"], FROM_A_WORKER, "http://127.0.0.1:8000"),
        (config("0.0.0.0"), ["10.0.0.1"], FROM_A_WORKER, "http://10.0.0.1:8000"),
        (config("0.0.0.0"), ["10.0.0.3"], FROM_A_WORKER, "http://10.0.0.3:8000"),
        (config("::"), ["fd00::1"], FROM_A_WORKER, "http://[fd00::1]:8000"),
    ],
)
def test_a_serve_of_others_is_asked_at_the_nearest_of_its_proxies(listening, proxies, nodes, url):
    assert found_at(listening, proxies, nodes, 0, False) == url


@pytest.mark.parametrize(
    ("listening", "proxies", "port", "said"),
    [
        (config(), ["10.0.0.1"], 0, "That is loopback on 10.0.0.1, and this is 10.0.0.2"),
        (config(ssl_certfile="there.pem"), ["10.0.0.2"], 0, "It speaks https"),
        (config(), [], 0, "It has no proxy"),
        (config(), ["10.0.0.2"], 80, "Leave out the port 80"),
    ],
)
def test_a_serve_of_others_that_cannot_be_asked_from_here_is_refused(listening, proxies, port, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        found_at(listening, proxies, FROM_A_WORKER, port, haproxy=False)


def test_haproxy_of_others_that_does_not_reach_all_nodes_is_refused():
    with pytest.raises(UsageError, match=r"its HAProxy would not reach replicas on 10\.0\.0\.2"):
        found_at(config(), ["10.0.0.1"], TWO_MACHINES, 0, haproxy=True)
    assert found_at(config("0.0.0.0"), ["10.0.0.1"], TWO_MACHINES, 0, haproxy=True) == "http://10.0.0.1:8000"
