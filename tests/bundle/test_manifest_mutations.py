"""Thousands of altered bundles: whatever is wrong, it is said in the package's own words.

The mutations come with a digest and checksums that fit, as of someone who makes a bundle by hand:
what is tested is what is read after those.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from ikc_deploy import Bundle, BundleError, KernelBasis
from ikc_deploy.bundle.engine_store import MAX_RECORD, read_engines
from ikc_deploy.bundle.manifest import BASIS_FILE, MANIFEST_FILE, MAX_MANIFEST
from ikc_deploy.cli.ikc_inspect import main
from ikc_deploy.errors import IkcError, KernelError
from tests.cli.running import assert_one_clear_line, invoke
from tests.half import half_bundle, write_engine
from tests.sealing import BASIS
from tools.torture.mutations import ESCAPE, digested, mutated_json

MANIFESTS: Final = 1500
ENGINES: Final = 700
BASES: Final = 1500


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle with an engine, small enough to be opened thousands of times."""
    return write_engine(half_bundle(tmp_path / "bundle"), "a").path


def test_every_manifest_is_read_or_refused(folder: Path) -> None:
    path, source = folder / MANIFEST_FILE, random.Random(0)
    original = json.loads(path.read_text())
    opened = 0
    for _ in range(MANIFESTS):
        path.write_bytes(digested(mutated_json(original, source)))
        try:
            bundle = Bundle.open(folder)
            read_engines(bundle)
        except IkcError as error:
            assert str(error).isprintable()
            continue
        opened += 1
        # What is read back is typed to the last entry.
        assert all(name.isprintable() for name in bundle.files)
        assert isinstance(bundle.manifest.tools, dict)
    # Entries that may be anything, and replacements by what was there.
    assert 0 < opened < MANIFESTS / 2


def test_what_is_opened_can_be_shown(folder: Path) -> None:
    path, source = folder / MANIFEST_FILE, random.Random(1)
    original = json.loads(path.read_text())
    for _ in range(60):
        path.write_bytes(digested(mutated_json(original, source)))
        done = invoke(main, folder)
        assert (done.exit_code in (0, 2) and done.exception is None) or done.exit_code == 2
        assert "\x1b" not in done.output


def test_every_engine_record_is_read_or_refused(folder: Path) -> None:
    path, source = folder / "engines" / "a" / "engine.json", random.Random(2)
    original = json.loads(path.read_text())
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    listed = manifest["files"]["engines/a/engine.json"]
    for _ in range(ENGINES):
        data = json.dumps(mutated_json(original, source)).encode()
        path.write_bytes(data)
        listed.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        (folder / MANIFEST_FILE).write_bytes(digested(manifest))
        try:
            (engine,) = read_engines(Bundle.open(folder))
        except IkcError as error:
            assert str(error).isprintable()
        else:
            assert engine.record.fingerprint == "a"
            assert engine.record.version.isprintable()


def test_every_basis_is_read_or_refused() -> None:
    file = io.BytesIO()
    np.savez(
        file,
        components=BASIS.components,
        mean=BASIS.mean,
        sigma_range=np.asarray(BASIS.sigma_range),
    )
    original, source = file.getvalue(), random.Random(3)
    read = 0
    for _ in range(BASES):
        data = bytearray(original)
        for _ in range(source.randint(1, 6)):
            # Headers are where a parser can be led astray; values are covered by a checksum.
            near = source.choice((0, 0, len(data) - 400, 17_800, 19_700))
            place = min(max(near + source.randrange(400), 0), len(data) - 1)
            data[place] = source.randrange(256)
        if source.randrange(4) == 0:
            del data[source.randrange(len(data)) :]
        try:
            KernelBasis.from_bytes(bytes(data), "basis.npz")
        except KernelError as error:
            assert "basis.npz" in str(error)
        else:
            read += 1
    assert read < BASES / 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[" * 100_000, "nested deeper"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested deeper"),
        (b'{"schema": 2, "schema": 2}', "comes twice"),
        (b'{"schema": NaN}', "NaN is not a valid JSON number"),
        (b'{"schema": 1e999}', "too large"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "too large"),
        (b'{"schema": 2, "a": "\\ud800"}', "not valid Unicode"),
        (b'\xff\xfe{"schema": 2}', "decode"),
        (b"[]", "damaged"),
        (b"3", "damaged"),
        (b"", "damaged"),
        (b" " * (MAX_MANIFEST + 1), "more than"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else value,
)
def test_a_manifest_that_is_no_json_of_ours_is_refused(
    folder: Path, text: bytes, words: str
) -> None:
    (folder / MANIFEST_FILE).write_bytes(text)
    with pytest.raises(BundleError, match=words):
        Bundle.open(folder)


def test_an_engine_record_is_bounded_before_it_is_read(folder: Path) -> None:
    data = b" " * (MAX_RECORD + 1)
    (folder / "engines" / "a" / "engine.json").write_bytes(data)
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    sha256 = hashlib.sha256(data).hexdigest()
    manifest["files"]["engines/a/engine.json"] = {"bytes": len(data), "sha256": sha256}
    (folder / MANIFEST_FILE).write_bytes(digested(manifest))
    with pytest.raises(BundleError, match="more than"):
        read_engines(Bundle.open(folder))


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"shape": shape, "fortran_order": False, "descr": descr}
    )
    return file.getvalue()


def archive(**arrays: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as written:
        for name, data in arrays.items():
            written.writestr(f"{name}.npy", data)
    return file.getvalue()


def npy(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


GOOD: Final = {
    "components": npy(BASIS.components),
    "mean": npy(BASIS.mean),
    "sigma_range": npy(np.array(BASIS.sigma_range)),
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # 400 MB of zeros are half a megabyte of file.
        ({"components": header((10_000_000, 10)) + bytes(400_000_000)}, "holds invalid"),
        ({"components": header((441, 10)) + bytes(50_000_000)}, "should hold 17640"),
        ({"mean": header((441,), "|O") + b"cos\nsystem\n."}, "holds invalid"),
        ({"mean": npy(np.full(441, np.nan, np.float32))}, "finite"),
        ({"sigma_range": npy(np.array([0.2, np.inf]))}, "low < high"),
        ({"sigma_range": npy(np.array([np.nan, 4.0]))}, "low < high"),
        ({"components": npy(np.zeros((441, 10), np.float32))}, "orthonormal"),
        ({"components": npy(np.zeros((441, 0), np.float32))}, "component"),
        ({"components": npy(BASIS.components.astype(np.complex64))}, "holds invalid"),
        ({"more": npy(np.zeros(3))}, "no others"),
    ],
    ids=["bomb", "tail", "pickle", "nan", "inf", "nan range", "zero", "empty", "complex", "more"],
)
def test_a_basis_is_judged_by_its_headers(change: dict[str, bytes], words: str) -> None:
    with pytest.raises(KernelError, match=words):
        KernelBasis.from_bytes(archive(**(GOOD | change)), "basis.npz")
    assert KernelBasis.from_bytes(archive(**GOOD), "basis.npz").id == BASIS.id


def test_components_that_decode_to_nothing_are_allowed() -> None:
    wide = np.concatenate([BASIS.components, np.zeros((441, 2), np.float32)], axis=1)
    basis = KernelBasis(wide, BASIS.mean, BASIS.sigma_range)
    code = basis.code_of_sigma(2.0)
    assert code.shape == (12,) and not code[10:].any()
    np.testing.assert_allclose(basis.decode(code), BASIS.decode(code[:10]), atol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["a\0b", "a/../b", "./a", "a//b", "a\\b", "C:a", "\ud800", ESCAPE, "x" * 300, MANIFEST_FILE],
)
def test_a_name_that_is_none_is_refused_in_printable_words(folder: Path, name: str) -> None:
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest["files"][name] = {"bytes": 1, "sha256": "0" * 64}
    (folder / MANIFEST_FILE).write_bytes(digested(manifest))
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["loop", "self", "dangling", "folder", "pipe"])
def test_what_is_no_plain_file_is_refused(folder: Path, kind: str) -> None:
    path = folder / BASIS_FILE
    path.unlink()
    if kind == "loop":
        (folder / "other").symlink_to(path)
        path.symlink_to(folder / "other")
    elif kind == "self":
        path.symlink_to(path)
    elif kind == "dangling":
        path.symlink_to(folder / "nowhere")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(BundleError, match=r"basis\.npz"):
        Bundle.open(folder)


def test_a_manifest_that_is_a_loop_of_links_is_no_bundle(folder: Path) -> None:
    path = folder / MANIFEST_FILE
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(BundleError, match="is not a bundle"):
        Bundle.open(folder)


def test_markup_and_escapes_in_a_manifest_are_text(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest["bundle"]["name"] = "[bold red]x[/nothing]"
    manifest["bundle"]["tools"] = {"[/]": "[link=x]"}
    manifest["bundle"]["convolutions"] = {"predictor": {"[red]": 3}}
    (folder / MANIFEST_FILE).write_bytes(digested(manifest))
    done = invoke(main, folder)
    assert done.exit_code == 0, done.output
    for words in ("[bold red]x[/nothing]", "[/] [link=x]", "3 [red]"):
        assert words in done.stdout
    manifest["bundle"]["name"] = ESCAPE
    (folder / MANIFEST_FILE).write_bytes(digested(manifest))
    assert_one_clear_line(invoke(main, folder), "bundle.name must be printable text")


def test_unlisted_files_are_named_in_printable_words(folder: Path) -> None:
    (folder / f"bad{ESCAPE}\nname").write_bytes(b"x")
    (folder / "engines" / "forged").mkdir()
    (folder / "engines" / "forged" / "sftmd.plan").write_bytes(b"x")
    (folder / ".hidden").write_bytes(b"x")
    assert Bundle.open(folder).unlisted() == [".hidden", f"bad{ESCAPE}\nname", "engines/forged"]
    done = invoke(main, folder)
    assert done.exit_code == 0 and "\x1b" not in done.output
    for words in ("'.hidden'", r"'bad\x1b[31m\nname'", "'engines/forged'"):
        assert f"not part of the bundle: {words}" in done.stdout
    assert len(json.loads(invoke(main, folder, "--json").stdout)["unlisted"]) == 3
