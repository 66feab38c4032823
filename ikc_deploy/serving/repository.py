"""Export of a bundle as a model repository for Triton Inference Server.

    DIR/ikc/            independent requests: the correction loop, run on the server
    DIR/ikc_stream/     sequences of requests: each starts from the last code of its stream
    DIR/ikc_GRAPH/      each graph of the bundle's loop: for IKC predictor, sftmd and corrector

The networks are ONNX files, or TensorRT plans if the bundle has engines that Triton loads:
those of the `tensorrt` variant. All settings are in the config.pbtxt files.

Each model folder has a record of its files, CONTENTS_FILE. A model is replaced only if the record
lists all files in its folder, and its config.pbtxt was not edited.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ikc_deploy import arguments, errors, kernels, loops, text
from ikc_deploy.bundle.engine_choice import Host, incompatibility
from ikc_deploy.bundle.engine_store import Engine, read_engines
from ikc_deploy.bundle.manifest import BASIS_FILE, Bundle
from ikc_deploy.errors import InputError, OutputError
from ikc_deploy.files import atomic_folder, check_folder, sha256_file
from ikc_deploy.locks import locked
from ikc_deploy.loops import IKC, Loop
from ikc_deploy.runtime.onnx_files import read_graph
from ikc_deploy.serving import loop
from ikc_deploy.serving.configs import (
    NAME,
    STREAM_NAME,
    Plans,
    ServingSettings,
    loop_config,
    network_config,
)

CONTENTS_FILE: Final = "ikc-files.json"
"""Name of the record of a model's files, with their SHA-256."""

_CONFIG_FILE: Final = "config.pbtxt"
_KIND: Final = "a model as ikc-export --triton wrote it"
_VARIANT: Final = "tensorrt"
_PACKAGE: Final = '"""The part of ikc-deploy that the loop needs on the server."""\n'


def write_repository(
    bundle: Bundle, folder: Path, settings: ServingSettings | None = None
) -> dict[str, Path]:
    """Write the models of a bundle into a model repository: its networks and two loops.

    Each model is replaced as a whole; other models in `folder` are not changed.

    Args:
        bundle: The bundle, with io "uint8".
        folder: The model repository; it is created if it is missing.
        settings: Initial values of the configurations; None for the defaults.

    Returns:
        The folders of the models by name.

    Raises:
        InputError: The bundle has io "float", which does not accept 8-bit frames.
        OutputError: As `check_repository`, before any model is written.
    """
    if bundle.manifest.io != "uint8":
        raise InputError(
            f"'{bundle.path}' takes float tensors, but the server needs 8-bit frames; "
            "export it with: ikc-export --io uint8 --triton DIR"
        )
    settings = settings or ServingSettings()
    engines = triton_engines(bundle)
    plans = _plans(engines)
    check_repository(folder, bundle.loop)
    batch = min(settings.batch, plans.largest_batch) if plans else settings.batch
    models = _models(folder, bundle.loop)
    with locked(folder / NAME):
        check_repository(folder, bundle.loop)
        for network in bundle.loop.graphs:
            with _new_model(models[f"{NAME}_{network}"]) as model:
                _copy_network(bundle, network, engines, model / "1")
                config = network_config(network, bundle.manifest, settings, plans)
                (model / _CONFIG_FILE).write_text(config)
        for name in (NAME, STREAM_NAME):
            with _new_model(models[name]) as model:
                _copy_loop(bundle, model / "1")
                config = loop_config(name, bundle.manifest, settings, batch)
                (model / _CONFIG_FILE).write_text(config)
    return models


def check_repository(folder: Path, loop: Loop = IKC) -> None:
    """Check that writing the models into a repository overwrites no file of the user.

    Args:
        folder: The model repository; it may be missing.
        loop: Loop of the bundle, which has one model for each graph.

    Raises:
        OutputError: The folder of one of the models was not written by this package, has files
            that are not in its record, or an edited config.pbtxt; or it cannot be written.
    """
    for model in _models(folder, loop).values():
        check_folder(model, _listed, _KIND)
        config = model / _CONFIG_FILE
        if config.is_file() and _read_contents(model).get(_CONFIG_FILE) != sha256_file(config):
            raise OutputError(
                f"'{config}' was edited since it was written, and would be lost; move "
                f"'{model.name}' out of '{folder}', or give another folder"
            )


@contextmanager
def _new_model(folder: Path) -> Iterator[Path]:
    with atomic_folder(folder, _listed, _KIND) as model:
        yield model
        files = sorted(path for path in model.rglob("*") if path.is_file())
        contents = {path.relative_to(model).as_posix(): sha256_file(path) for path in files}
        (model / CONTENTS_FILE).write_text(json.dumps({"files": contents}, indent=2) + "\n")


def _listed(folder: Path) -> list[str]:
    return [CONTENTS_FILE, *_read_contents(folder)]


def _read_contents(folder: Path) -> dict[str, str]:
    path = folder / CONTENTS_FILE
    try:
        files = json.loads(path.read_text())["files"]
        return {str(name): str(digest) for name, digest in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OutputError(f"'{path}' cannot be read: {error}") from error


def _models(folder: Path, loop: Loop) -> dict[str, Path]:
    networks = (f"{NAME}_{network}" for network in loop.graphs)
    return {name: folder / name for name in (*networks, NAME, STREAM_NAME)}


def triton_engines(bundle: Bundle) -> dict[str, Engine]:
    """Return the engines that Triton's TensorRT backend loads, by compute capability.

    A server has one version of TensorRT, so only the newest version in the bundle is used. The
    result is empty if the bundle has no such engine.
    """
    found = [each for each in read_engines(bundle) if _is_served(each)]
    newest = max((_version(each) for each in found), default=())
    return {
        capability: engine
        for engine in found
        if _version(engine) == newest
        for capability in engine.record.compute_capabilities
    }


def _is_served(engine: Engine) -> bool:
    record = engine.record
    # A host that matches the engine, so that only engines of other graphs are incompatible.
    host = Host(_VARIANT, record.version, record.compute_capabilities[0], platform=record.platform)
    return record.variant == _VARIANT and not incompatibility(engine, host)


def _version(engine: Engine) -> tuple[int, ...]:
    return tuple(int(part) for part in engine.record.version.split(".") if part.isdigit())


def _plans(engines: Mapping[str, Engine]) -> Plans | None:
    if not engines:
        return None
    profiles = [engine.record.profiles for engine in engines.values()]
    _, height, width = profiles[0][0].opt
    return Plans(
        files={capability: _plan_name(capability) for capability in engines},
        profiles=min(map(len, profiles)),
        largest_batch=min(max(each.max[0] for each in some) for some in profiles),
        warm=(height, width),
    )


def _plan_name(capability: str) -> str:
    return f"model-{capability}.plan"


def _copy_network(
    bundle: Bundle, network: str, engines: Mapping[str, Engine], folder: Path
) -> None:
    folder.mkdir()
    for capability, engine in engines.items():
        (folder / _plan_name(capability)).write_bytes(engine.plan(network))
    if not engines:
        (folder / "model.onnx").write_bytes(read_graph(bundle, network))


def _copy_loop(bundle: Bundle, folder: Path) -> None:
    """Copy model.py and the modules that it imports, so that the server needs only numpy."""
    package = folder / "ikc_deploy"
    (package / "serving").mkdir(parents=True)
    for init in (package, package / "serving"):
        (init / "__init__.py").write_text(_PACKAGE)
    _copy_module(errors.__file__, package)
    _copy_module(arguments.__file__, package)
    _copy_module(text.__file__, package)
    for part in (kernels, loops):
        source = Path(str(part.__file__)).parent
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, package / source.name, ignore=ignored)
    _copy_module(loop.__file__, package / "serving")
    _copy_module(str(Path(loop.__file__).with_name("model.py")), folder)
    (folder / BASIS_FILE).write_bytes(bundle.read(BASIS_FILE))


def _copy_module(file: str | None, folder: Path) -> None:
    source = Path(str(file))
    shutil.copyfile(source, folder / source.name)
