"""Load over TLS: the same exchanges, and a server that is not trusted gets no request."""

import ssl

import pytest
import trustme
from foreign_server import foreign_server

from harness.records.candidate import Endpoint
from harness.records.load import Head, Outcome, Step
from harness.records.scenario import LoadPlan
from harness.stages.host import split_cores
from harness.stages.load.generator import generator


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def secured(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with foreign_server(context) as server:
        yield server


@pytest.fixture
def drive(secured, tmp_path):
    def driven(head: Head, body: bytes):
        endpoint = Endpoint(url=secured.url, model="", path="/score", startup_s=0.0)
        step = Step(shape="t", number=0, mode="open", rate_rps=100.0, duration_s=1.0, warmup_s=0.0)
        plan = LoadPlan(timeout_s=2.0, in_flight_max=16)
        with generator(endpoint, [body], None, plan, split_cores()[0], tmp_path, head=head) as running:
            return running.drive(step).columns

    return driven


@pytest.mark.parametrize("body", [b"{}", b"[" + b"1," * 300_000 + b"1]"])
def test_every_request_is_answered_whatever_its_size(authority, secured, drive, tmp_path, body):
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    secured.seen.clear()
    columns = drive(Head(ca_file=str(tmp_path / "ca.pem")), body)
    assert set(columns["outcome"]) == {Outcome.OK}
    assert set(columns["status"]) == {200}
    assert {asked for *_, asked in secured.seen} == {body}


def test_a_server_that_is_not_trusted_gets_no_request(secured, drive):
    secured.seen.clear()
    columns = drive(Head(), b"{}")
    assert set(columns["outcome"]) == {Outcome.CONNECTION}
    assert secured.seen == []
