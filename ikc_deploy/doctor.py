"""What works on this machine, what does not, and the command that fixes it.

Nothing here imports torch, TensorRT or CUDA: versions come from package metadata, GPUs from
nvidia-smi. ONNX Runtime lists every execution provider that it was built with, even if libraries or
devices are missing. So each provider, and each device of OpenVINO, runs a tiny model in a separate
process, where a driver may print, hang or crash without effect on the doctor.

    python -m ikc_deploy.doctor                           # that process: the listed providers
    python -m ikc_deploy.doctor CUDAExecutionProvider     # the providers that a session uses
    python -m ikc_deploy.doctor openvino                  # the devices that OpenVINO lists
    python -m ikc_deploy.doctor openvino CPU              # name and capabilities of one that works
    python -m ikc_deploy.doctor auto                      # the backend that "auto" takes, and why
"""

from __future__ import annotations

import base64
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from packaging.requirements import Requirement

from ikc_deploy.benchmarks.machine import installed_version
from ikc_deploy.bundle.gpus import Gpu, find_gpus
from ikc_deploy.bundle.manifest import MANIFEST_FILE
from ikc_deploy.onnx_runtime import FOR_CPUS, FOR_GPUS, distribution
from ikc_deploy.paths import cache_folder
from ikc_deploy.weights import shipped_weights

DISTRIBUTION: Final = "ikc-deploy"

OPENVINO: Final = "openvino"
"""Distribution and module of OpenVINO."""

AUTO: Final = "auto"
"""Value of `load(backend=...)` whose meaning here is examined."""

_NUMBERS: Final = ("FP32", "BF16", "FP16", "INT8")
"""Precisions among the capabilities of OpenVINO's devices."""

BASE: Final = ""
"""Name in place of an extra for the packages that every installation needs."""

COMMANDS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "ikc-upscale": (
        (BASE, ""),
        ("video", "video files"),
        ("window", "a camera in a window"),
        ("ray", "many actors"),
        ("export", "weights not exported yet"),
    ),
    "ikc-export": ((BASE, ""), ("export", "")),
    "ikc-inspect": ((BASE, ""),),
    "ikc-train": ((BASE, ""), ("training", "")),
    "ikc-eval": ((BASE, ""), ("evaluation", ""), ("export", "weights not exported yet")),
    "ikc-prepare": ((BASE, ""),),
    "ikc-bench": ((BASE, ""), ("export", "weights not exported yet")),
    "ikc-import": ((BASE, ""), ("export", "")),
    "ikc-offline": ((BASE, ""), ("offline", "")),
    "ikc-web": ((BASE, ""), ("web", ""), ("export", "weights not exported yet")),
}
"""Extras that every command needs, each with the part of the command that needs it ("" for all)."""

_STAND_INS: Final = {FOR_GPUS: FOR_CPUS, FOR_CPUS: FOR_GPUS}
"""Distributions that contain the same modules as the required one."""

_PROBE_SECONDS: Final = 30.0
"""Maximum time in seconds to try a provider."""

# y = x + x, float32 [1], opset 17: made once with onnx.helper.make_node("Add", ["x", "x"], ["y"]),
# make_graph, make_model(ir_version=8) and SerializeToString, so that probing does not need onnx.
_MODEL: Final = (
    "CAg6NQoOCgF4CgF4EgF5IgNBZGQSAWdaDwoBeBIKCggIARIECgIIAWIPCgF5EgoKCAgBEgQKAggBQgQKABAR"
)

_EXTRA: Final = re.compile(r"\bextra\s*==\s*['\"]([^'\"]+)['\"]")
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
_REASONS: Final = (r"with error: (.+)", r"CUDA failure \d+: ([^;]+)", r"\[E:onnxruntime.*?\] (.+)")
"""Patterns of the reasons in ONNX Runtime's messages why a provider did not load, best first."""


@dataclass(frozen=True)
class Package:
    """A distribution that ikc-deploy or one of its extras requires."""

    name: str
    version: str | None
    """Installed version; None if it is not installed."""
    extras: tuple[str, ...]
    """Extras that require it; `BASE` among them if every installation needs it."""
    requirement: str
    """Requirement for pip."""


@dataclass(frozen=True)
class Provider:
    """An execution provider that ONNX Runtime lists."""

    name: str
    loads: bool
    """Whether a session with it ran a model."""
    reason: str
    """Reason why it does not load; empty if it does."""


@dataclass(frozen=True)
class InferenceDevice:
    """A device that OpenVINO lists."""

    name: str
    loads: bool
    """Whether it ran a model."""
    product: str
    """Name of the product; empty if it does not load."""
    precisions: tuple[str, ...]
    """Precisions that it computes natively."""
    reason: str
    """Reason why it does not load; empty if it does."""


@dataclass(frozen=True)
class ChosenBackend:
    """The backend that "auto" takes for the shipped weights."""

    name: str
    """Name of the backend."""
    device: str
    """Name of its device."""
    precision: str
    """Precision in which it computes, with the reason; empty on GPUs, where the graphs say it."""
    passed: tuple[tuple[str, str], ...]
    """Names of the backends that would have been preferred, each with the reason against it."""


@dataclass(frozen=True)
class Gap:
    """Packages that a command lacks."""

    purpose: str
    """Part of the command that needs them; empty for the whole command."""
    missing: tuple[str, ...]
    """Names of the missing packages."""
    fix: str
    """Shell command that installs them."""


@dataclass(frozen=True)
class Command:
    """One of the project's commands."""

    name: str
    ready: bool
    """Whether the command runs, possibly without some of its parts."""
    gaps: tuple[Gap, ...]
    """Missing packages."""


@dataclass(frozen=True)
class DoctorReport:
    """The result of all checks."""

    usable: bool
    """Whether images can be upscaled on this machine."""
    python: str
    """Version of Python."""
    ikc_deploy: str | None
    """Installed version of ikc-deploy; None in a checkout that was never installed."""
    packages: tuple[Package, ...]
    """Required packages, installed or not."""
    providers: tuple[Provider, ...]
    """Execution providers of ONNX Runtime."""
    openvino: tuple[InferenceDevice, ...]
    """Devices of OpenVINO; empty if it is not installed."""
    backend: ChosenBackend | None
    """Backend that "auto" takes; None if none runs."""
    gpus: tuple[Gpu, ...]
    """NVIDIA GPUs."""
    no_gpu: str
    """Reason why no GPU was found; empty if one was found."""
    weights: tuple[str, ...]
    """Names of the shipped weights."""
    cache: str
    """Folder of the cached bundles."""
    cached: tuple[str, ...]
    """Names of the bundles in the cache folder."""
    commands: tuple[Command, ...]
    """Console commands and the packages that they lack."""
    problems: tuple[str, ...]
    """Problems other than missing packages, each with what to do about it."""


def examine() -> DoctorReport:
    """Run all checks.

    It takes a few seconds, and longer only if a driver or provider does not respond.

    Returns:
        The report.
    """
    packages = required_packages()
    commands = tuple(check_command(name, needs, packages) for name, needs in COMMANDS.items())
    providers, not_started = probe_providers()
    devices, openvino_problems = probe_openvino()
    backend, no_backend = probe_backend()
    gpus, no_gpu = find_gpus()
    cache = cache_folder()
    return DoctorReport(
        usable=commands[0].ready and any(provider.loads for provider in providers),
        python=platform.python_version(),
        ikc_deploy=installed_version(DISTRIBUTION),
        packages=packages,
        providers=providers,
        openvino=devices,
        backend=backend,
        gpus=gpus,
        no_gpu=no_gpu,
        weights=tuple(shipped_weights()),
        cache=str(cache),
        cached=tuple(sorted(path.parent.name for path in cache.glob(f"*/{MANIFEST_FILE}"))),
        commands=commands,
        problems=(*not_started, *openvino_problems, *no_backend, *_problems()),
    )


def required_packages() -> tuple[Package, ...]:
    """Return the packages that ikc-deploy requires on this platform, extras included.

    Returns:
        The packages by name; empty if ikc-deploy is not installed.
    """
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return ()
    return merge_requirements(requirements)


def merge_requirements(requirements: Iterable[str]) -> tuple[Package, ...]:
    """Return the packages of requirements that apply to this platform.

    Args:
        requirements: Values of `Requires-Dist` in package metadata.

    Returns:
        One `Package` for each distribution, sorted by name.
    """
    extras: dict[str, list[str]] = {}
    wanted: dict[str, str] = {}
    for requirement in map(Requirement, requirements):
        name, marker = requirement.name.lower(), requirement.marker
        named = _EXTRA.findall(str(marker)) or [BASE]
        here = [extra for extra in named if marker is None or marker.evaluate({"extra": extra})]
        # The dev extra requires ikc-deploy's own other extras, which are listed anyway.
        if not here or name == DISTRIBUTION:
            continue
        extras.setdefault(name, []).extend(here)
        requirement.marker = None
        wanted.setdefault(name, str(requirement))
    return tuple(
        Package(name, _version(name), tuple(extras[name]), wanted[name]) for name in sorted(extras)
    )


def check_command(
    name: str, needs: Iterable[tuple[str, str]], packages: Iterable[Package]
) -> Command:
    """Return whether a command runs and which packages it lacks.

    Args:
        name: Name of the command.
        needs: Its extras and the parts that need them, as in `COMMANDS`.
        packages: The required packages.

    Returns:
        The command.
    """
    absent = [package for package in packages if package.version is None]
    gaps = []
    for extra, purpose in needs:
        missing = [package for package in absent if extra in package.extras]
        if missing:
            names = tuple(package.name for package in missing)
            gaps.append(Gap(purpose, names, _fix(extra, missing)))
    return Command(name, all(gap.purpose for gap in gaps), tuple(gaps))


def probe_providers() -> tuple[tuple[Provider, ...], tuple[str, ...]]:
    """Try every provider that ONNX Runtime lists.

    Returns:
        The providers, and problems if ONNX Runtime does not start.
    """
    listed, said = _ask_child()
    if not listed:
        return (), (f"ONNX Runtime does not start: {_reason(said)}; run: {_reinstall()}",)
    with ThreadPoolExecutor(max_workers=len(listed)) as pool:
        return tuple(pool.map(probe_provider, listed)), ()


def probe_provider(name: str) -> Provider:
    """Return whether an ONNX Runtime session with this provider runs a model, and if not, why."""
    got, said = _ask_child(name)
    return Provider(name, True, "") if name in got else Provider(name, False, _reason(said))


def probe_openvino() -> tuple[tuple[InferenceDevice, ...], tuple[str, ...]]:
    """Try every device that OpenVINO lists.

    Returns:
        The devices, none if OpenVINO is not installed; and problems if it does not start.
    """
    if installed_version(OPENVINO) is None:
        return (), ()
    listed, said = _ask_child(OPENVINO)
    if not listed:
        fix = f"pip install --force-reinstall {OPENVINO}"
        return (), (f"OpenVINO does not start: {_reason(said)}; run: {fix}",)
    with ThreadPoolExecutor(max_workers=len(listed)) as pool:
        return tuple(pool.map(probe_openvino_device, listed)), ()


def probe_openvino_device(name: str) -> InferenceDevice:
    """Return whether a device of OpenVINO runs a model, and if not, why."""
    got, said = _ask_child(OPENVINO, name)
    if not got:
        return InferenceDevice(name, False, "", (), _reason(said))
    product, *capabilities = got
    return InferenceDevice(
        name, True, product, tuple(each for each in _NUMBERS if each in capabilities), ""
    )


def probe_backend() -> tuple[ChosenBackend | None, tuple[str, ...]]:
    """Open the shipped weights with the backend "auto".

    Returns:
        The backend, and problems if none runs.
    """
    answer, said = _ask_child(AUTO)
    if not answer:
        return None, (f"no backend runs the shipped weights: {_reason(said)}",)
    name, device, precision, *rest = answer
    return ChosenBackend(
        name, device, precision, tuple(zip(rest[::2], rest[1::2], strict=True))
    ), ()


def _ask_child(*arguments: str) -> tuple[list[str], str]:
    """Return the list of texts that a child process prints last, and all of its output."""
    command = [sys.executable, "-m", __name__, *arguments]
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return [], f"no answer within {_PROBE_SECONDS:.0f} seconds"
    if child.returncode < 0:
        return [], f"the process that tried it was killed by signal {-child.returncode}"
    said = f"{child.stdout}\n{child.stderr}"
    if child.returncode > 0:
        return [], said
    # The answer comes last: ONNX Runtime prints to standard output, too.
    answer: list[str] = json.loads(child.stdout.splitlines()[-1])
    return answer, said


def _reason(said: str) -> str:
    plain = _COLOURS.sub("", said)
    for pattern in _REASONS:
        found = re.search(pattern, plain)
        if found:
            return found[1].strip()
    lines = plain.strip().splitlines()
    return lines[-1].strip() if lines else "it printed no reason"


def _answer(arguments: list[str]) -> list[str]:
    if arguments == [AUTO]:
        return _auto()
    return _openvino(arguments[1:]) if arguments[:1] == [OPENVINO] else _onnx_runtime(arguments)


def _auto() -> list[str]:
    """Return name, device and precision of the backend, then names and reasons in turn."""
    from ikc_deploy.export.default_bundle import default_bundle
    from ikc_deploy.runtime.backends import choose_backend

    backend, passed = choose_backend(default_bundle())
    precision = getattr(backend, "precision", "")
    reason = getattr(backend, "explanation", "")
    answer = [backend.name, backend.device, f"{precision} ({reason})" if reason else precision]
    backend.close()
    return [*answer, *(text for pair in passed.items() for text in pair)]


def _openvino(arguments: list[str]) -> list[str]:
    import io

    import numpy as np
    import openvino

    core = openvino.Core()
    if not arguments:
        return list(core.available_devices)
    (device,) = arguments
    model = core.compile_model(core.read_model(io.BytesIO(base64.b64decode(_MODEL))), device)
    (total,) = model({"x": np.ones(1, np.float32)}).values()
    if total != [2]:
        raise SystemExit(f"it computes 1 + 1 = {total[0]}")
    product = str(core.get_property(device, "FULL_DEVICE_NAME"))
    return [product, *core.get_property(device, "OPTIMIZATION_CAPABILITIES")]


def _onnx_runtime(arguments: list[str]) -> list[str]:
    import numpy as np
    import onnxruntime

    if not arguments:
        return list(onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = base64.b64decode(_MODEL)
    session = onnxruntime.InferenceSession(model, options, providers=arguments)
    (total,) = session.run(None, {"x": np.ones(1, np.float32)})
    if total != [2]:
        raise SystemExit(f"it computes 1 + 1 = {total[0]}")
    return list(session.get_providers())


def _version(name: str) -> str | None:
    stand_in = _STAND_INS.get(name)
    return installed_version(name, *([stand_in] if stand_in else []))


def _fix(extra: str, missing: Iterable[Package]) -> str:
    if extra == BASE:
        wanted = " ".join(f"'{package.requirement}'" for package in missing)
        return f"pip install {wanted}"
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def _reinstall() -> str:
    return f"pip install --force-reinstall {distribution()}"


def _problems() -> Iterable[str]:
    if installed_version(DISTRIBUTION) is None:
        yield f"{DISTRIBUTION} is not installed, so its needs are not known; run: pip install ."
    if installed_version(FOR_GPUS) and installed_version(FOR_CPUS):
        yield (
            f"{FOR_GPUS} and {FOR_CPUS} are both installed and overwrite each other's files; run: "
            f"pip uninstall -y {FOR_GPUS} {FOR_CPUS} && pip install {distribution()}"
        )


if __name__ == "__main__":
    print(json.dumps(_answer(sys.argv[1:])))
