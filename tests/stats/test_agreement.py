"""One rule says which answers may be those of one model: rows that are close, and labels that are the same."""

import numpy as np
import pytest

from harness.records.rows import Prediction
from harness.stats.agreement import agreement


def values(*numbers):
    return Prediction(np.array(numbers, dtype=np.float64), None)


def labels(yes):
    probabilities = np.column_stack([1 - yes, yes])
    return Prediction(probabilities.argmax(axis=1).astype(np.float64), probabilities)


def test_predictions_differ_in_units_of_their_own_spread():
    found = agreement(values(0, 200), values(0, 201))

    assert (found.largest, found.within, found.same_labels) == (0.01, 0.5, 1.0)
    assert agreement(values(5, 5), values(5, 5.0001)).largest == pytest.approx(1e-4)  # no spread: the number itself


@pytest.mark.parametrize(("rows", "parity"), [(1, True), (2, False)])
def test_a_row_in_a_thousand_may_have_another_label_however_close_it_is(rows, parity):
    yes = np.linspace(0.5001, 1, 1000)
    other = yes.copy()
    other[:rows] = 0.4999

    found = agreement(labels(yes), labels(other))

    assert found.within == 1.0
    assert found.is_parity == parity


def test_a_row_without_a_finite_answer_is_close_to_nothing():
    assert agreement(values(1, np.nan), values(1, np.nan)).within == 0.0  # and no spread to measure the other by
    one_of_many = agreement(values(*range(1000)), values(np.inf, *range(1, 1000)))
    assert (one_of_many.within, one_of_many.is_parity) == (0.999, False)
