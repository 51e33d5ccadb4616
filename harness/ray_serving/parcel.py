"""Parcels: candidates on their way to replicas, whose node shares no disk with the driver.

In: the folders of bundles. Out: `packed`, their files as bytes, which Ray's object store holds while the harness runs;
`application`, which a replica calls: it writes them into a swept folder, has their digests checked and the candidates
loaded, and the folder is gone when they stand. A model is never pickled: what travels is the very files of a bundle.
"""

import contextlib
import importlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import harness
from harness.errors import InfrastructureError
from harness.ports import Servable
from harness.records.server import ServerSettings
from harness.sweeper import swept

Parcel: TypeAlias = dict[str, Any]
"""Of plain values alone, so that whatever harness a node has can say that it is another."""


def packed(servable: Servable) -> Parcel:
    """What replicas need that is here, the token of the clients included, which is nowhere written down on its way."""
    settings = servable.settings
    return {
        "version": harness.__version__,
        "environment": {settings.token_env: settings.token()} if settings.token_env is not None else {},
        "files": {
            name: {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}
            for name, folder in servable.bundles.items()
        },
    }


def in_place(servable: Servable) -> Parcel:
    """The same for replicas on this machine, which read the folders themselves."""
    folders = {name: str(folder) for name, folder in servable.bundles.items()}
    return {"version": harness.__version__, "environment": {}, "folders": folders}


def application(parcel: Parcel, entry: str, runtime: str, settings: str, where: str) -> Any:
    """The ASGI application of a replica; `where` is how messages call its node.

    The parcel also has `address`, where clients ask all replicas, and `replica`, how this one is called.

    Raises InfrastructureError where the node has another harness, and whatever the entry's own application raises.
    """
    # Here, for who packs needs none of what it imports.
    from harness.ray_serving.ingress import stand_before

    if parcel["version"] != harness.__version__:
        raise InfrastructureError(
            f"{where} has harness {harness.__version__}, and this is {parcel['version']}: install the same everywhere."
        )
    os.environ.update(parcel["environment"])
    with _unpacked(parcel) as bundles:
        told = ServerSettings.model_validate_json(settings)
        made = importlib.import_module(entry).application
        return stand_before(made(bundles, runtime, told, parcel["address"], parcel["replica"]))


@contextlib.contextmanager
def _unpacked(parcel: Parcel) -> Iterator[Mapping[str, Path]]:
    if "folders" in parcel:
        yield {name: Path(folder) for name, folder in parcel["folders"].items()}
        return
    with swept("harness-bundle-") as place:
        folders = {}
        for number, (name, files) in enumerate(parcel["files"].items()):
            folders[name] = place / str(number) / name
            folders[name].mkdir(parents=True)
            for file, contents in files.items():
                (folders[name] / file).write_bytes(contents)
        yield folders
