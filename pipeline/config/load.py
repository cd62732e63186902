"""A configuration read: recipe (TOML), `--set` over it, or the plain values that a run has stored."""

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline.config.schema import RunConfig
from preprocessing.base.command_line import nearest

RECIPES = Path(__file__).parent / "recipes"


def as_dict(config: Any) -> dict[str, Any]:
    """The configuration as nested plain values (infinite numbers as the string "inf", for strict JSON)."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        return "inf" if isinstance(value, float) and math.isinf(value) else value

    result = plain(config)
    assert isinstance(result, dict)
    return result


def from_dict(values: Mapping[str, Any], where: str) -> RunConfig:
    """A RunConfig from nested plain values; `where` names their origin in errors. ValueError on a bad key or value."""
    built = _build(RunConfig, values, where, prefix="")
    assert isinstance(built, RunConfig)
    return built


def recipe_names() -> list[str]:
    """The recipes that come with the pipeline."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The recipe called `name` (or the TOML file at that path) under `--set` overrides ("optim.lr=0.1").

    Raises ValueError on an unknown recipe, key or value, naming the nearest legal one.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        raise ValueError(f"no recipe {name!r}: {nearest(name, recipe_names())}, or the path of a .toml file")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from error
    for override in overrides:
        _apply_override(values, override)
    return from_dict(values, where=f"recipe {path.name}" + (" with --set" if overrides else ""))


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"--set {override}: expected section.key=value, for example --set optim.lr=0.1")
    if "\n" in text:
        raise ValueError(f"--set {override!r}: one value on one line")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # an unquoted string
    *sections, leaf = key.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ValueError(f"--set {override}: {section} is a value, not a section")
    values[leaf] = value


def _build(cls: type, values: Any, where: str, prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: {prefix.rstrip('.')} is a section of keys, got {values!r}")
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise ValueError(f"{where}: unknown key {prefix + key!r}; {nearest(key, hints)}")
    return cls(**{key: _convert(hints[key], value, where, prefix + key) for key, value in values.items()})


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, where, prefix=key + ".")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in arguments:
            return value
        raise ValueError(f"{where}: {key} = {value!r}; {nearest(str(value), map(str, arguments))}")
    if origin is tuple:
        if isinstance(value, (list, tuple)) and (arguments[-1] is Ellipsis or len(value) == len(arguments)):
            return tuple(_convert(arguments[0], v, where, key) for v in value)
    elif hint is float and value == "inf":
        return math.inf
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    elif (hint is float and isinstance(value, float)) or (
        isinstance(hint, type) and type(value) is hint
    ):  # nan and inf have their own refusals
        return value
    expected = hint.__name__ if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) else str(hint)
    raise ValueError(f"{where}: {key} = {value!r}, expected {expected}")
