"""A file in a folder is a plug-in; what cannot be used is told before anything runs."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.cli.main import main
from harness.errors import UsageError
from harness.plugins import KINDS, Kind, foreign, installed, inventory, names, plugin, plugin_class


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_in_a_plug_in_folder_is_a_plug_in(kind: Kind) -> None:
    found = inventory(kind)
    assert [one.name for one in found] == list(names(kind))
    for one in found:
        assert one.summary
        if kind == "engines" and foreign(one.name) is not None:
            continue  # what is beside our environment need not be there
        assert one.missing == ()  # everything else is installed where the tests run
        parameters = {"url": "http://127.0.0.1:1", "model": "m"} if one.name == "external" else {}
        assert dataclasses.is_dataclass(plugin(kind, one.name, parameters))


def test_what_the_scenarios_need_is_there() -> None:
    assert {"random_search", "optuna_search", "flaml_search"} <= set(names("engines"))
    assert {"sklearn_native", "onnx"} <= set(names("runtimes"))
    assert {"null", "asgi", "ray_serve", "external"} <= set(names("targets"))
    assert {"ladder", "stairs"} <= set(names("shapes"))
    assert {"html", "markdown", "json", "csv", "junit", "png"} <= set(names("exporters"))


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"There is no engine 'optuna'; did you mean optuna_search\?"):
        plugin_class("engines", "optuna")
    with pytest.raises(UsageError, match=r"There is no target 'zzz'; known: asgi"):
        plugin_class("targets", "zzz")


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"limt": 5}, r"The shape ladder has no parameter 'limt'; did you mean limit\?"),
        ({"zzz": 5}, r"it takes: "),
        ({"limit": "many"}, r"parameter limit: "),
        ({"step_s": float("nan")}, r"step_s"),
        ({"step_s": -1.0}, r"shape ladder.*step_s"),
        ({"limit": 0}, r"shape ladder.*limit"),
    ],
)
def test_a_parameter_that_does_not_fit_is_told(parameters: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        plugin("shapes", "ladder", parameters)


def test_a_parameter_is_set() -> None:
    assert plugin("shapes", "ladder", {"limit": 8, "step_s": 2}).limit == 8


def test_a_missing_library_is_told_and_not_met_as_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def without_flaml(name: str, package: str | None = None) -> Any:
        return None if name == "flaml" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_flaml)
    assert {one.name: one.missing for one in inventory("engines")}["flaml_search"] == ("flaml",)
    assert "flaml_search" not in installed("engines")
    with pytest.raises(UsageError, match="flaml_search is not installed here: it needs flaml"):
        plugin_class("engines", "flaml_search")


def test_a_missing_environment_is_told_with_the_target_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert "autogluon" not in installed("engines")
    main(["list", "engines"])
    assert "not installed: needs an environment of its own (`make autogluon`)" in capsys.readouterr().out
    main(["list", "engines", "--json"])
    listed = {one["name"]: one["missing"] for one in json.loads(capsys.readouterr().out)}
    assert listed["autogluon"] == ["an environment of its own (`make autogluon`)"]
    assert listed["random_search"] == []
    with pytest.raises(UsageError, match=r"autogluon is not installed here: it needs an environment of its own"):
        plugin_class("engines", "autogluon")
