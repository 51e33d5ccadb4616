"""Heads that are known by their bytes: no other bytes are taken for them."""

from typing import Any, cast

import pytest

from harness.serving.heads import Head, KnownHeads, plain_bytes

BODY = b'{"inputs":[]}'
HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: h\r\ncontent-length: 13\r\n\r\n"
SAID = Head(cast("Any", "m"), {b"host": b"h", b"content-length": b"13"}, 13)


def known(data=HEAD + BODY, head=SAID):
    heads = KnownHeads()
    heads.remember(data, head)
    return heads


def test_the_same_head_says_the_same_of_another_body():
    assert known().find(HEAD + b'{"inputs":[1}') == (SAID, b'{"inputs":[1}')


def test_a_body_may_be_on_its_way():
    assert known().find(HEAD + BODY[:4]) == (SAID, BODY[:4])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        BODY,
        HEAD[:-1],
        HEAD + BODY + b"\r\n",
        (HEAD + BODY) * 2,
        b"\r\n" + HEAD + BODY,
        HEAD.replace(b"host", b"Host") + BODY,
        HEAD.replace(b"13", b"12") + BODY,
        HEAD.replace(b"/m/", b"/n/") + BODY,
    ],
)
def test_whatever_is_not_that_head_and_its_body_is_for_the_parser(data):
    assert known().find(data) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n" + HEAD + BODY,
        HEAD.replace(b"h\r\n", b"h\n") + BODY,
        HEAD.replace(b"POST", b"PUT") + BODY,
        HEAD.replace(b"host: h", b"host: " + b"h" * 2_000) + BODY,
        BODY,
    ],
)
def test_what_the_parser_might_read_otherwise_is_not_remembered(data):
    assert known(data).find(data) is None


def test_a_thousand_heads_are_not_kept():
    heads = KnownHeads()
    bodies = [b" " * length for length in range(1_000)]
    whole = [HEAD.replace(b"13", b"%d" % len(body)) + body for body in bodies]
    for data, body in zip(whole, bodies, strict=True):
        heads.remember(data, SAID._replace(body_bytes=len(body)))
    assert heads.find(whole[0]) is None
    assert heads.find(whole[-1]) is not None


@pytest.mark.parametrize(
    ("headers", "version", "body_bytes"),
    [
        ({b"content-length": b"7"}, "1.0", 7),
        ({}, "1.1", None),
        ({b"content-length": b"seven"}, "1.1", None),
        ({b"content-length": b"007"}, "1.1", 7),
        ({b"content-length": b"7", b"connection": b"Keep-Alive"}, "1.1", 7),
        ({b"content-length": b"7", b"connection": b"Keep-Alive"}, "1.0", None),
        ({b"content-length": b"7", b"connection": b"close"}, "1.1", None),
        ({b"content-length": b"7", b"connection": b"keep-alive", b"expect": b"100-continue"}, "1.1", None),
        ({b"content-length": b"7", b"content-encoding": b"gzip"}, "1.1", None),
    ],
)
def test_a_plain_request_needs_nothing_but_its_reply(headers, version, body_bytes):
    assert plain_bytes(headers, version) == body_bytes


@pytest.mark.parametrize("length", [b"9" * 5_000, b"0" * 17 + b"99999999999", b"0" * 5_000 + b"99999999999"])
def test_a_length_is_read_to_its_end(length):
    """Digits in front, which the parser takes too, are not all there is."""
    size = plain_bytes({b"content-length": length}, "1.1")
    assert size is not None and size >= 99_999_999_999
