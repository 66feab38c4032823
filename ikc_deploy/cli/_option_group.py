"""Options of a command from the fields of a dataclass: `option_group`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, cast, get_args, get_origin

import click
from click.core import ParameterSource

from ikc_deploy.cli._command import OptionWithHeading
from ikc_deploy.cli._value_types import PATH, FiniteNumber, FiniteRange, WholeNumber, WholeRange
from ikc_deploy.errors import InputError
from ikc_deploy.option_fields import Option, OptionField, nested_options, option_fields

_Command = TypeVar("_Command", bound=Callable[..., Any])
_NOTHING: Final[Mapping[str, Any]] = {}


def option_group(
    kind: type,
    parameter: str | None,
    *,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
    types: Mapping[str, Any] = _NOTHING,
    defaults: Mapping[str, Any] = _NOTHING,
    words: Mapping[str, str] = _NOTHING,
) -> Callable[[_Command], _Command]:
    """Return a decorator that adds the options of a dataclass to a command.

    Names, types, defaults, ranges and help are those of the fields with an
    `ikc_deploy.option_fields.Option`; fields that are such dataclasses themselves add theirs. Apply
    it inside `reports_errors`: the dataclass may raise `InputError`.

    Args:
        kind: The dataclass.
        parameter: Parameter of the command that gets an instance of `kind`. None passes each value
            as a parameter of its own.
        only: Names of the fields to add; None for all.
        without: Names of fields to leave out.
        types: Types by field, for values that have a written form of their own.
        defaults: Defaults by field, where those of the command differ.
        words: Defaults in words by field, where those of the command differ.

    Returns:
        The decorator.
    """
    chosen = [
        field
        for field in _all_fields(kind)
        if (only is None or field.name in only) and field.name not in without
    ]

    def decorate(command: _Command) -> _Command:
        @wraps(command)
        def gathered(*args: Any, **kwargs: Any) -> Any:
            values = {field.name: _taken(field, kwargs) for field in chosen}
            kwargs |= values if parameter is None else {parameter: _instance(kind, values)}
            return command(*args, **kwargs)

        decorated: Callable[..., Any] = gathered
        for field in reversed(chosen):
            for option in _options(field, types, defaults, words):
                decorated = option(decorated)
        return cast("_Command", decorated)

    return decorate


def given_options(kind: type, without: Collection[str] = ()) -> list[str]:
    """Return the options of a dataclass that the current command line gives, by their names."""
    names = {
        name
        for field in _all_fields(kind)
        if field.name not in without
        for name in _parameters(field)
    }
    return [each.opts[0] for each in _given() if each.name in names]


def given_values(kind: type) -> dict[str, Any]:
    """Return the values that the current command line gives to options of a dataclass, by field."""
    given, values = {each.name for each in _given()}, click.get_current_context().params
    return {
        field.name: _value(field, values)
        for field in _all_fields(kind)
        if given.intersection(_parameters(field))
    }


def _given() -> Iterator[click.Parameter]:
    """Yield the parameters that the current command line gives."""
    ctx = click.get_current_context()
    for each in ctx.command.params:
        if ctx.get_parameter_source(each.name or "") not in (ParameterSource.DEFAULT, None):
            yield each


def _all_fields(kind: type) -> Iterator[OptionField]:
    """Yield the options of a dataclass, and those of nested ones at their place."""
    mine, nested = option_fields(kind), nested_options(kind)
    for field in fields(kind):
        if field.name in mine:
            yield mine[field.name]
        elif field.name in nested:
            yield from _all_fields(nested[field.name])


def _instance(kind: type, values: Mapping[str, Any]) -> Any:
    mine = {name: values[name] for name in option_fields(kind) if name in values}
    nested = {name: _instance(each, values) for name, each in nested_options(kind).items()}
    return kind(**mine, **nested)


def _parameters(field: OptionField) -> dict[str, str]:
    """Return the values of a field's switches by click parameter; one parameter without them."""
    if not field.option.switches:
        return {field.name: ""}
    return {f"{field.name}_{value}": value for value, _ in field.option.switches}


def _taken(field: OptionField, kwargs: dict[str, Any]) -> Any:
    """Remove the parameters of a field from `kwargs` and return the field's value."""
    return _value(field, {name: kwargs.pop(name) for name in _parameters(field)})


def _value(field: OptionField, values: Mapping[str, Any]) -> Any:
    if not field.option.switches:
        return values[field.name]
    on = [value for name, value in _parameters(field).items() if values[name]]
    if len(on) > 1:
        raise InputError(f"give only one of {' and '.join(f'--{value}' for value in on)}")
    return on[0] if on else field.default


def _options(
    field: OptionField,
    types: Mapping[str, Any],
    defaults: Mapping[str, Any],
    words: Mapping[str, str],
) -> Iterator[Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """Yield the decorators of a field, the last option first."""
    if not field.option.switches:
        yield _option(field, types, defaults, words)
        return
    parameters = reversed(_parameters(field).items())
    for (name, value), (_, text) in zip(parameters, reversed(field.option.switches), strict=True):
        default = "  [default]" if value == field.default else ""
        settings: Any = {"is_flag": True, "default": False, "help": text + default}
        settings |= {"cls": OptionWithHeading, "heading": field.option.heading}
        yield click.option(f"--{value}", name, **settings)


def _option(
    field: OptionField,
    types: Mapping[str, Any],
    defaults: Mapping[str, Any],
    own_words: Mapping[str, str],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    option, name = field.option, field.name
    default = defaults.get(name, field.default)
    flags = list(option.flags) or [f"--{name.replace('_', '-')}"]
    settings: dict[str, Any] = {"cls": OptionWithHeading, "heading": option.heading}
    if field.kind is bool:
        settings["is_flag"] = True
        flags = [f"{flags[0]}/--no-{flags[0][2:]}"] if default else flags
    else:
        settings["type"] = types[name] if name in types else _type(field)
        settings["multiple"] = Ellipsis in get_args(field.kind)
    words = option.default
    if name in defaults or (not words and field.kind is not bool):
        words = _written(default)
    words = own_words.get(name, words)
    notes = [f"default: {words}"] if words else []
    notes += ["repeatable"] if settings.get("multiple") else []
    settings["help"] = option.help + (f"  [{'; '.join(notes)}]" if notes else "")
    if option.metavar is not None:
        settings["metavar"] = option.metavar
    if option.alone is not None:
        settings |= {"is_flag": False, "flag_value": option.alone}
    if default is MISSING:
        settings["required"] = True
    else:
        settings["default"] = default
    return click.option(*flags, name, **settings)


def _type(field: OptionField) -> Any:
    """Return click's type for the values of a field."""
    kind, low, high = field.kind, field.option.minimum, field.option.maximum
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if kind is int:
        if low is high is None:
            return WholeNumber()
        return WholeRange(None if low is None else int(low), None if high is None else int(high))
    if kind is float:
        if field.option.positive:
            return FiniteRange(0, high, min_open=True)
        return FiniteNumber() if low is high is None else FiniteRange(low, high)
    if kind is Path:
        return PATH
    if kind is str:
        return str
    raise TypeError(f"{field.name}: no option type for {kind}; give one in `types`")


def _written(default: Any) -> str:
    if default in (None, MISSING, ()):
        return ""
    if isinstance(default, tuple):
        return ", ".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


@dataclass(frozen=True)
class ReportFormat:
    """The format of a report on standard output."""

    as_json: Annotated[bool, Option("Print the results as JSON.", flags=("--json",))] = False


json_option: Final = option_group(ReportFormat, None)
"""Decorator that adds `--json` to a command, as its parameter `as_json`."""
