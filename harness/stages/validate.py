"""Is a candidate right? Before deployment: good enough, and the same after reload. After: the same over the wire.

In: a fitted candidate with its bundle, and the holdout rows. Out: `Check` records; a failed one keeps the candidate
away from traffic. Answers are compared with the fitted pipeline in this process, never with another copy of themselves.
"""

import http.client
import math
import subprocess
import sys
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.errors import InfrastructureError, one_line
from harness.ports import Predictor
from harness.records.candidate import MINIMISED, Candidate, Check, CheckName, Endpoint, Signature
from harness.records.rows import UNLEARNED_ROWS, Batch, Prediction
from harness.records.scenario import ExpectPlan
from harness.records.words import Task
from harness.serving.protocol import decode_response, encode_request
from harness.space.build import build_dummy
from harness.space.resamples import resampled_rows, resampled_scores
from harness.space.score import predict, score
from harness.stats.agreement import PARITY_DIFFERENCE, agreement
from harness.units import Unit, format_number

SAME_DIFFERENCE = 1e-9
"""Largest difference of an answer that the same runtime may show in another process: arithmetic may be ordered
otherwise, and nothing else may differ."""

WIRE_ROWS = 64
"""Rows per request when the whole holdout is sent to a server."""

RELOAD_ROWS = 1000
"""Rows per request when the whole holdout is sent to a fresh process."""

PAYLOADS = 1000
"""Most different requests of a load, which sends them again and again in a shuffled order."""

PAYLOADS_BYTES = 64 * 2**20
"""Most bytes of all of them; one is sent whatever its size. The run and its generator hold each several times over, and
a thousand requests of thousands of rows would leave the machine no memory for what it measures."""

NEW_PAYLOADS = 200
"""Requests that are kept for asking whether a server remembers its answers."""

_REQUEST_TIMEOUT_S = 30.0
_PROCESS_TIMEOUT_S = 120.0
"""Of a fresh process: for its start and ten requests, and as much again for each ten more."""


def quality_checks(
    candidate: Candidate,
    truth: NDArray[np.float64],
    answers: Prediction,
    train_truth: NDArray[np.float64],
    expect: ExpectPlan,
    seed: int,
    groups: NDArray[np.intp] | None = None,
) -> list[Check]:
    """Holdout score with its interval, against the dummy model and against the scenario's expected score.

    The same seed and truth draw the same rows for every candidate, so that two can be compared resample by resample.
    `truth` is the class index or the value of each holdout row, shape (n,), and `answers` what the fitted pipeline says
    of them; the dummy learns from `train_truth`. Of a classification each class is resampled on its own and keeps its
    number of rows, so every metric is defined on every resample. The interval is therefore that of a holdout with these
    class counts: how many rows of a class another holdout would have is not in it, nor is anything of a class of which
    there is one row. Where rows are in `groups` (shape (n,)), whole groups are resampled. An answer, or a score, that
    is no finite number fails the first check, and there are no others.
    """
    metric = candidate.metric
    if lost := len(truth) - int(answers.finite.sum()):
        detail = f"{lost:,} of {len(truth):,} holdout rows got no finite answer, so there is no score"
        return [_check(candidate, "holdout_score", False, detail)]
    value = score(metric, truth, answers)
    dummy = _dummy_answers(candidate.signature.task, train_truth, len(truth))
    dummy_value = score(metric, truth, dummy)
    scores, dummy_scores = (
        resampled_scores(metric, truth, each, resampled_rows(truth, candidate.signature.task, seed, groups))
        for each in (answers, dummy)
    )
    gains = np.subtract(scores, dummy_scores)
    if not np.isfinite([value, *scores]).all():
        detail = (
            f"{metric} of the answers to {len(truth):,} holdout rows, or to a resample of them, is no finite number"
        )
        return [_check(candidate, "holdout_score", False, detail)]
    low, high = _interval(scores)
    sign = -1.0 if metric in MINIMISED else 1.0
    gain_low = min(sign * end for end in _interval(gains))
    beaten = f"{metric} {_shown(value)} against {_shown(dummy_value)} of a model that never looks at the columns"
    if gain_low <= 0:
        over = "rows" if groups is None else "groups of rows"
        beaten += f"; the difference may be chance (95 % bootstrap interval over {over})"
    scored = f"{metric} {_shown(value)} on {len(truth)} holdout rows"
    checks = [
        _check(candidate, "holdout_score", True, scored, value=value, low=low, high=high, resamples=scores),
        _check(candidate, "beats_dummy", gain_low > 0, beaten, value=value, bound=dummy_value),
    ]
    bound = expect.score_at_most if metric in MINIMISED else expect.score_at_least
    if bound is not None:
        passed = value <= bound if metric in MINIMISED else value >= bound
        words = "at most" if metric in MINIMISED else "at least"
        detail = f"{metric} {_shown(value)}, expected {words} {_shown(bound)}"
        checks.append(_check(candidate, "expected_score", passed, detail, value=value, bound=bound))
    return checks


def computed(predict: Predictor, batch: Batch, rows: int = RELOAD_ROWS) -> Prediction:
    """What a loaded candidate answers in this process, in portions of `rows`, as the rows are sent that it is compared
    with: BLAS adds up one row otherwise than a thousand.
    """
    return _joined([predict(part) for part in _parts(batch, rows)])


def reload_check(
    candidate: Candidate, batch: Batch, loaded: Prediction, runtime: str, entry: str, bundle: Path
) -> Check:
    """The same answers from a fresh process that knows nothing but the bundle, as `loaded` (see `computed`) here."""
    command = [sys.executable, "-m", entry, "predict", "--bundle", str(bundle), "--runtime", runtime]
    requests = [encode_request(part, candidate.signature) for part in _parts(batch, RELOAD_ROWS)]
    timeout_s = _PROCESS_TIMEOUT_S * math.ceil(len(requests) / 10)
    try:
        done = subprocess.run(command, input=b"\n".join(requests), capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        detail = f"a fresh process gave no answer within {timeout_s:.0f} s"
        return _check(candidate, "same_after_reload", False, detail, runtime=runtime)
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split())[-300:]
        detail = f"a fresh process could not answer (exit {done.returncode}): {said}"
        return _check(candidate, "same_after_reload", False, detail, runtime=runtime)
    try:
        again = _joined([decode_response(line, candidate.signature) for line in done.stdout.splitlines()])
    except ValueError as error:
        detail = f"a fresh process gave {error}"
        return _check(candidate, "same_after_reload", False, detail, runtime=runtime)
    return _compared(candidate, "same_after_reload", loaded, again, runtime, "a fresh process")


def unanswered(candidate: Candidate, runtime: str, error: Exception) -> Check:
    """What becomes of the comparison with a runtime that raised `error` instead of answering."""
    told = f"runtime {runtime} raised {type(error).__name__}: {one_line(error)}"
    return _check(candidate, "runtime_parity", False, told, runtime=runtime)


def parity_check(candidate: Candidate, answers: Prediction, loaded: Prediction, runtime: str) -> Check:
    """The same answers from a runtime as from the fitted pipeline, within what float32 explains.

    Says how exactly the runtime computes, and what was found of float32 where it was not enough.
    """
    artifact = next((one for one in candidate.artifacts if one.runtime == runtime), None)
    precision, note = (None, None) if artifact is None else (artifact.precision, artifact.note)
    what = f"runtime {runtime}" if precision is None else f"runtime {runtime} in {precision}"
    check = _compared(candidate, "runtime_parity", answers, loaded, runtime, what)
    return check if note is None else check.model_copy(update={"detail": f"{check.detail}; {note}"})


def wire_check(
    candidate: Candidate, batch: Batch, predict: Predictor, runtime: str, target: str, endpoint: Endpoint
) -> Check:
    """The same answers over HTTP, for the whole holdout, as from the same runtime in this process."""
    try:
        with Connection(endpoint) as connection:
            bodies = [connection.infer(encode_request(part, candidate.signature)) for part in _parts(batch, WIRE_ROWS)]
        answers = _joined([decode_response(body, candidate.signature) for body in bodies])
    except (InfrastructureError, ValueError) as error:
        detail = f"the server did not answer the holdout rows: {error}"[:400]
        return _check(candidate, "same_over_the_wire", False, detail, runtime=runtime, target=target)
    loaded = computed(predict, batch, WIRE_ROWS)
    check = _compared(candidate, "same_over_the_wire", loaded, answers, runtime, f"{target} over HTTP")
    return check.model_copy(update={"target": target})


def request_bodies(batch: Batch, signature: Signature, rows: int, seed: int) -> list[bytes]:
    """Requests of exactly `rows` rows each, which together hold every row of a batch; fewer where there would be more
    than `PAYLOADS`, or than `PAYLOADS_BYTES` in all.

    Those of one row are in the order of the batch. Those of several are shuffled, and hold every row so often that they
    are `UNLEARNED_ROWS` together: a model is faster on rows that come again and again in the same order.
    """
    places = np.arange(len(batch))
    if rows > 1:
        random = np.random.default_rng(seed)
        times = math.ceil(max(rows, UNLEARNED_ROWS) / len(batch))
        places = np.concatenate([random.permutation(places) for _ in range(times)])
    bodies: list[bytes] = []
    size_bytes = 0
    for start in range(0, min(len(places), PAYLOADS * rows), rows):
        body = encode_request(batch.take(places.take(range(start, start + rows), mode="wrap")), signature)
        size_bytes += len(body)
        if bodies and size_bytes > PAYLOADS_BYTES:
            break
        bodies.append(body)
    return bodies


def new_bodies(batch: Batch, signature: Signature, rows: int, sent: Sequence[bytes], seed: int) -> list[bytes]:
    """`NEW_PAYLOADS` requests of rows that no one has sent: each column's values, drawn on their own from a batch.

    None at all where the columns have too few values to make so many that differ from those `sent`.
    """
    random = np.random.default_rng(seed)
    known, found = set(sent), []
    for _ in range(2 * NEW_PAYLOADS):
        numbers, texts = (
            random.integers(0, len(batch), (rows, part.shape[1])) for part in (batch.numbers, batch.texts)
        )
        mixed = Batch(
            np.take_along_axis(batch.numbers, numbers, axis=0), np.take_along_axis(batch.texts, texts, axis=0)
        )
        body = encode_request(mixed, signature)
        if body not in known:
            known.add(body)
            found.append(body)
    return found[:NEW_PAYLOADS] if len(found) >= NEW_PAYLOADS else []


class Connection:
    """One HTTP connection to an endpoint, for asking it things one after the other."""

    def __init__(self, endpoint: Endpoint) -> None:
        address = urllib.parse.urlsplit(endpoint.url)
        self._path = address.path + endpoint.infer_path
        self._http = http.client.HTTPConnection(str(address.hostname), address.port, timeout=_REQUEST_TIMEOUT_S)

    def infer(self, body: bytes) -> bytes:
        """The answer's body. Raises InfrastructureError where there is none, or the server refuses the request."""
        try:
            self._http.request("POST", self._path, body, {"content-type": "application/json"})
            response = self._http.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise InfrastructureError(f"{type(error).__name__}: {error}") from error
        if response.status != 200:
            raise InfrastructureError(f"HTTP {response.status}: {answer[:200].decode(errors='replace')}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._http.close()


def _compared(
    candidate: Candidate, name: CheckName, left: Prediction, right: Prediction, runtime: str, what: str
) -> Check:
    if len(left.values) != len(right.values):
        detail = f"{what} answered {len(right.values)} rows of {len(left.values)}"
        return _check(candidate, name, False, detail, runtime=runtime)
    if lost := len(left.values) - int((left.finite & right.finite).sum()):
        # Two that are no numbers are not alike either.
        detail = f"{what}: {lost:,} of {len(left.values):,} rows have no finite answer to compare"
        return _check(candidate, name, False, detail, runtime=runtime)
    parity = name == "runtime_parity"
    tolerance = PARITY_DIFFERENCE if parity else SAME_DIFFERENCE
    found = agreement(left, right, tolerance)
    if left.probabilities is not None and right.probabilities is not None:
        shown = f"of a probability is {found.largest:.2g}, same label for {found.same_labels:.2%} of rows"
    else:
        shown = f"of a prediction is {found.largest:.2g} of the predictions' standard deviation"
    passed = found.is_parity if parity else found.within == found.same_labels == 1.0
    detail = f"{what}: the largest difference {shown}; {found.within:.2%} of rows within {tolerance:g}"
    return _check(candidate, name, passed, detail, runtime=runtime, value=found.largest, bound=tolerance)


def _check(
    candidate: Candidate,
    name: CheckName,
    passed: bool,
    detail: str,
    *,
    runtime: str | None = None,
    target: str | None = None,
    value: float | None = None,
    low: float | None = None,
    high: float | None = None,
    bound: float | None = None,
    resamples: tuple[float, ...] = (),
) -> Check:
    return Check(
        candidate=candidate.origin,
        name=name,
        runtime=runtime,
        target=target,
        passed=passed,
        value=value,
        low=low,
        high=high,
        bound=bound,
        resamples=resamples,
        detail=detail,
    )


def _dummy_answers(task: Task, train_truth: NDArray[np.float64], rows: int) -> Prediction:
    model = build_dummy(task).fit(np.zeros((len(train_truth), 1)), train_truth)
    return predict(model, pd.DataFrame(index=range(rows)), task)


def _parts(batch: Batch, rows: int) -> list[Batch]:
    starts = range(0, len(batch), rows)
    return [batch.take(slice(start, start + rows)) for start in starts]


def _joined(parts: Sequence[Prediction]) -> Prediction:
    probabilities = [part.probabilities for part in parts if part.probabilities is not None]
    return Prediction(
        np.concatenate([part.values for part in parts]), np.concatenate(probabilities) if probabilities else None
    )


def _interval(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def _shown(value: float) -> str:
    return format_number(value, Unit.SCORE)
