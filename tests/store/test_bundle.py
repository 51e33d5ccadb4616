"""A bundle is read back as it was written, or not at all."""

import hashlib
import json
import random
import shutil
import subprocess

import pytest

from harness.errors import IntegrityError, NotConvertibleError, UsageError
from harness.records.candidate import Artifact, Candidate, Column, Signature
from harness.store.bundle import artifact_path, read_bundle, read_example, refuse_altered_bundle, write_bundle

FILES = {"model.skops": b"the pipeline" * 100}
EXAMPLE = b'{"inputs":[{"name":"a|b","shape":[1],"datatype":"BYTES","data":["x"]}]}'
NAMES = ("SHA256SUMS", "card.md", "model.skops", "signature.json")


def candidate(files=FILES, **changed):
    artifacts = [
        Artifact(runtime="sklearn_native", file=name, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        for name, data in files.items()
    ]
    artifacts[0] = artifacts[0].model_copy(update={"precision": "float64", "note": "in float32 half of the rows"})
    artifacts.append(Artifact(runtime="onnx", reason="no operator | for it"))
    return Candidate(
        **{
            "id": "c0ffee",
            "origin": "random_search",
            "configuration": {"family": "ridge", "alpha": 0.5},
            "cv_score": 0.875,
            "fit_s": 1.25,
            "signature": Signature(
                task="multiclass",
                columns=(Column(name="größe", kind="number"), Column(name="a|b", kind="category")),
                classes=("x", "y", "z"),
            ),
            "metric": "accuracy",
            "artifacts": tuple(artifacts),
            **changed,
        }
    )


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "candidates" / "c0ffee"
    write_bundle(folder, candidate(), FILES, EXAMPLE)
    return folder


def test_a_candidate_is_read_as_it_was_written(bundle):
    assert read_bundle(bundle) == candidate()
    assert read_example(bundle) == EXAMPLE
    assert (bundle / "model.skops").read_bytes() == FILES["model.skops"]


def test_nothing_else_is_left_beside_it(bundle):
    write_bundle(bundle, candidate(), FILES)

    assert [path.name for path in bundle.parent.iterdir()] == ["c0ffee"]
    assert sorted(path.name for path in bundle.iterdir()) == list(NAMES)


def test_a_second_writing_replaces_the_first_whole(bundle):
    other = {"other.skops": b"smaller"}
    write_bundle(bundle, candidate(other, cv_score=None), other)

    assert read_bundle(bundle).cv_score is None
    assert not (bundle / "model.skops").exists()


def test_a_failed_writing_leaves_the_first(bundle, monkeypatch):
    def full(path, data):
        raise OSError("no space left")

    monkeypatch.setattr("harness.store.bundle.write_atomically", full)
    with pytest.raises(OSError, match="no space"):
        write_bundle(bundle, candidate(cv_score=None), FILES)

    assert read_bundle(bundle) == candidate()
    assert [path.name for path in bundle.parent.iterdir()] == ["c0ffee"]


@pytest.mark.parametrize("files", [{}, {**FILES, "more": b""}, {"../model.skops": b""}])
def test_files_that_the_candidate_does_not_state_are_refused(tmp_path, files):
    with pytest.raises(ValueError, match="state the files"):
        write_bundle(tmp_path / "c", candidate(), files)


@pytest.mark.parametrize("name", NAMES)
def test_one_flipped_bit_anywhere_is_found(bundle, name):
    """Of JSON also in its names and spaces, and of a digest in the digest itself."""
    written, draw = (bundle / name).read_bytes(), random.Random(5)
    for place in draw.sample(range(len(written)), 200):
        data = bytearray(written)
        data[place] ^= 1 << draw.randrange(8)
        (bundle / name).write_bytes(data)
        with pytest.raises(IntegrityError, match=name.replace(".", r"\.")):
            read_bundle(bundle)
        if name == "signature.json":
            with pytest.raises(IntegrityError):
                read_example(bundle)
    (bundle / name).write_bytes(written)
    read_bundle(bundle)


@pytest.mark.parametrize("schema", [2, 3])
def test_a_lowered_schema_does_not_switch_the_digests_off(bundle, schema):
    path = bundle / "signature.json"
    path.write_bytes(path.read_bytes().replace(b'"schema": 4', b'"schema": %d' % schema))
    with pytest.raises(IntegrityError, match="do not agree"):
        read_bundle(bundle)


def test_a_user_can_check_them_with_a_tool_of_the_system(bundle):
    if shutil.which("sha256sum") is None:
        pytest.skip("there is no sha256sum here")
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{name}: OK" for name in NAMES[1:]]


@pytest.mark.parametrize("name", ["SHA256SUMS", "model.skops", "card.md"])
def test_a_missing_file_is_named(bundle, name):
    (bundle / name).unlink()

    with pytest.raises(IntegrityError, match=f"{name} is missing"):
        read_bundle(bundle)


def test_a_folder_that_is_no_bundle_is_the_users_mistake(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError, match="is not the folder of a candidate"):
            read_bundle(folder)


def of_before(bundle, change, schema=3):
    """A bundle as it was written before there was a SHA256SUMS, with a signature that was changed."""
    path = bundle / "signature.json"
    written = json.loads(path.read_text()) | {"schema": schema}
    change(written)
    path.write_text(json.dumps(written))
    (bundle / "SHA256SUMS").unlink()


@pytest.mark.parametrize(("schema", "example"), [(2, None), (3, EXAMPLE)])
def test_bundles_of_before_are_still_read(bundle, schema, example):
    of_before(bundle, lambda written: schema == 2 and written.pop("example"), schema)

    refuse_altered_bundle(bundle, candidate())
    assert read_example(bundle) == example


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda written: written.update(schema=99), "schema 99"),
        (lambda written: written.pop("schema"), "damaged"),
        (lambda written: written.pop("candidate"), "damaged"),
        (lambda written: written["candidate"].update(more=1), "damaged: more"),
        (lambda written: written["candidate"]["artifacts"][0].update(file="../model.skops"), "outside its folder"),
        (lambda written: written["candidate"]["artifacts"][0].update(sha256=None), "not the file"),
    ],
)
def test_a_signature_that_was_changed_is_refused(bundle, change, said):
    of_before(bundle, change)

    with pytest.raises(IntegrityError, match=said):
        read_bundle(bundle)


def test_a_signature_cut_short_is_refused(bundle):
    path = bundle / "signature.json"
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(IntegrityError, match=r"signature\.json is damaged"):
        read_bundle(bundle)


def test_an_artifact_is_a_file_or_the_stored_reason(bundle):
    found = read_bundle(bundle)

    assert artifact_path(bundle, found, "sklearn_native") == bundle / "model.skops"
    with pytest.raises(NotConvertibleError, match=r"no operator \| for it"):
        artifact_path(bundle, found, "onnx")
    with pytest.raises(UsageError, match="sklearn_native, onnx"):
        artifact_path(bundle, found, "abacus")


def test_the_card_says_what_a_reader_needs(bundle):
    card = (bundle / "card.md").read_text()

    for wanted in ("c0ffee", "random_search", "| alpha | 0.5 |", "accuracy: 0.875", "| größe | number |", "x, y, z"):
        assert wanted in card
    assert "no operator \\| for it" in card  # a bar in a cell would end the cell
    assert hashlib.sha256(FILES["model.skops"]).hexdigest() in card
    assert "| sklearn_native | model.skops | float64 |" in card
    assert "Of sklearn_native: in float32 half of the rows." in card
    assert "harness serve" in card


def test_a_bundle_is_what_was_written_to_the_last_file(bundle):
    refuse_altered_bundle(bundle, candidate())

    card = bundle / "card.md"
    text = card.read_text()
    card.write_text(text.replace("accuracy: 0.875", "accuracy: 0.975"))
    with pytest.raises(IntegrityError, match=r"card\.md is not the file"):
        refuse_altered_bundle(bundle, candidate())
    card.unlink()
    with pytest.raises(IntegrityError, match=r"card\.md is missing"):
        refuse_altered_bundle(bundle, candidate())
    card.write_text(text)
    (bundle / "more.bin").touch()
    with pytest.raises(IntegrityError, match=r"did not write: more\.bin"):
        refuse_altered_bundle(bundle, candidate())


def test_a_bundle_of_another_candidate_or_none_is_not_what_was_written(bundle):
    with pytest.raises(IntegrityError, match="not the candidate that was recorded"):
        refuse_altered_bundle(bundle, candidate(cv_score=0.5))
    with pytest.raises(IntegrityError, match="is missing"):
        refuse_altered_bundle(bundle.parent / "gone", candidate())
    (bundle / "signature.json").unlink()
    with pytest.raises(IntegrityError, match=r"signature\.json"):
        refuse_altered_bundle(bundle, candidate())
