"""Random damage to bytes, JSON values and TOML text; the same generator does the same damage."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Iterator
from typing import Any, Final

ESCAPE: Final = "\x1b[31m"

ODD_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 3, 2**31, 2**70, -(2**70), 0.5),
    *(float("nan"), float("inf"), -float("inf")),
    *("", "a", "a\0b", "\ud800", "\udcff", ESCAPE + "red", "[bold red]x[/]", "[/nothing]"),
    *("\u202eabc", "a\nb", "x" * 5000, "..", "../../etc/passwd", "/etc/passwd"),
    *("C:\\windows", "uint8", [], {}, [[]], {"a": {}}, [1, 2, 3], [None] * 3),
    {"bytes": 1, "sha256": "0"},
)
"""JSON values that stand in place of others."""

_ODD_TOML: Final = (
    *("true", "-1", "0", "1e400", "nan", "-inf", "99999999999999999999", "0.5", '""', '"a"'),
    *('"\\u0000"', '"\\u001B[31mred"', "[]", "[[]]", "[1, 2]", '["a", "b"]', "{}", "{a = 1}"),
    *("1979-05-27", "07:32:00", '"../../etc/passwd"', "'''", "[", "=", "\\", "\ufeff"),
)
_ODD_BYTES: Final = (b"\0", b"\xff", b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1")


def digested(values: dict[str, Any]) -> bytes:
    """Return a manifest with a digest that fits its altered values."""
    sealed = {key: value for key, value in values.items() if key != "manifest_sha256"}
    digest = hashlib.sha256(json.dumps(sealed, sort_keys=True).encode()).hexdigest()
    return json.dumps(sealed | {"manifest_sha256": digest}).encode()


def mutated_json(values: Any, source: random.Random) -> Any:
    """Return a copy of JSON values with one to three replaced, dropped, renamed or moved."""
    changed = copy.deepcopy(values)
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        everywhere = list(_places(changed))
        if not everywhere:
            break
        container, key = source.choice(everywhere)
        way = source.randrange(4)
        if way == 0:
            del container[key]
        elif way == 1 and isinstance(container, dict):
            name = source.choice([odd for odd in ODD_VALUES if isinstance(odd, str)])
            container[name] = container.pop(key)
        elif way == 2:
            other, name = source.choice(everywhere)
            if name in other if isinstance(other, dict) else name < len(other):
                container[key] = copy.deepcopy(other[name])
        else:
            container[key] = copy.deepcopy(source.choice(ODD_VALUES))
    return changed


def mutated_toml(text: str, source: random.Random) -> bytes:
    """Return TOML with one to three lines replaced, dropped, repeated or moved, or damaged."""
    lines = text.splitlines()
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        at = source.randrange(len(lines))
        name, equals, _ = lines[at].partition("=")
        way = source.randrange(6)
        if way == 0 and len(lines) > 1:
            del lines[at]
        elif way == 1:
            lines.insert(source.randrange(len(lines)), lines[at])
        elif way == 2:
            lines[at] = lines[at].replace(name.strip() or "x", source.choice(("odd", "", "a.b")))
        elif equals:
            lines[at] = f"{name}= {source.choice(_ODD_TOML)}"
    data = "\n".join(lines).encode(errors="surrogatepass")
    return data if source.randrange(8) else mutated_bytes(data, source)


def mutated_bytes(data: bytes, source: random.Random) -> bytes:
    """Return data with some bytes flipped, overwritten, cut out, repeated, or cut off.

    Half of the damage is to the beginning, where file formats have their headers.
    """
    changed = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 4, 16))):
        if not changed:
            break
        reach = min(len(changed), source.choice((64, 512, len(changed), len(changed))))
        at = source.randrange(reach)
        way = source.randrange(8)
        if way == 0:
            del changed[source.randrange(len(changed)) :]
        elif way == 1:
            del changed[at : at + source.randint(1, 64)]
        elif way == 2:
            changed[at:at] = changed[at : at + source.randint(1, 64)]
        elif way == 3:
            odd = source.choice(_ODD_BYTES)
            changed[at : at + len(odd)] = odd
        elif way == 4:
            changed[at] = source.randrange(256)
        else:
            changed[at] ^= 1 << source.randrange(8)
    return bytes(changed)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (container, key) in JSON values."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])
