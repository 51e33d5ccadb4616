"""What every load shape promises, whatever it does: held over every file of the folder."""

import dataclasses
import importlib
import pkgutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness.shapes
from harness.records.load import Rung, Step

NAMES = sorted(module.name for module in pkgutil.iter_modules(harness.shapes.__path__))
CLOSED = Step(shape="elsewhere", number=0, mode="closed", in_flight=4, duration_s=1.0, warmup_s=0.1)
OPEN = Step(shape="elsewhere", number=1, mode="open", rate_rps=500.0, duration_s=1.0, warmup_s=0.1)
BEFORE = tuple(Rung(step=step, throughput_rps=1000.0, p99_s=0.01, error_share=0.0) for step in (CLOSED, OPEN))
MEASURED = st.tuples(
    st.floats(0, 1e5), st.none() | st.floats(1e-5, 100), st.sampled_from([0.0, 0.0, 0.0, 0.001, 0.2, 1.0])
)


def plug_in(name):
    module = importlib.import_module(f"harness.shapes.{name}")
    found = [
        value
        for key, value in vars(module).items()
        if dataclasses.is_dataclass(value) and value.__module__ == module.__name__ and not key.startswith("_")
    ]
    assert len(found) == 1, f"{name} must define exactly one public dataclass"
    return module, found[0]


def climb(shape, measurements, limit=200):
    """The steps a shape asks for when they measure what `measurements` says, after those of another."""
    history = list(BEFORE)
    for count in range(limit):
        step = shape.next_step(tuple(history))
        if step is None:
            return [rung.step for rung in history[len(BEFORE) :]]
        throughput_rps, p99_s, error_share = measurements[count % len(measurements)]
        history.append(Rung(step=step, throughput_rps=throughput_rps, p99_s=p99_s, error_share=error_share))
    raise AssertionError(f"{shape} does not end")


@pytest.mark.parametrize("name", NAMES)
def test_it_is_one_frozen_dataclass_of_scalars_with_defaults(name):
    module, kind = plug_in(name)
    assert isinstance(module.REQUIRES, tuple)
    shape = kind()
    for field in dataclasses.fields(kind):
        assert isinstance(getattr(shape, field.name), bool | int | float | str)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(shape, dataclasses.fields(kind)[0].name, 1)


@pytest.mark.parametrize("name", NAMES)
def test_importing_it_loads_no_heavy_library(name):
    heavy = "{'ray', 'locust', 'gevent', 'optuna', 'flaml', 'sklearn', 'pandas', 'matplotlib', 'onnxruntime'}"
    code = f"import sys, harness.shapes.{name}; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("name", NAMES)
@given(measurements=st.lists(MEASURED, min_size=1, max_size=30))
def test_it_ends_and_its_steps_are_well_formed(name, measurements):
    steps = climb(plug_in(name)[1](), measurements)
    for number, step in enumerate(steps, start=len(BEFORE)):
        assert step.shape == name
        assert step.number == number  # steps of another shape came first
        assert step.duration_s > step.warmup_s >= 0
        asked = step.rate_rps if step.mode == "open" else step.in_flight
        other = step.in_flight if step.mode == "open" else step.rate_rps
        assert asked is not None and asked > 0 and other is None


@pytest.mark.parametrize("name", NAMES)
@given(measurements=st.lists(MEASURED, min_size=1, max_size=30))
def test_the_same_history_gives_the_same_steps(name, measurements):
    kind = plug_in(name)[1]
    assert climb(kind(), measurements) == climb(kind(), measurements)
