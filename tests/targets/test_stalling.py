"""The stalling target's parameters; what it does to requests is held against arithmetic in tests/stages/test_queues."""

import dataclasses

import pytest

from harness.targets.stalling import Stalling


@pytest.mark.parametrize(
    ("freeze_s", "every_s"), [(0.0, 1.0), (-0.1, 1.0), (1.0, 1.0), (2.0, 1.0), (0.1, float("inf"))]
)
def test_a_freeze_is_shorter_than_the_time_between_two(freeze_s, every_s):
    with pytest.raises(ValueError, match="freeze_s"):
        Stalling(freeze_s=freeze_s, every_s=every_s)


def test_its_parameters_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Stalling().freeze_s = 1.0
