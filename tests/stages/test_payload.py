"""What users bring as requests becomes bodies, or one paragraph that says what is wrong with it."""

import json
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.records.scenario import RequestsPlan
from harness.stages import payload as room
from harness.stages.payload import head_of, read_requests

CSV = 'height,colour,new\n1,red,true\n2.5,"dark, red",false\n,NA,\n'
JSON_LINES = '{"height": 1, "tags": ["a"]}\n\n{"height": 2, "tags": []}\n'


def bodies(folder: Path, rows: int = 1, **plan: object) -> list[object]:
    found = read_requests(RequestsPlan(**plan), folder, rows).bodies
    return [json.loads(body) for body in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.csv").write_text(CSV)
    (tmp_path / "rows.jsonl").write_text(JSON_LINES)
    return tmp_path


class TestPlain:
    def test_a_row_of_csv_is_an_object_with_numbers_where_numbers_are_written(self, folder):
        assert bodies(folder, payload="rows.csv") == [
            {"height": 1, "colour": "red", "new": True},
            {"height": 2.5, "colour": "dark, red", "new": False},
            {"height": None, "colour": "NA", "new": None},
        ]

    def test_a_line_of_json_is_sent_as_it_is(self, folder):
        assert bodies(folder, payload="rows.jsonl") == [{"height": 1, "tags": ["a"]}, {"height": 2, "tags": []}]

    def test_several_rows_are_a_list_and_the_last_request_is_filled_from_the_beginning(self, folder):
        first, last = bodies(folder, rows=2, payload="rows.csv")
        assert [row["height"] for row in first] == [1, 2.5]
        assert [row["height"] for row in last] == [None, 1]

    def test_a_template_has_the_fields_as_variables(self, folder):
        (folder / "body.jinja").write_text(
            '{"instances": [[{{ height }}, {{ tags | tojson }}]], "n": {{ rows | length }}}'
        )
        assert bodies(folder, payload="rows.jsonl", template="body.jinja")[1] == {"instances": [[2, []]], "n": 1}

    def test_without_a_payload_every_request_is_the_same(self, folder):
        (folder / "body.txt").write_text('{"ping": 1}')
        assert bodies(folder, template="body.txt") == [{"ping": 1}]
        assert read_requests(RequestsPlan(), folder, 1).bodies == (b"",)

    def test_a_long_file_gives_as_many_requests_as_a_load_repeats(self, folder, monkeypatch):
        monkeypatch.setattr(room, "PAYLOADS", 2)
        assert len(bodies(folder, payload="rows.csv")) == 2

    def test_the_digest_tells_bodies_and_manner_apart(self, folder):
        one, two, three = (
            read_requests(RequestsPlan(**plan), folder, 1).sha256
            for plan in ({"payload": "rows.csv"}, {"payload": "rows.jsonl"}, {"payload": "rows.csv", "method": "PUT"})
        )
        assert len({one, two, three}) == 3


class TestHead:
    def test_a_body_makes_it_a_post_of_json_and_none_a_get(self, folder):
        assert head_of(RequestsPlan(payload="rows.csv"), folder).method == "POST"
        assert dict(head_of(RequestsPlan(payload="rows.csv"), folder).headers) == {"Content-Type": "application/json"}
        assert head_of(RequestsPlan(), folder).method == "GET"
        assert head_of(RequestsPlan(), folder).headers == ()

    def test_a_header_of_the_user_stands(self, folder):
        headers = {"content-type": "text/csv", "X-Tenant": "a"}
        assert dict(head_of(RequestsPlan(payload="rows.csv", headers=headers), folder).headers) == headers

    def test_a_token_comes_from_the_environment(self, folder, monkeypatch):
        monkeypatch.setenv("TOKEN", "s3cret\n")
        found = head_of(RequestsPlan(bearer_env="TOKEN"), folder)
        assert dict(found.headers) == {"Authorization": "Bearer s3cret"}

    @pytest.mark.parametrize(
        ("plan", "said"),
        [
            ({"bearer_env": "NOT_THERE"}, "NOT_THERE, which is to hold the bearer token, is not set"),
            ({"ca_file": "none.pem"}, "There is no file of certificates"),
            ({"headers": {"Host": "elsewhere"}}, "Host is made from the address"),
            ({"headers": {"X-A": "a\r\nX-B: b"}}, "is no header that HTTP can carry"),
            ({"headers": {"X A": "a"}}, "is no header that HTTP can carry"),
            ({"headers": {"X-A": "ü"}}, "characters that HTTP headers cannot carry"),
        ],
    )
    def test_what_no_request_can_carry_is_refused(self, folder, plan, said):
        with pytest.raises(UsageError, match=said):
            head_of(RequestsPlan(**plan), folder)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("empty.csv", "", "is empty: bring a header"),
        ("header.csv", "a,b\n", "has no rows"),
        ("twice.csv", "a,a\n1,2\n", "has a name twice"),
        ("ragged.csv", "a,b\n1,2\n3\n", "Line 3 of the payload .* has 1 fields, and its header 2"),
        ("quote.csv", 'a\n"1\n', "is not CSV"),
        ("empty.jsonl", "\n", "has no rows"),
        ("text.jsonl", '{"a": 1}\nnonsense\n', "Line 2 of the payload .* is not JSON"),
        ("list.jsonl", "[1]\n", "Line 1 of the payload .* is no JSON object"),
    ],
)
def test_a_payload_that_is_none_is_refused_where_it_is_wrong(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=said):
        bodies(tmp_path, payload=name)


def test_a_payload_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"a\n\xff\n")
    with pytest.raises(UsageError, match="cannot be read as UTF-8"):
        bodies(tmp_path, payload="rows.csv")


def test_a_payload_that_is_not_there_is_refused_with_what_is(folder):
    with pytest.raises(UsageError, match=r"There is no payload .*row\.csv; did you mean rows\.csv\?"):
        bodies(folder, payload="row.csv")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ weight }}", "'weight' is undefined. The fields there are: height, colour, new"),
        ("{{ height ", "is not Jinja: line 1"),
        ("{{ height / 0 }}", "cannot be filled for row 1 of rows.csv: division by zero"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused_with_the_row(folder, template, said):
    (folder / "body.jinja").write_text(template)
    with pytest.raises(UsageError, match=said):
        bodies(folder, payload="rows.csv", template="body.jinja")
