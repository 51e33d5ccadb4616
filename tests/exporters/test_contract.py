"""What every form of the report promises; run over each file of the folder."""

import dataclasses
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import PurePosixPath
from types import ModuleType

import pytest

import harness.exporters
from harness.analysis.document import document
from harness.analysis.findings import findings
from harness.ports import Exporter
from harness.records.finding import Document

NAMES = sorted(module.name for module in pkgutil.iter_modules(harness.exporters.__path__))


def exporter(name: str) -> Exporter:
    module = importlib.import_module(f"harness.exporters.{name}")
    public = [
        value
        for key, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and not key.startswith("_")
    ]
    assert len(public) == 1
    assert dataclasses.is_dataclass(public[0]) and public[0].__dataclass_params__.frozen  # type: ignore[attr-defined]
    made: Exporter = public[0]()
    return made


def test_the_forms_that_users_were_promised_are_there() -> None:
    assert {"html", "markdown", "json", "csv", "junit", "png"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_needs_and_what_it_is(name: str) -> None:
    module = importlib.import_module(f"harness.exporters.{name}")
    assert isinstance(module.REQUIRES, tuple)
    assert (module.__doc__ or "").splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_gives_files_inside_the_report_folder(name: str, whole_document: Document) -> None:
    files = exporter(name).export(whole_document)
    assert files
    for path, data in files.items():
        assert not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts
        assert isinstance(data, bytes) and data


@pytest.mark.parametrize("name", NAMES)
def test_the_same_document_gives_the_same_bytes(name: str, whole_document: Document, ledgers: ModuleType) -> None:
    assert exporter(name).export(whole_document) == exporter(name).export(dataclasses.replace(whole_document))


def test_two_documents_of_the_same_records_give_the_same_bytes(ledgers: ModuleType) -> None:
    def exported() -> list[dict[str, bytes]]:
        story = ledgers.Story()
        story.searched("optuna_search", [0.9, None, 0.95])
        story.candidate("optuna_search", 0.99, 0.985, 0.995)
        story.loaded(story.cell("serve", "optuna_search"), 1000.0, (400, 1200))
        made = document(findings(story.ledger(), story.reduced()))
        return [dict(exporter(name).export(made)) for name in NAMES]

    assert exported() == exported()


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_run_has_a_report_too(name: str, ledgers: ModuleType) -> None:
    files = exporter(name).export(document(findings(ledgers.Story().ledger(), ())))
    assert files or name == "png"


def test_a_comparison_of_engines_has_every_form_and_the_same_bytes_each_time(ledgers: ModuleType) -> None:
    def exported() -> dict[str, dict[str, bytes]]:
        scores = {"flaml_search": 0.9, "optuna_search": None, "random_search": 0.8, "baseline": 0.7}
        story = ledgers.compared({f"table-{number}": scores for number in range(6)}, spread=0.02)
        story.searched("flaml_search", [0.6, 0.9], table="table-0")
        made = document(findings(story.ledger(), ()))
        return {name: dict(exporter(name).export(made)) for name in NAMES}

    first = exported()
    assert all(first.values()) and first == exported()


def test_two_forms_never_write_the_same_file(whole_document: Document) -> None:
    paths = [path for name in NAMES for path in exporter(name).export(whole_document)]
    assert len(paths) == len(set(paths))


def test_importing_them_loads_no_heavy_library() -> None:
    code = (
        f"import importlib, sys\nfor name in {NAMES}: importlib.import_module('harness.exporters.' + name)\n"
        "sys.exit(bool({'jinja2', 'matplotlib', 'pandas', 'scipy', 'ray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
