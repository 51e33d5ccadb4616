"""A candidate's form in every runtime: made from the fitted pipeline, and loaded again from its bundle.

In: a pipeline with its signature, or the folder of a bundle. Out: the files that a bundle holds, with an `Artifact` for
each runtime that is installed; or a predictor, its files' digests verified first. `refuse_another_minor` loads nothing.
"""

import hashlib
from importlib.metadata import version
from pathlib import Path

from harness.errors import IntegrityError, NotConvertibleError, one_line
from harness.plugins import installed, plugin
from harness.ports import Predictor, Runtime, SklearnPipeline
from harness.records.candidate import Artifact, Candidate, Signature
from harness.records.rows import Batch
from harness.store.bundle import artifact_path, read_bundle


def exported(
    pipeline: SklearnPipeline, signature: Signature, sample: Batch
) -> tuple[dict[str, bytes], tuple[Artifact, ...]]:
    """The files of a fitted pipeline by name, and what they are; of a runtime that has no such form, the reason.

    `sample` is rows on which a runtime may compare itself with the pipeline.
    """
    files: dict[str, bytes] = {}
    artifacts = []
    for name in installed("runtimes"):
        runtime: Runtime = plugin("runtimes", name)
        try:
            form = runtime.export(pipeline, signature, sample)
        except NotConvertibleError as error:
            artifacts.append(Artifact(runtime=name, reason=str(error)))
            continue
        except Exception as error:  # a runtime is a plug-in, and one that breaks must not cost the others
            reason = f"its export raised {type(error).__name__}: {one_line(error)}"
            artifacts.append(Artifact(runtime=name, reason=reason))
            continue
        files[runtime.artifact] = form.data
        made_with = {library: version(library) for library in runtime.same_minor}
        artifacts.append(
            Artifact(
                runtime=name,
                file=runtime.artifact,
                sha256=hashlib.sha256(form.data).hexdigest(),
                size_bytes=len(form.data),
                made_with=made_with,
                precision=form.precision,
                note=form.note,
            )
        )
    return files, tuple(artifacts)


def loaded(bundle: Path, runtime: str) -> tuple[Candidate, Predictor]:
    """The candidate in a bundle, and what computes its answers in this process.

    Raises UsageError where the folder is no bundle; IntegrityError where a file is not what was written, or another
    version of its library wrote it; NotConvertibleError, with the reason, where it has no form in this runtime.
    """
    candidate = read_bundle(bundle)
    artifact = artifact_path(bundle, candidate, runtime)
    made: Runtime = plugin("runtimes", runtime)
    refuse_another_minor(bundle, candidate, runtime)
    return candidate, made.load(artifact, candidate.signature)


def refuse_another_minor(bundle: Path, candidate: Candidate, runtime: str) -> None:
    """Raises IntegrityError where another version of its library wrote the file that a runtime would load."""
    (artifact,) = (one for one in candidate.artifacts if one.runtime == runtime)
    for library, wrote in artifact.made_with.items():
        here = version(library)
        if here.split(".")[:2] != wrote.split(".")[:2]:
            raise IntegrityError(
                f"{bundle / str(artifact.file)} was written by {library} {wrote}, and here is {here}, which may read "
                f"it as another model: use {library} {wrote}, another runtime, or export the candidate again."
            )
