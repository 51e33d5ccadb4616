"""The work on requests: decode, predict, encode, and how long each took.

In: `Job`s, whose bodies are whole. Out: the same with an `Outcome` each, whatever became of it; nothing is raised. Jobs
of one model may be computed together: they are decoded and encoded one by one, and their rows predicted at once.
"""

import logging
import math
from asyncio import Future
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from harness.clock import SystemClock
from harness.records.candidate import Signature
from harness.records.rows import Batch, Prediction
from harness.serving.limits import Limits
from harness.serving.protocol import Answer, BadRequestError, Request, request_reader, response_writer

_MEMORY = 0.1
"""Weight of the last observation in an average that moves..."""

_MOST_TIMES = 4.0
"""... where it counts as so many times that average at most."""

_log = logging.getLogger(__name__)
_now_s = SystemClock().monotonic_s


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded candidate, as a server has it."""

    name: str
    version: str | None
    runtime: str
    signature: Signature
    predict: Callable[[Batch], Prediction]
    example: bytes | None = None
    """A body that it answers, with a real row."""


@dataclass(slots=True, eq=False)
class Wire:
    """A model with its wire form, made once, and what is known of how long it takes."""

    model: Model
    read: Callable[[bytes, int | None], Request]
    write: Callable[[Prediction, str | None, Mapping[str, bool]], Answer]
    seconds: dict[int, float] = field(default_factory=dict)
    """Of computing a request, an average that moves, by the size of its body: twice as large is another size."""
    beside: int = 0
    """How many jobs were computed beside the event loop."""

    def expected_s(self, body: bytes) -> float:
        """What computing is expected to take; infinite where none of that size has been computed yet."""
        return self.seconds.get(len(body).bit_length(), math.inf)

    def guessed_s(self, body: bytes, otherwise_s: float) -> float:
        """The same, by the nearest size where that size is not known; `otherwise_s` where none is.

        A part of what one takes is the same for all, the rest grows with the body: one with r times as many bytes takes
        between once and r times as long. The geometric mean of both is wrong by the root of r at most. By r itself a
        thousand rows would seem to take a thousand calls of the model, and a handful of good requests would find the
        queue full; by 1 they would seem to take one, and a queue of minutes would be let in.
        """
        size = len(body).bit_length()
        known = list(self.seconds.items())  # in one go: a thread may learn another size meanwhile
        nearest, seconds = min(known, key=lambda one: abs(one[0] - size), default=(size, otherwise_s))
        return seconds * math.exp2((size - nearest) / 2)

    def learn(self, body: bytes, took_s: float) -> None:
        """Remember how long one took whose prediction was computed, whatever became of it."""
        size = len(body).bit_length()
        known = self.seconds.get(size, took_s)
        # One bad moment of the machine says little of the model.
        self.seconds[size] = known + _MEMORY * (min(took_s, _MOST_TIMES * known) - known)

    @classmethod
    def of(cls, model: Model, limits: Limits) -> "Wire":
        """The wire form of a model."""
        write = response_writer(model.signature, model.name, model.version)
        return cls(model, request_reader(model.signature, limits), write)


class Outcome(NamedTuple):
    """What came of a job."""

    status: int
    answer: Answer | None
    error: str | None = None


@dataclass(slots=True, eq=False)
class Job:
    """One request on its way; moments are of the monotonic clock."""

    wire: Wire
    body: bytes
    header_bytes: int | None
    began_s: float
    """When its headers were there..."""
    received_s: float
    """... and its body."""
    expected_s: float = 0.0
    """What computing it was expected, or guessed, to take when it began to wait."""
    done: "Future[None] | None" = None
    outcome: Outcome | None = None
    taken_s: float = 0.0
    """When it had waited long enough."""
    decoded_s: float = 0.0
    predicted_s: float = 0.0
    encoded_s: float = 0.0
    request: Request | None = field(default=None, repr=False)
    """What its body says; None where that is nothing that the model could be asked."""


def compute(job: Job) -> None:
    """Give a job its outcome."""
    wire = job.wire
    job.taken_s = _now_s()
    try:
        request = job.request = wire.read(job.body, job.header_bytes)
        job.decoded_s = _now_s()
        prediction = wire.model.predict(request.batch)
        job.predicted_s = _now_s()
    except BadRequestError as error:
        job.outcome = Outcome(400, None, str(error))
        job.decoded_s = job.predicted_s = job.encoded_s = _now_s()
    except Exception:
        _failed(job)
    else:
        _encode(job, request, prediction)


def compute_together(jobs: Sequence[Job]) -> None:
    """Give each of some jobs its outcome; all are of one model.

    One by one where the model fails on them: one may be the reason, and the others are not to suffer from it.
    """
    taken_s, ready = _now_s(), []
    for job in jobs:
        job.taken_s = taken_s
        try:
            job.request = job.wire.read(job.body, job.header_bytes)
            ready.append((job, job.request))
        except BadRequestError as error:
            job.outcome = Outcome(400, None, str(error))
        except Exception:
            _failed(job)
        job.decoded_s = job.predicted_s = job.encoded_s = _now_s()
    if not ready:
        return
    batches = [request.batch for _, request in ready]
    ends = list(accumulate(len(batch) for batch in batches))
    try:
        whole = Batch(np.concatenate([one.numbers for one in batches]), np.concatenate([one.texts for one in batches]))
        prediction = jobs[0].wire.model.predict(whole)
        parts = [prediction.take(slice(end - len(batch), end)) for batch, end in zip(batches, ends, strict=True)]
    except Exception:
        for job, _ in ready:
            compute(job)
        return
    predicted_s = _now_s()
    for (job, request), part in zip(ready, parts, strict=True):
        job.predicted_s = predicted_s
        _encode(job, request, part)


def _encode(job: Job, request: Request, prediction: Prediction) -> None:
    """Give a job its outcome, of what the model said to it."""
    try:
        job.outcome = Outcome(200, job.wire.write(prediction, request.id, request.outputs))
    except BadRequestError as error:
        job.outcome = Outcome(400, None, str(error))
    except Exception:
        _failed(job)
    job.encoded_s = _now_s()


def _failed(job: Job) -> None:
    """The client learns that it failed; why stays in the log."""
    rows = len(job.request.batch) if job.request is not None else 0
    _log.exception("the model failed on a request of %d rows", rows)
    job.outcome = Outcome(500, None, "the model failed on this request; the server's log says why")
    failed_s = _now_s()
    job.decoded_s = job.decoded_s or failed_s
    job.predicted_s = job.encoded_s = failed_s
