"""Adding an engine to a bundle: built once for equal inputs, whole or not at all, then sealed.

The bundle itself is the cache. An engine's folder is named by a fingerprint of everything that its
plans depend on, so an engine that is there already is the one that a build would give.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from os import PathLike
from typing import Final

from ikc_deploy.bundle.bundle_writer import changed_bundle, check_bundle_folder
from ikc_deploy.bundle.engine_store import (
    ENGINES_FOLDER,
    Engine,
    EngineRecord,
    engine_files,
    read_engines,
    this_platform,
    write_record,
)
from ikc_deploy.bundle.manifest import GRAPHS, Bundle, record_files, write_manifest
from ikc_deploy.engines.builder import FLAGS, BuildProgress, BuiltPlan, build_plan
from ikc_deploy.engines.targets import Target
from ikc_deploy.engines.toolchain import Toolchain
from ikc_deploy.errors import EngineError
from ikc_deploy.locks import locked

FINGERPRINT_LENGTH: Final = 16
"""Hex digits of the sha256 that name an engine's folder."""


def add_engine(
    folder: str | PathLike[str],
    toolchain: Toolchain,
    target: Target,
    report: BuildProgress = lambda *_: None,
) -> tuple[Engine, bool]:
    """The engine for `target` in the bundle `folder`, and whether it had to be built.

    Of several processes that add the same engine at once, one builds and the others wait and find
    it. Until all plans are there, the bundle is as it was. Raises `BundleError` if the bundle does
    not open, `OutputError` if it holds files that it does not list, `EngineError` if TensorRT or
    the layer precision refuses a graph.
    """
    with locked(folder):
        bundle = Bundle.open(folder)
        check_bundle_folder(folder)
        name = fingerprint(bundle, toolchain, target)
        found = _find(bundle, name)
        if found is not None:
            return found, False
        plans = {graph: build_plan(bundle, graph, toolchain, target, report) for graph in GRAPHS}
        record = _record(bundle, name, toolchain, target, plans)
        with changed_bundle(folder) as (now, changed):
            # Building takes a while: only what still is what was built from may be sealed again.
            if now.files != bundle.files:
                raise EngineError(
                    f"'{folder}' was changed while its engines were built; run it again"
                )
            engine = changed / ENGINES_FOLDER / name
            engine.mkdir(parents=True)
            for graph, plan in plans.items():
                (engine / f"{graph}.plan").write_bytes(plan.data)
            write_record(engine, record)
            # What was verified and what was just written: nothing else that lies in the folder.
            added_files = record_files(changed, engine_files(name))
            write_manifest(changed, now.manifest, {**now.files, **added_files})
        added = _find(Bundle.open(folder), name)
    if added is None:
        raise EngineError(f"the engine {name} is missing from '{folder}' after it was added")
    return added, True


def fingerprint(bundle: Bundle, toolchain: Toolchain, target: Target) -> str:
    """The name of the engine that this build gives: equal inputs, equal name."""
    inputs = {
        "graphs": _graphs(bundle),
        "variant": toolchain.name,
        "version": toolchain.library.version,
        "platform": this_platform(),
        "compute_capabilities": toolchain.compute_capabilities,
        "profiles": [asdict(profile) for profile in target.profiles],
        "workspace_mib": target.workspace_mib,
        "builder_level": target.builder_level,
        "flags": FLAGS,
    }
    content = json.dumps(inputs, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:FINGERPRINT_LENGTH]


def _find(bundle: Bundle, name: str) -> Engine | None:
    return next((e for e in read_engines(bundle) if e.record.fingerprint == name), None)


def _graphs(bundle: Bundle) -> dict[str, str]:
    return {graph: bundle.files[f"{graph}.onnx"].sha256 for graph in GRAPHS}


def _record(
    bundle: Bundle, name: str, toolchain: Toolchain, target: Target, plans: dict[str, BuiltPlan]
) -> EngineRecord:
    return EngineRecord(
        fingerprint=name,
        variant=toolchain.name,
        version=toolchain.library.version,
        platform=this_platform(),
        compute_capabilities=toolchain.compute_capabilities,
        profiles=target.profiles,
        workspace_mib=target.workspace_mib,
        builder_level=target.builder_level,
        graphs=_graphs(bundle),
        layer_precision={graph: plan.layer_precision for graph, plan in plans.items()},
    )
