"""What the wire form promises: rows arrive as they were sent, or are refused with the field that is wrong."""

import datetime
import json

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from signatures import MIXED, NUMBERS

from harness.records.candidate import Column, Signature
from harness.records.rows import ROWS_LIMIT, Batch, Prediction
from harness.serving.protocol import (
    BadRequestError,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    metadata,
    request_reader,
    response_writer,
)

NO_TEXTS = np.empty((1, 0), dtype=object)
DAY = datetime.date(2026, 11, 23)


def body(*inputs, **more):
    return orjson.dumps({"inputs": list(inputs), **more})


def rows(data, shape=(1, 2), datatype="FP64"):
    return {"name": "rows", "shape": list(shape), "datatype": datatype, "data": data}


def column(name, data, datatype, shape=None):
    return {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data}


def mixed(**replaced):
    """A good request for MIXED, with some of its inputs replaced (None: left out)."""
    good = {
        "height": column("height", [1.5], "FP64"),
        "colour": column("colour", ["red"], "BYTES"),
        "sold": column("sold", ["2026-11-23"], "BYTES"),
        "new": column("new", [True], "BOOL"),
    }
    return body(*(given for given in {**good, **replaced}.values() if given is not None))


def same(left, right):
    return np.array_equal(left.numbers, right.numbers, equal_nan=True) and np.array_equal(left.texts, right.texts)


def test_a_table_of_numbers_travels_as_one_tensor_with_null_for_a_hole():
    sent = Batch(numbers=np.array([[1.5, np.nan], [-2.0, 1e-300]]), texts=np.empty((2, 0), dtype=object))

    assert json.loads(encode_request(sent, NUMBERS)) == {
        "inputs": [{"name": "rows", "datatype": "FP64", "shape": [2, 2], "data": [1.5, None, -2.0, 1e-300]}]
    }


def test_other_tables_travel_as_one_input_per_column_in_their_own_words():
    days = (DAY - datetime.date(1970, 1, 1)).days
    sent = Batch(
        numbers=np.array([[1.5, days + 0.5, 1.0], [np.nan, np.nan, np.nan]]),
        texts=np.array([["red"], [""]], dtype=object),
    )

    assert json.loads(encode_request(sent, MIXED))["inputs"] == [
        {"name": "height", "datatype": "FP64", "shape": [2], "data": [1.5, None]},
        {"name": "colour", "datatype": "BYTES", "shape": [2], "data": ["red", None]},
        {"name": "sold", "datatype": "BYTES", "shape": [2], "data": ["2026-11-23T12:00:00+00:00", None]},
        {"name": "new", "datatype": "BOOL", "shape": [2], "data": [True, None]},
    ]


finite = st.floats(-1e30, 1e30) | st.just(float("nan"))


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=5))
@example([(0.1, -0.0), (5e-324, 1e30)])
def test_numbers_arrive_bit_for_bit(values):
    sent = Batch(numbers=np.array(values), texts=np.empty((len(values), 0), dtype=object))

    assert same(decode_request(encode_request(sent, NUMBERS), NUMBERS), sent)


moments = st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2099, 12, 31))
cells = st.tuples(finite, st.text(), st.none() | moments, st.sampled_from([0.0, 1.0, float("nan")]))


@given(st.lists(cells, min_size=1, max_size=5))
def test_rows_of_every_kind_arrive_as_they_were_sent(values):
    epoch = datetime.datetime(1970, 1, 1)
    day = datetime.timedelta(days=1) // datetime.timedelta(microseconds=1)
    numbers = [
        [
            height,
            np.nan if sold is None else ((sold - epoch) // datetime.timedelta(microseconds=1)) / day,
            new,
        ]
        for height, _, sold, new in values
    ]
    texts = np.empty((len(values), 1), dtype=object)
    texts[:, 0] = [colour for _, colour, _, _ in values]
    sent = Batch(numbers=np.array(numbers), texts=texts)

    assert same(decode_request(encode_request(sent, MIXED), MIXED), sent)


@pytest.mark.parametrize(
    "request_body",
    [
        body(rows([1, 2, 3, None], shape=(2, 2))),
        body(rows([[1.0, 2.0], [3.0, None]], shape=(2, 2))),
        body(rows([1, 2, 3, None], shape=(2, 2), datatype="INT64")),
        body(column("width", [2.0, None], "FP64"), column("height", [1.0, 3.0], "FP64")),
        body(column("height", [1, 3], "INT32", [2, 1]), column("width", [[2.0], [None]], "FP32", [2, 1])),
    ],
    ids=["flat", "nested", "integers", "columns in another order", "columns of shape [n, 1]"],
)
def test_all_forms_of_the_same_rows_are_the_same_rows(request_body):
    assert same(
        decode_request(request_body, NUMBERS),
        Batch(numbers=np.array([[1.0, 2.0], [3.0, np.nan]]), texts=np.empty((2, 0), dtype=object)),
    )


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("1970-01-02", 1.0),
        ("1970-01-01T06:00:00Z", 0.25),
        ("1970-01-01T06:00:00+06:00", 0.0),
        ("1969-12-31T12:00:00", -0.5),
        ("0001-01-01", -719162.0),
    ],
)
def test_a_date_is_days_since_1970_in_utc_whatever_its_offset(text, days):
    (found,) = decode_request(mixed(sold=column("sold", [text], "BYTES")), MIXED).numbers

    assert found[1] == days


NUMBER_FAULTS = {
    "not JSON": (b"{", "body"),
    "NaN": (b'{"inputs": [{"name": "rows", "datatype": "FP64", "shape": [1, 2], "data": [NaN, 1]}]}', "body"),
    "not UTF-8": (b'{"inputs": "\xff"}', "body"),
    "not an object": (b"[]", "body"),
    "no inputs": (b"{}", "inputs"),
    "inputs no list": (b'{"inputs": {}}', "inputs"),
    "no input": (body(), "inputs"),
    "an input that is no object": (body(3), "inputs[0]"),
    "an input without a name": (body({"shape": [1, 2]}), "inputs[0]"),
    "too few columns": (body(rows([1.0], shape=(1, 1))), "rows"),
    "no shape": (body({"name": "rows", "datatype": "FP64", "data": [1, 2]}), "rows"),
    "a shape of bools": (body(rows([1, 2], shape=(True, 2))), "rows"),
    "a negative shape": (body(rows([1, 2], shape=(-1, 2))), "rows"),
    "a shape of one size": (body(rows([1, 2], shape=(2,))), "rows"),
    "fewer values than stated": (body(rows([1.0], shape=(1, 2))), "rows"),
    "more values than stated": (body(rows([1.0, 2, 3], shape=(1, 2))), "rows"),
    "ragged rows": (body(rows([[1.0, 2.0], [3.0]], shape=(2, 2))), "rows"),
    "half nested": (body(rows([1.0, [2.0]], shape=(1, 2))), "rows"),
    "no rows": (body(rows([], shape=(0, 2))), "rows"),
    "too many rows": (body(rows([], shape=(ROWS_LIMIT + 1, 2))), "rows"),
    "a text for a number": (body(rows(["1.5", 2.0])), "rows"),
    "a bool for a number": (body(rows([True, 2.0])), "rows"),
    "an infinite number": (b'{"inputs":[{"name":"rows","datatype":"FP64","shape":[1,2],"data":[1e999,1]}]}', None),
    "a number beyond 32-bit floats": (body(rows([1e39, 2.0])), "rows"),
    "a datatype that is none": (body(rows([1.0, 2.0], datatype="FP128")), "rows"),
    "a datatype that is no text": (body(rows([1.0, 2.0], datatype=64)), "rows"),
    "a fraction as integer": (body(rows([1.5, 2.0], datatype="INT64")), "rows"),
    "an integer too large": (body(rows([2**31, 2], datatype="INT32")), "rows"),
    "no data": (body({"name": "rows", "datatype": "FP64", "shape": [1, 2]}), "rows"),
    "data of bytes": (body(rows("AAAA")), "rows"),
    "an id that is no text": (body(rows([1.0, 2.0]), id=7), "id"),
    "an output that is none": (body(rows([1.0, 2.0]), outputs=[{"name": "value"}]), "outputs"),
    "outputs without names": (body(rows([1.0, 2.0]), outputs=["label"]), "outputs"),
}


@pytest.mark.parametrize(("request_body", "field"), NUMBER_FAULTS.values(), ids=NUMBER_FAULTS)
def test_a_bad_request_is_refused_with_its_field_in_one_line(request_body, field):
    with pytest.raises(BadRequestError) as refused:
        decode_request(request_body, NUMBERS)

    assert field is None or refused.value.field == field
    assert str(refused.value).startswith(f"{refused.value.field}: ")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


MIXED_FAULTS = {
    "a missing column": ({"colour": None}, "colour"),
    "an unknown column": ({"colour": column("color", ["red"], "BYTES")}, "'color'"),
    "a column twice": ({"colour": column("height", [1.0], "FP64")}, "'height'"),
    "different numbers of rows": ({"colour": column("colour", ["red", "blue"], "BYTES")}, "inputs"),
    "a column of two": ({"height": column("height", [1.0, 2.0], "FP64", [1, 2])}, "height"),
    "a number for a text": ({"colour": column("colour", [3], "BYTES")}, "colour"),
    "a category as number": ({"colour": column("colour", [3.0], "FP64")}, "colour"),
    "a text for a bool": ({"new": column("new", ["true"], "BOOL")}, "new"),
    "a number for a bool": ({"new": column("new", [1], "BOOL")}, "new"),
    "a bool as number": ({"new": column("new", [1.0], "FP64")}, "new"),
    "a date that is none": ({"sold": column("sold", ["yesterday"], "BYTES")}, "sold"),
    "a day that is none": ({"sold": column("sold", ["2026-02-30"], "BYTES")}, "sold"),
    "a date as number": ({"sold": column("sold", [20780.0], "BYTES")}, "sold"),
    "an empty date": ({"sold": column("sold", [""], "BYTES")}, "sold"),
}


@pytest.mark.parametrize(("replaced", "field"), MIXED_FAULTS.values(), ids=MIXED_FAULTS)
def test_a_bad_column_is_named(replaced, field):
    with pytest.raises(BadRequestError) as refused:
        decode_request(mixed(**replaced), MIXED)

    assert refused.value.field == field


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
inputs = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["rows", "height", "width", "colour", "sold", "new"]) | json_values,
        "datatype": st.sampled_from(["FP64", "INT32", "BOOL", "BYTES"]) | json_values,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | json_values,
        "data": st.lists(st.floats() | st.booleans() | st.text(max_size=3), max_size=6) | json_values,
    },
)


@given(st.lists(inputs, max_size=4) | json_values, st.sampled_from([NUMBERS, MIXED]))
def test_whatever_a_client_sends_is_rows_or_a_refusal(given_inputs, signature):
    sent = json.dumps({"inputs": given_inputs}).encode()
    try:
        found = decode_request(sent, signature)
    except BadRequestError:
        return

    assert found.numbers.shape == (len(found), len(signature.number_columns))
    assert found.texts.shape == (len(found), len(signature.text_columns))
    assert 1 <= len(found) <= ROWS_LIMIT


@given(st.binary(max_size=60))
def test_whatever_bytes_a_client_sends_are_refused(sent):
    with pytest.raises(BadRequestError):
        decode_request(sent, NUMBERS)


def test_a_table_of_one_column_called_rows_reads_the_same_either_way():
    signature = Signature(task="regression", columns=(Column(name="rows", kind="number"),))

    for shape in ([2], [2, 1]):
        found = decode_request(body(rows([1.0, 2.0], shape=shape)), signature)
        assert found.numbers.tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize("signature", [NUMBERS, MIXED])
def test_an_infinite_number_is_not_sent_as_a_hole(signature):
    numbers = np.full((1, len(signature.number_columns)), np.inf)
    with pytest.raises(ValueError, match="infinite"):
        encode_request(Batch(numbers=numbers, texts=np.array([["red"]], dtype=object)), signature)


def test_a_date_without_iso_form_is_not_sent_as_another():
    sent = Batch(numbers=np.array([[1.0, 4e6, 1.0]]), texts=np.array([["red"]], dtype=object))
    with pytest.raises(ValueError, match="sold: day"):
        encode_request(sent, MIXED)


def test_a_classification_answers_labels_and_probabilities():
    prediction = Prediction(values=np.array([1.0, 0.0]), probabilities=np.array([[0.25, 0.75], [1.0, 0.0]]))

    assert json.loads(encode_response(prediction, NUMBERS, "m")) == {
        "model_name": "m",
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["yes", "no"]},
            {"name": "probabilities", "datatype": "FP64", "shape": [2, 2], "data": [0.25, 0.75, 1.0, 0.0]},
        ],
    }


def test_answers_arrive_bit_for_bit():
    for prediction, signature in (
        (Prediction(values=np.array([0.1, 1e300]), probabilities=None), MIXED),
        (Prediction(values=np.array([1.0]), probabilities=np.array([[0.1, 0.9]])), NUMBERS),
    ):
        found = decode_response(encode_response(prediction, signature, "m"), signature)
        assert np.array_equal(found.values, prediction.values)
        if prediction.probabilities is None:
            assert found.probabilities is None
        else:
            assert np.array_equal(found.probabilities, prediction.probabilities)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_prediction_that_is_no_number_is_not_an_answer(value):
    with pytest.raises(ValueError, match="not a finite number"):
        encode_response(Prediction(values=np.array([value]), probabilities=None), MIXED, "m")


@pytest.mark.parametrize(
    "answer",
    [
        b"no JSON",
        b"[]",
        b'{"error": "no"}',
        b'{"outputs": []}',
        b'{"outputs": [{"name": "label", "shape": [1], "data": ["maybe"]}]}',
        b'{"outputs": [{"name": "label", "shape": [1], "data": ["no"]},'
        b' {"name": "probabilities", "shape": [1, 2], "data": [0.5]}]}',
        b'{"outputs": [{"name": "label", "shape": [1], "data": ["no"]},'
        b' {"name": "probabilities", "shape": [1, 2], "data": [0.5, null]}]}',
    ],
)
def test_half_an_answer_is_none(answer):
    with pytest.raises(ValueError):  # any ValueError is the promise
        decode_response(answer, NUMBERS)


def test_a_client_may_name_its_request_and_choose_its_outputs():
    request = request_reader(NUMBERS)(body(rows([1.0, 2.0]), id="a-7", outputs=[{"name": "label"}]), None)
    prediction = Prediction(values=np.array([1.0]), probabilities=np.array([[0.25, 0.75]]))

    answer = json.loads(response_writer(NUMBERS, "m")(prediction, request.id, request.outputs).body)

    assert answer["id"] == "a-7"
    assert [output["name"] for output in answer["outputs"]] == ["label"]


@pytest.mark.parametrize("signature", [NUMBERS, MIXED])
def test_the_metadata_states_the_inputs_that_are_sent(signature):
    sent = Batch(
        numbers=np.zeros((1, len(signature.number_columns))),
        texts=np.full((1, len(signature.text_columns)), "red", dtype=object),
    )
    stated = metadata(signature, "m")

    assert [(one["name"], one["datatype"], len(one["shape"])) for one in stated["inputs"]] == [
        (one["name"], one["datatype"], len(one["shape"]))
        for one in json.loads(encode_request(sent, signature))["inputs"]
    ]
    assert json.loads(orjson.dumps(stated)) == stated


def test_many_values_are_refused_before_they_are_read_and_as_many_as_may_be_are_not():
    """Reading a body of 32 MiB takes half a second; here only its commas are counted."""
    most = np.full((ROWS_LIMIT, 2), 1 / 3 - 1e5 / 7)
    nested = rows(orjson.loads(orjson.dumps(most, option=orjson.OPT_SERIALIZE_NUMPY)), most.shape)
    whole = json.dumps({"inputs": [nested]}, indent=8).encode()
    assert len(whole) > 2**20
    assert np.array_equal(decode_request(whole, NUMBERS).numbers, most)
    many = body(rows([0] * 30 * ROWS_LIMIT, most.shape)) + b" " * 2**20  # and nothing said of the shape
    with pytest.raises(BadRequestError, match=r"body: has more values than 10,000 rows of 2 columns"):
        decode_request(many, NUMBERS)
    with pytest.raises(BadRequestError, match=r"body: has more values than 10,000 rows of 2 columns"):
        request_reader(NUMBERS)(many, len(many))
