"""A right candidate passes its checks, and each check fails for the candidate that it is there for."""

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.records.candidate import Artifact, Candidate, Check, Column, Signature
from harness.records.rows import Batch, Prediction
from harness.records.scenario import ExpectPlan
from harness.records.words import Metric, Task
from harness.serving.protocol import decode_request
from harness.stages import validate
from harness.stages.validate import parity_check, quality_checks, reload_check, request_bodies

ROWS = 200
SEED = 3
RNG = np.random.default_rng(5)
NUMBERS = RNG.normal(size=(ROWS, 2))
BINARY = Signature(
    task="binary", columns=(Column(name="a", kind="number"), Column(name="b", kind="number")), classes=("no", "yes")
)
REGRESSION = Signature(task="regression", columns=BINARY.columns)


def answers(probabilities_of_yes: NDArray[np.float64]) -> Prediction:
    probabilities = np.column_stack([1 - probabilities_of_yes, probabilities_of_yes])
    return Prediction(values=probabilities.argmax(axis=1).astype(np.float64), probabilities=probabilities)


def candidate(metric: Metric = "roc_auc", task: Task = "binary") -> Candidate:
    return Candidate(
        id="somebody-1",
        origin="somebody",
        configuration={"family": "logistic"},
        cv_score=None,
        fit_s=0.1,
        signature=BINARY if task == "binary" else REGRESSION,
        metric=metric,
        artifacts=(),
    )


BATCH = Batch(NUMBERS, np.empty((ROWS, 0), dtype=object))


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


TRUTH = (NUMBERS[:, 0] > 0).astype(np.float64)
GOOD = answers(1 / (1 + np.exp(-3 * NUMBERS[:, 0])))


def test_a_good_candidate_passes_with_a_score_and_an_interval() -> None:
    checks = by_name(quality_checks(candidate(), TRUTH, GOOD, TRUTH, ExpectPlan(score_at_least=0.9), seed=1))
    assert all(check.passed for check in checks.values())
    score = checks["holdout_score"]
    assert score.value == 1.0  # every row of one class is above every row of the other
    assert (score.low, score.high) == pytest.approx((1.0, 1.0))


def test_the_interval_holds_the_score_and_is_the_same_every_time() -> None:
    noisy = answers(np.clip(0.5 + 0.2 * NUMBERS[:, 0] + RNG.normal(scale=0.2, size=ROWS), 0.01, 0.99))
    first, second = (quality_checks(candidate(), TRUTH, noisy, TRUTH, ExpectPlan(), seed=3)[0] for _ in range(2))
    assert first == second
    assert first.low is not None
    assert first.value is not None
    assert first.high is not None
    assert first.low < first.value < first.high < 1


def test_every_candidate_is_scored_on_the_same_resamples() -> None:
    """One that errs on a row more than another is behind it on every resample, by how often that row was drawn."""
    truth = np.repeat([0.0, 1.0], [80, 20])
    one, other = truth.copy(), truth.copy()
    one[0], other[[0, 1]] = 1.0, 1.0
    left, right = (
        np.asarray(
            quality_checks(candidate("accuracy"), truth, answers(given), truth, ExpectPlan(), seed=1)[0].resamples
        )
        for given in (one, other)
    )
    drawn = (left - right) * len(truth)
    assert len(drawn) == 500 and np.all(drawn > -1e-9) and np.allclose(drawn, np.rint(drawn), atol=1e-9)
    assert 0.8 < drawn.mean() < 1.2


def test_the_interval_of_two_classes_is_that_of_two_binomials() -> None:
    """Each class keeps its rows: of 80 and 20, with 8 and 4 wrong, the accuracy varies by both shares alone."""
    truth = np.repeat([0.0, 1.0], [80, 20])
    wrong = np.isin(np.arange(100), [*range(8), *range(80, 84)])
    given = answers(np.where(wrong, 1 - truth, truth) * 0.8 + 0.1)
    check = quality_checks(candidate("accuracy"), truth, given, truth, ExpectPlan(), seed=1)[0]
    assert check.value == pytest.approx(0.88)
    deviation = np.sqrt(80 * 0.1 * 0.9 + 20 * 0.2 * 0.8) / 100
    assert check.low == pytest.approx(0.88 - 1.96 * deviation, abs=0.015)
    assert check.high == pytest.approx(0.88 + 1.96 * deviation, abs=0.015)


def test_the_interval_of_rows_in_groups_is_that_of_the_groups() -> None:
    """Twenty groups of five rows, of which four are wrong as a whole, vary as twenty rows would."""
    truth, groups = np.tile([0.0, 1.0], 50), np.repeat(np.arange(20), 5)
    given = answers(np.where(groups < 4, 1 - truth, truth) * 0.8 + 0.1)
    check = quality_checks(candidate("accuracy"), truth, given, truth, ExpectPlan(), 1, groups)[0]
    assert check.value == pytest.approx(0.8)
    assert check.low == pytest.approx(0.8 - 1.96 * np.sqrt(0.2 * 0.8 / 20), abs=0.05)


@pytest.mark.parametrize("metric", ["accuracy", "log_loss", pytest.param("roc_auc", marks=pytest.mark.long)])
@pytest.mark.parametrize("counts", [(1,) * 4, (1, 1, 98)], ids=["a row of each class", "two single rows"])
def test_rare_classes_are_in_every_resample(metric: Metric, counts: tuple[int, ...]) -> None:
    truth = np.repeat(np.arange(len(counts), dtype=np.float64), counts)
    rng = np.random.default_rng(4)
    likely = 0.3 * np.eye(len(counts))[truth.astype(int)] + 0.7 * rng.dirichlet(np.ones(len(counts)), len(truth))
    given = Prediction(values=likely.argmax(axis=1).astype(np.float64), probabilities=likely)
    signature = Signature(task="multiclass", columns=BINARY.columns, classes=tuple("abcd"[: len(counts)]))
    one = candidate(metric).model_copy(update={"signature": signature})
    check = quality_checks(one, truth, given, truth, ExpectPlan(), seed=1)[0]
    assert check.value is not None
    assert check.low is not None
    assert check.high is not None
    # Four single rows can only be drawn as they are.
    assert (check.low < check.high) is (max(counts) > 1)
    assert check.low - 1e-12 <= check.value <= check.high + 1e-12


def test_a_candidate_that_learned_nothing_does_not_beat_the_dummy() -> None:
    shuffled = np.random.default_rng(9).permutation(TRUTH)
    checks = by_name(quality_checks(candidate(), shuffled, GOOD, shuffled, ExpectPlan(), seed=1))
    assert not checks["beats_dummy"].passed
    assert "may be chance" in checks["beats_dummy"].detail


@pytest.mark.parametrize(("metric", "better"), [("log_loss", True), ("log_loss", False)])
def test_less_loss_beats_the_dummy_and_more_does_not(metric: Metric, better: bool) -> None:
    given = GOOD if better else answers(1 / (1 + np.exp(3 * NUMBERS[:, 0])))
    checks = by_name(quality_checks(candidate(metric), TRUTH, given, TRUTH, ExpectPlan(), seed=1))
    assert checks["beats_dummy"].passed is better


@pytest.mark.parametrize(
    ("metric", "expect", "passed"),
    [
        ("roc_auc", ExpectPlan(score_at_least=1.0), True),
        ("roc_auc", ExpectPlan(score_at_least=1.01), False),
        ("log_loss", ExpectPlan(score_at_most=0.7), True),
        ("log_loss", ExpectPlan(score_at_most=0.01), False),
    ],
)
def test_the_expected_score_is_kept_or_not(metric: Metric, expect: ExpectPlan, passed: bool) -> None:
    checks = by_name(quality_checks(candidate(metric), TRUTH, GOOD, TRUTH, expect, seed=1))
    assert checks["expected_score"].passed is passed


def test_a_regression_beats_the_mean_or_not() -> None:
    truth = 3 * NUMBERS[:, 0] + NUMBERS[:, 1]
    good = Prediction(values=truth + 0.1, probabilities=None)
    useless = Prediction(values=np.random.default_rng(2).permutation(truth), probabilities=None)
    for given, passed in ((good, True), (useless, False)):
        checks = by_name(quality_checks(candidate("r2", "regression"), truth, given, truth, ExpectPlan(), seed=1))
        assert checks["beats_dummy"].passed is passed


@pytest.mark.parametrize(
    ("rows", "difference", "passed"),
    [(ROWS, 1e-6, True), (1, 0.01, True), (ROWS // 20, 0.01, False), (1, 0.9, False)],
    ids=["float32 everywhere", "a flipped split on one row", "on many rows", "another label"],
)
def test_another_runtime_may_differ_as_float32_does_and_no_more(rows: int, difference: float, passed: bool) -> None:
    sure = answers(np.where(NUMBERS[:, 0] > 0, 0.95, 0.05))
    assert sure.probabilities is not None
    changed = sure.probabilities[:, 1].copy()
    changed[:rows] -= np.sign(changed[:rows] - 0.5) * difference
    check = parity_check(candidate(), sure, answers(changed), "onnx")
    assert check.passed is passed, check.detail


def spoilt(prediction: Prediction, number: float) -> Prediction:
    """The same answers, but for one of them."""
    values = prediction.values.copy()
    probabilities = None if prediction.probabilities is None else prediction.probabilities.copy()
    (values if probabilities is None else probabilities)[7] = number
    return Prediction(values, probabilities)


VALUES = Prediction(NUMBERS[:, 0], None)


def test_parity_says_what_a_runtime_computes_in_and_why() -> None:
    note = "in float32 half of the rows were within 0.001"
    made = Artifact(runtime="onnx", file="f", sha256="0", size_bytes=1, precision="float64", note=note)
    check = parity_check(candidate().model_copy(update={"artifacts": (made,)}), GOOD, GOOD, "onnx")
    assert check.detail.startswith("runtime onnx in float64: the largest difference")
    assert check.detail.endswith(f"; {note}")


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("given", [GOOD, VALUES], ids=["probabilities", "values"])
def test_an_answer_that_is_no_number_agrees_with_nothing_not_even_with_itself(given: Prediction, number: float) -> None:
    bad = spoilt(given, number)
    for left, right in ((given, bad), (bad, given), (bad, bad)):
        check = parity_check(candidate(), left, right, "onnx")
        assert (check.passed, check.value) == (False, None)
        assert check.detail == "runtime onnx: 1 of 200 rows have no finite answer to compare"


@pytest.mark.parametrize(
    ("metric", "task", "truth", "given", "told"),
    [
        ("accuracy", "binary", TRUTH, spoilt(GOOD, np.nan), "1 of 200 holdout rows got no finite answer"),
        ("rmse", "regression", NUMBERS[:, 0], spoilt(VALUES, -np.inf), "1 of 200 holdout rows got no finite answer"),
        ("log_loss", "binary", TRUTH, spoilt(GOOD, 0.0), "log_loss of the answers to 200 holdout rows"),
    ],
)
def test_answers_that_have_no_score_fail_the_holdout_score(
    metric: Metric, task: Task, truth: NDArray[np.float64], given: Prediction, told: str
) -> None:
    (check,) = quality_checks(candidate(metric, task), truth, given, truth, ExpectPlan(score_at_least=0.1), seed=1)
    assert (check.name, check.passed, check.value) == ("holdout_score", False, None)
    assert told in check.detail


def test_a_bundle_that_cannot_be_read_again_fails_its_reload() -> None:
    check = reload_check(candidate(), BATCH, GOOD, "onnx", "harness.server", Path("nowhere"))
    assert not check.passed
    assert "a fresh process could not answer" in check.detail
    assert sys.executable not in check.detail


def test_requests_of_one_row_hold_each_row_once_and_in_order() -> None:
    sent = [decode_request(body, BINARY).numbers for body in request_bodies(BATCH, BINARY, 1, SEED)]
    np.testing.assert_array_equal(np.vstack(sent), NUMBERS)


# Each of the 200 rows has to come 21 times, or there were fewer than 4,096 rows in all.
@pytest.mark.parametrize(("rows", "requests"), [(2, 2_100), (64, 66), (ROWS, 21), (ROWS + 1, 21), (5 * ROWS, 5)])
def test_requests_of_several_rows_are_shuffled_and_hold_each_as_often(
    monkeypatch: pytest.MonkeyPatch, rows: int, requests: int
) -> None:
    monkeypatch.setattr(validate, "PAYLOADS", 10_000)
    bodies = request_bodies(BATCH, BINARY, rows, SEED)
    sent = [decode_request(body, BINARY).numbers for body in bodies]
    assert [len(numbers) for numbers in sent] == [rows] * requests
    flat = np.vstack(sent)[: 21 * ROWS]
    for turn in np.split(flat, 21):
        np.testing.assert_array_equal(np.sort(turn, axis=0), np.sort(NUMBERS, axis=0))
    assert len({turn.tobytes() for turn in np.split(flat, 21)}) == 21, "no order comes again"
    assert request_bodies(BATCH, BINARY, rows, SEED) == bodies != request_bodies(BATCH, BINARY, rows, SEED + 1)


def test_requests_are_bounded_in_number_and_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    every = request_bodies(BATCH, BINARY, 10, SEED)
    monkeypatch.setattr(validate, "PAYLOADS", 7)
    assert request_bodies(BATCH, BINARY, 10, SEED) == every[:7]
    monkeypatch.setattr(validate, "PAYLOADS_BYTES", sum(map(len, every[:3])))
    assert request_bodies(BATCH, BINARY, 10, SEED) == every[:3]
    monkeypatch.setattr(validate, "PAYLOADS_BYTES", 1)
    assert request_bodies(BATCH, BINARY, 10, SEED) == every[:1]
