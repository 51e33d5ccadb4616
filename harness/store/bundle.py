"""A candidate on disk: the folder that `harness serve` serves.

In: a `Candidate` and the bytes of its artifacts. Out: a folder with those files, `card.md` for readers,
`signature.json`, the candidate itself, and `SHA256SUMS`, the digests of them all as `sha256sum -c` reads them; and the
way back, with every digest verified before anything is loaded. `refuse_altered_bundle` also looks for files that do not
belong there.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from harness.errors import IntegrityError, NotConvertibleError, UsageError
from harness.records.candidate import Artifact, Candidate
from harness.store.files import sha256_of, write_atomically

SCHEMA = 4
"""Version of a bundle, stated in `signature.json`; a reader refuses what it does not know."""

_UNSUMMED = (2, 3)
"""Bundles of before, whose `signature.json` nothing covers. Those of schema 2 have no example."""

SIGNATURE_FILE = "signature.json"
CARD_FILE = "card.md"
SUMS_FILE = "SHA256SUMS"


@dataclass(frozen=True, slots=True)
class _Signed:
    """What `signature.json` states."""

    candidate: Candidate
    digests: Mapping[str, str]
    """Of every other file, by its name."""
    example: bytes | None


def write_bundle(folder: Path, candidate: Candidate, files: Mapping[str, bytes], example: bytes | None = None) -> None:
    """Write the folder of a candidate whose artifacts name exactly `files`; an older one is replaced.

    `example` is a request that it answers, in JSON. Readers find the old folder or the whole new one. Raises ValueError
    where artifacts and files do not agree.
    """
    stated = {artifact.file for artifact in candidate.artifacts if artifact.file is not None}
    if stated != set(files) or any(Path(name).name != name for name in files):
        raise ValueError(f"the artifacts state the files {sorted(stated)}, and given are {sorted(files)}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, data in files.items():
            write_atomically(made / name, data)
        card = _card(candidate).encode()
        write_atomically(made / CARD_FILE, card)
        written = {
            "schema": SCHEMA,
            "card_sha256": hashlib.sha256(card).hexdigest(),
            "candidate": candidate.model_dump(mode="json"),
            "example": None if example is None else orjson.loads(example),
        }
        signature = orjson.dumps(written, option=orjson.OPT_INDENT_2)
        write_atomically(made / SIGNATURE_FILE, signature)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in {**files, CARD_FILE: card}.items()}
        write_atomically(made / SUMS_FILE, _sums(signature, digests))
        made.chmod(0o755)
        _put_in_place(made, folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def read_bundle(folder: Path) -> Candidate:
    """The candidate of a folder, with the digest of every file verified.

    Raises UsageError where the folder is no bundle, IntegrityError (naming the file) where it is a damaged one.
    """
    signed = _signed(folder)
    for name, sha256 in signed.digests.items():
        _verify(folder / name, sha256)
    return signed.candidate


def refuse_altered_bundle(folder: Path, candidate: Candidate) -> None:
    """Raises IntegrityError where a folder is not, to the last file, what was written for `candidate`."""
    if not (folder / SIGNATURE_FILE).is_file():
        raise IntegrityError(f"{folder / SIGNATURE_FILE} is missing, and the run wrote it. Restore it from a copy.")
    if read_bundle(folder) != candidate:
        raise IntegrityError(f"{folder} is not the candidate that was recorded.")
    ours = {SIGNATURE_FILE, CARD_FILE, SUMS_FILE, *(artifact.file for artifact in candidate.artifacts)}
    strangers = sorted(path.name for path in folder.iterdir() if path.name not in ours)
    if strangers:
        raise IntegrityError(f"{folder} holds what the harness did not write: {', '.join(strangers)}. Remove it.")


def read_example(folder: Path) -> bytes | None:
    """A request that the candidate of a folder answers, in JSON; None where it was written without one.

    Raises what `read_bundle` does; files other than `signature.json` are not looked at.
    """
    return _signed(folder).example


def artifact_path(folder: Path, candidate: Candidate, runtime: str) -> Path:
    """The file of a candidate in a runtime.

    Raises NotConvertibleError, with the stored reason, where it has no such form, and UsageError where that runtime was
    not asked for when the candidate was made.
    """
    for artifact in candidate.artifacts:
        if artifact.runtime == runtime:
            if artifact.file is None:
                raise NotConvertibleError(f"Candidate {candidate.id} has no form in {runtime}: {artifact.reason}")
            return folder / artifact.file
    known = ", ".join(artifact.runtime for artifact in candidate.artifacts)
    raise UsageError(
        f"Candidate {candidate.id} was not made for the runtime {runtime!r}; it was for: {known or 'none'}."
    )


def _put_in_place(made: Path, folder: Path) -> None:
    if not folder.exists():
        made.rename(folder)
        return
    # A folder that is not empty cannot be renamed over: the old one steps aside first, and comes back on failure.
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent)) / "old"
    folder.rename(aside)
    try:
        made.rename(folder)
    except BaseException:
        aside.rename(folder)
        raise
    finally:
        shutil.rmtree(aside.parent, ignore_errors=True)


def _signed(folder: Path) -> _Signed:
    """What `signature.json` states, once `SHA256SUMS` has been seen to state the same."""
    path = folder / SIGNATURE_FILE
    try:
        signature = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            f"{folder} is not the folder of a candidate: it has no {SIGNATURE_FILE}. Give one of the folders under "
            "`candidates/` of a finished run."
        ) from error
    try:
        written: dict[str, Any] = orjson.loads(signature)
        schema = written["schema"]
    except (orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise IntegrityError(f"{path} is damaged: it is not the JSON that was written ({error}).") from error
    if schema not in (*_UNSUMMED, SCHEMA):
        raise IntegrityError(
            f"{path} has schema {schema!r}, and this version reads {SCHEMA}: use the harness that wrote it."
        )
    try:
        candidate = Candidate.model_validate_json(orjson.dumps(written.get("candidate")))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise IntegrityError(f"{path} is damaged: {place or 'the candidate'}: {first['msg']}.") from error
    digests = {artifact.file: str(artifact.sha256) for artifact in candidate.artifacts if artifact.file is not None}
    for name in digests:
        if Path(name).name != name:
            raise IntegrityError(f"{path} names a file outside its folder: {name!r}.")
    digests[CARD_FILE] = str(written.get("card_sha256"))
    _refuse_other_sums(folder, schema, _sums(signature, digests))
    example = written.get("example")
    return _Signed(candidate, digests, None if example is None else orjson.dumps(example))


def _sums(signature: bytes, digests: Mapping[str, str]) -> bytes:
    """`SHA256SUMS`, whole: it follows from the bytes of `signature.json`, whichever of the two has lost a bit."""
    every = {**digests, SIGNATURE_FILE: hashlib.sha256(signature).hexdigest()}
    return "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(every.items())).encode()


def _refuse_other_sums(folder: Path, schema: int, sums: bytes) -> None:
    path = folder / SUMS_FILE
    try:
        found = path.read_bytes()
    except FileNotFoundError as error:
        if schema in _UNSUMMED:
            return
        raise IntegrityError(
            f"{path} is missing, and without it {SIGNATURE_FILE} cannot be trusted: copy the whole folder again."
        ) from error
    # Whatever schema is stated: one that a flipped bit has lowered must not switch this off.
    if found != sums:
        raise IntegrityError(
            f"{folder / SIGNATURE_FILE} and {SUMS_FILE} beside it do not agree, so one of them is not what was written."
            " Nothing of this folder will be loaded: restore it from a copy, or export the candidate again."
        )


def _verify(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise IntegrityError(f"{path} is missing, and {SIGNATURE_FILE} states it: export the candidate again.")
    found = sha256_of(path)
    if found != sha256:
        raise IntegrityError(
            f"{path} is not the file that was written: its SHA-256 is {found}, and {SIGNATURE_FILE} states "
            f"{sha256}. It will not be loaded; export the candidate again."
        )


def _card(candidate: Candidate) -> str:
    signature = candidate.signature
    family = candidate.configuration.get("family", "model")
    score = "not cross-validated" if candidate.cv_score is None else f"{candidate.cv_score:.6g} (mean over the folds)"
    lines = [
        f"# Candidate {candidate.id}",
        "",
        f"A fitted {family} pipeline for a {signature.task} task, found by `{candidate.origin}`. It takes raw columns, "
        "holes and all: filling, encoding and scaling are part of it.",
        "",
        f"- cross-validated {candidate.metric}: {score}",
        f"- time to fit: {candidate.fit_s:.3g} s",
        "",
        "## Configuration",
        "",
        "| parameter | value |",
        "|---|---|",
        *(f"| {_cell(name)} | {_cell(value)} |" for name, value in candidate.configuration.items()),
        "",
        "## Signature",
        "",
        "| column | kind |",
        "|---|---|",
        *(f"| {_cell(column.name)} | {column.kind} |" for column in signature.columns),
        "",
    ]
    if signature.classes:
        lines += [f"Answers a label and probabilities, in this order: {', '.join(map(_cell, signature.classes))}.", ""]
    else:
        lines += ["Answers one number per row.", ""]
    lines += [
        "## Runtimes",
        "",
        "| runtime | file | precision | bytes | SHA-256, or why there is none |",
        "|---|---|---|---|---|",
        *(_artifact_row(artifact) for artifact in candidate.artifacts),
        "",
        *(line for artifact in candidate.artifacts if artifact.note for line in (_noted(artifact), "")),
        "## Serving",
        "",
        "```",
        "harness serve PATH/OF/THIS/FOLDER",
        "```",
        "",
        "It then answers `POST /v2/models/NAME/infer` (Open Inference Protocol v2, JSON); `GET /v2/models/NAME` states "
        "the inputs. The digest of every file is verified before one is loaded; `sha256sum -c SHA256SUMS` does it too.",
        "",
    ]
    return "\n".join(lines)


def _artifact_row(artifact: Artifact) -> str:
    if artifact.file is None:
        return f"| {artifact.runtime} | - | - | - | {_cell(artifact.reason)} |"
    precision = artifact.precision or "as fitted"
    return f"| {artifact.runtime} | {artifact.file} | {precision} | {artifact.size_bytes} | `{artifact.sha256}` |"


def _noted(artifact: Artifact) -> str:
    return f"Of {artifact.runtime}: {_cell(artifact.note)}."


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
