"""Addition of an engine to a bundle, which is also the cache of its engines.

The name of an engine's folder is a fingerprint of everything that its plans depend on, so an engine
is built only if the bundle has none with its fingerprint.
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
from ikc_deploy.bundle.file_records import record_files
from ikc_deploy.bundle.manifest import Bundle, write_manifest
from ikc_deploy.engines.builder import FLAGS, BuildProgress, BuiltPlan, build_plan
from ikc_deploy.engines.targets import Target
from ikc_deploy.engines.toolchain import Toolchain
from ikc_deploy.errors import EngineError
from ikc_deploy.locks import locked

FINGERPRINT_LENGTH: Final = 16
"""Number of hex digits of the sha256 in the name of an engine's folder."""


def add_engine(
    folder: str | PathLike[str],
    toolchain: Toolchain,
    target: Target,
    report: BuildProgress = lambda *_: None,
) -> tuple[Engine, bool]:
    """Return the engine for `target` in a bundle; build and add it if it is missing.

    If several processes add the same engine at once, one builds it and the others wait. The bundle
    is not changed before all plans are built.

    Args:
        folder: Folder of the bundle.
        toolchain: Variant of TensorRT and its compute capabilities.
        target: Settings of the build.
        report: Called during the build.

    Returns:
        The engine, and whether it was built.

    Raises:
        BundleError: The bundle is missing or damaged.
        OutputError: The folder holds files that the bundle does not list.
        EngineError: TensorRT rejects a graph or a setting, or a layer has the wrong precision.
    """
    with locked(folder):
        bundle = Bundle.open(folder)
        check_bundle_folder(folder)
        name = fingerprint(bundle, toolchain, target)
        found = _find(bundle, name)
        if found is not None:
            return found, False
        plans = {
            graph: build_plan(bundle, graph, toolchain, target, report)
            for graph in bundle.loop.graphs
        }
        record = _record(bundle, name, toolchain, target, plans)
        with changed_bundle(folder) as (now, changed):
            # A build takes minutes, in which the bundle may have been changed.
            if now.files != bundle.files:
                raise EngineError(
                    f"'{folder}' was changed while its engines were built; run the command again"
                )
            engine = changed / ENGINES_FOLDER / name
            engine.mkdir(parents=True)
            for graph, plan in plans.items():
                (engine / f"{graph}.plan").write_bytes(plan.data)
            write_record(engine, record)
            # The manifest must list only files that were verified or just written.
            added_files = record_files(changed, engine_files(name, bundle.loop))
            write_manifest(changed, now.manifest, {**now.files, **added_files})
        added = _find(Bundle.open(folder), name)
    if added is None:
        raise EngineError(f"the engine {name} is missing from '{folder}' after it was added")
    return added, True


def fingerprint(bundle: Bundle, toolchain: Toolchain, target: Target) -> str:
    """Return the name of the engine that this build produces; equal inputs have equal names."""
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
    return {graph: bundle.files[f"{graph}.onnx"].sha256 for graph in bundle.loop.graphs}


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
