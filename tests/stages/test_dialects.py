"""Rows travel as each kind of server wants them, with the names and types that it states, or are refused."""

import json
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.records.candidate import Column, Signature
from harness.records.scenario import RequestsPlan
from harness.serving.protocol import decode_request, metadata
from harness.stages.dialects import (
    Arguments,
    ModelInput,
    Stated,
    model_inputs,
    refuse_no_answer,
    service_arguments,
)
from harness.stages.payload import read_requests


def bodies(folder: Path, rows: int = 1, stated: Stated = None, **plan: object) -> list[object]:
    found = read_requests(RequestsPlan(**plan), folder, rows, stated).bodies
    return [json.loads(body) for body in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.csv").write_text('height,colour,new\n1,red,true\n2.5,"dark, red",false\n,NA,true\n')
    (tmp_path / "numbers.csv").write_text("b,a\n2,1\n4,\n")
    return tmp_path


class TestV2:
    SIGNATURE = Signature(
        task="binary",
        columns=(Column(name="height", kind="number"), Column(name="colour", kind="category")),
        classes=("no", "yes"),
    )
    NUMBERS = Signature(task="regression", columns=(Column(name="a", kind="number"), Column(name="b", kind="number")))

    def test_rows_travel_as_the_model_reads_them(self, folder):
        (folder / "two.csv").write_text("colour,height\nred,1\n,\n12,2.5\n")
        inputs = model_inputs(metadata(self.SIGNATURE, "m"))
        found = read_requests(RequestsPlan(payload="two.csv", protocol="v2"), folder, 3, inputs)
        batch = decode_request(found.bodies[0], self.SIGNATURE)
        assert batch.numbers[[0, 2], 0].tolist() == [1, 2.5]
        assert batch.numbers[1, 0] != batch.numbers[1, 0]
        assert batch.texts[:, 0].tolist() == ["red", "", "12"]

    def test_a_table_of_numbers_is_one_tensor_with_the_columns_in_the_model_s_order(self, folder):
        (folder / "numbers.csv").write_text("b,a\n2,1\n4,3\n")
        inputs = model_inputs(metadata(self.NUMBERS, "m"))
        found = read_requests(RequestsPlan(payload="numbers.csv", protocol="v2"), folder, 1, inputs)
        assert [decode_request(body, self.NUMBERS).numbers.tolist() for body in found.bodies] == [[[1, 2]], [[3, 4]]]

    def test_of_a_tensor_without_names_the_file_s_own_order_stands(self, folder):
        (folder / "numbers.csv").write_text("b,a\n2,1\n")
        inputs = (ModelInput("input-0", "FP32", (-1, 2)),)
        (body,) = bodies(folder, stated=inputs, payload="numbers.csv", protocol="v2")
        assert body == {"inputs": [{"name": "input-0", "datatype": "FP32", "shape": [1, 2], "data": [2, 1]}]}

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("height,color\n1,red\n", "it lacks colour; it has color, which the model does not have"),
            ("height,colour\ntall,red\n", 'height of row 1 of two.csv is "tall", and the model takes FP64'),
        ],
    )
    def test_other_columns_than_the_model_s_are_named(self, folder, text, said):
        (folder / "two.csv").write_text(text)
        with pytest.raises(UsageError, match=said):
            bodies(folder, stated=model_inputs(metadata(self.SIGNATURE, "m")), payload="two.csv", protocol="v2")

    def test_a_row_of_another_width_is_refused(self, folder):
        with pytest.raises(UsageError, match=r"takes rows of 2 values, and row 1 .* has 3"):
            bodies(folder, stated=(ModelInput("x", "FP32", (-1, 2)),), payload="rows.csv", protocol="v2")

    def test_it_needs_rows_and_makes_its_own_bodies(self, folder):
        with pytest.raises(UsageError, match="sends rows: give `payload`"):
            bodies(folder, protocol="v2")
        (folder / "body.jinja").write_text("{}")
        with pytest.raises(UsageError, match="`template` has no place"):
            bodies(folder, protocol="v2", payload="rows.csv", template="body.jinja")

    @pytest.mark.parametrize(
        "answer", [{}, {"inputs": []}, {"inputs": [{"name": "a"}]}, {"inputs": [{"name": "a", "datatype": "FP32"}]}]
    )
    def test_metadata_without_inputs_are_refused(self, answer):
        with pytest.raises(ValueError, match="input"):
            model_inputs(answer)


class TestMLServer:
    """Whose models state nothing, unless somebody wrote it down."""

    def test_numbers_are_one_matrix_in_the_file_s_order(self, folder):
        assert bodies(folder, rows=2, payload="numbers.csv", protocol="v2:np") == [
            {
                "inputs": [{"name": "input-0", "datatype": "FP64", "shape": [2, 2], "data": [2, 1, 4, None]}],
                "parameters": {"content_type": "np"},
            }
        ]

    def test_a_data_frame_is_an_input_per_column_with_one_type_in_all_requests(self, folder):
        first, *_, last = bodies(folder, payload="rows.csv", protocol="v2:pd")
        assert first["parameters"] == {"content_type": "pd"}
        assert [(one["name"], one["datatype"], one["shape"], one["data"]) for one in first["inputs"]] == [
            ("height", "FP64", [1, 1], [1]),
            ("colour", "BYTES", [1, 1], ["red"]),
            ("new", "BOOL", [1, 1], [True]),
        ]
        assert [one.get("parameters") for one in last["inputs"]] == [None, {"content_type": "str"}, None]

    def test_whole_numbers_are_such_where_no_row_has_a_hole(self, folder):
        (body, _) = bodies(folder, payload="numbers.csv", protocol="v2:pd")
        assert [(one["name"], one["datatype"]) for one in body["inputs"]] == [("b", "INT64"), ("a", "FP64")]

    def test_a_hole_among_true_and_false_is_refused(self, folder):
        (folder / "holes.csv").write_text("a,b\n1,true\n2,\n")
        with pytest.raises(UsageError, match="b of the payload has holes among true and false"):
            bodies(folder, payload="holes.csv", protocol="v2:pd")

    def test_a_matrix_has_numbers_only(self, folder):
        with pytest.raises(UsageError, match=r'colour of row 1 of rows\.csv is "red", and the model takes FP64'):
            bodies(folder, payload="rows.csv", protocol="v2:np")


@pytest.mark.parametrize(
    ("protocol", "body"),
    [
        ("mlflow", {"dataframe_split": {"columns": ["b", "a"], "data": [[2, 1], [4, None]]}}),
        ("mlflow:dataframe_records", {"dataframe_records": [{"b": 2, "a": 1}, {"b": 4, "a": None}]}),
        ("mlflow:instances", {"instances": [[2, 1], [4, None]]}),
        ("mlflow:inputs", {"inputs": [[2, 1], [4, None]]}),
    ],
)
def test_mlflow_is_asked_in_each_of_its_forms(folder, protocol, body):
    assert bodies(folder, rows=2, payload="numbers.csv", protocol=protocol) == [body]


def test_values_without_names_are_those_of_the_first_row_s_columns(folder):
    (folder / "rows.jsonl").write_text('{"a": 1, "b": 2}\n{"b": 4, "a": 3}\n{"b": 4, "c": 5}\n')
    with pytest.raises(UsageError, match=r"row 3 of .* not those of the first row: it lacks a; it has c"):
        bodies(folder, payload="rows.jsonl", protocol="mlflow")


def asked(kind: object, **components: object) -> dict[str, object]:
    """What `/docs.json` of BentoML 1.4 says of `predict(self, rows: ...)`."""
    schema = {"type": "object", "title": "Input", "required": ["rows"], "properties": {"rows": kind}}
    call = {"requestBody": {"content": {"application/json": {"schema": schema}}}}
    return {"paths": {"/readyz": {"get": {}}, "/predict": {"post": call}}, "components": {"schemas": components}}


NUMPY = {"items": {"type": "number"}, "title": "Rows", "type": "array"}
FRAME = {"items": {"type": "object"}, "title": "Rows", "type": "array"}
ROW = {"type": "object", "title": "Row", "properties": {"a": {"type": "number"}}}


class TestBentoML:
    @pytest.mark.parametrize(
        ("kind", "rows"),
        [
            (NUMPY, [[2, 1]]),
            (FRAME, [{"b": 2, "a": 1}]),
            ({"items": {"$ref": "#/components/schemas/Row"}, "type": "array"}, [{"b": 2, "a": 1}]),
            ({"items": {"items": {"type": "number"}, "type": "array"}, "type": "array"}, [[2, 1]]),
            ({"$ref": "#/components/schemas/Row"}, {"b": 2, "a": 1}),
        ],
    )
    def test_rows_are_the_one_argument_that_the_call_takes(self, folder, kind, rows):
        stated = service_arguments(asked(kind, Row=ROW), "/predict")
        first, _ = bodies(folder, stated=stated, payload="numbers.csv", protocol="bentoml")
        assert first == {"rows": rows}

    def test_where_the_arguments_are_the_columns_a_row_is_the_body(self, folder):
        stated = Arguments(("a",), ("a", "b"), {"a": "value", "b": "value"})
        assert bodies(folder, stated=stated, payload="numbers.csv", protocol="bentoml")[0] == {"b": 2, "a": 1}
        with pytest.raises(UsageError, match="one row a call"):
            bodies(folder, rows=2, stated=stated, payload="numbers.csv", protocol="bentoml")

    def test_what_is_no_argument_of_rows_is_refused(self, folder):
        stated = Arguments(("text",), ("text",), {"text": "value"})
        with pytest.raises(UsageError, match=r"takes text, and row 1 of numbers.csv has b, a\. .* `template`"):
            bodies(folder, stated=stated, payload="numbers.csv", protocol="bentoml")

    @pytest.mark.parametrize(
        ("document", "said"),
        [
            ({}, "it has no POST /predict, but nothing that could be loaded"),
            ({"paths": {"/classify": {"post": {}}}}, "it has no POST /predict, but /classify"),
            ({"paths": {"/predict": {"post": {}}}}, "POST /predict takes no JSON object"),
        ],
    )
    def test_a_call_that_the_service_does_not_have_is_told_with_those_that_it_has(self, document, said):
        with pytest.raises(ValueError, match=said):
            service_arguments(document, "/predict")


@pytest.mark.parametrize("protocol", ["v2:np", "v2:pd", "mlflow", "mlflow:inputs", "bentoml"])
def test_a_protocol_of_rows_needs_rows(folder, protocol):
    with pytest.raises(UsageError, match=f"The protocol {protocol} sends rows: give `payload`"):
        bodies(folder, protocol=protocol)


@pytest.mark.parametrize(
    ("protocol", "answer", "said"),
    [
        ("v2", b'{"outputs": []}', "its `outputs` are empty"),
        ("v2:pd", b'{"error": "no"}', "it has no `outputs`"),
        ("mlflow", b"ok", "it is not JSON"),
        ("mlflow:inputs", b"[1]", "it has no `predictions`"),
    ],
)
def test_a_success_without_an_answer_is_none(protocol, answer, said):
    with pytest.raises(ValueError, match=said):
        refuse_no_answer(protocol, answer)


def test_any_success_is_an_answer_where_the_protocol_says_no_more():
    refuse_no_answer("plain", b"")
    refuse_no_answer("bentoml", b"3")
    refuse_no_answer("mlflow", b'{"predictions": [1]}')
    refuse_no_answer("v2", b'{"outputs": [{"name": "predict"}]}')
