"""A configuration read: recipe (TOML), `--set` over it, or the plain values that a run has stored."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config.decay_budget import spend_decay_budget, without_outdone
from pipeline.config.refusal import refusal, unknown_key
from pipeline.config.schema import RunConfig
from preprocessing.base.command_line import nearest
from preprocessing.base.files import user_text

RECIPES = Path(__file__).parent / "recipes"
EXTENDS = "extends"
LEARNS = "learns_nats"


def as_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as nested plain values (infinite numbers as the string "inf", for strict JSON)."""
    return config.model_dump(mode="json")


def from_dict(values: Mapping[str, Any], where: str) -> RunConfig:
    """A RunConfig from nested plain values; `where` names their origin in errors. ValueError on a bad key or value."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{where}: {refusal(error, RunConfig)}") from error


def changed(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """A copy with other values ({"optim.lr": 0.1}), validated as a whole. ValueError on a bad key or value."""
    plain = as_dict(config)
    for key, value in values.items():
        _put(plain, key, value)
    return from_dict(plain, where=f"with other {', '.join(values)}")


def recipe_names() -> list[str]:
    """The recipes that come with the pipeline."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The recipe called `name` (or the TOML file at that path) under `--set` overrides ("optim.lr=0.1").

    A recipe may extend another: `extends = "base"`, or a path from where it lies itself. Raises ValueError on an unknown
    recipe, key or value, naming the nearest legal one.
    """
    values, where = _read([_path(name)])
    over: dict[str, Any] = {}
    for override in overrides:
        for into in (over, values):
            _apply_override(into, override)
    values, where = _merged(without_outdone(values, over), over), where + " with --set" * bool(overrides)
    spend_decay_budget(values, where)
    return from_dict(values, where)


def learns_nats(name: str) -> float | None:
    """What a recipe says of itself by `learns_nats = 1.7`: its own run ended so far below the unigram entropy on the [MASK]
    positions of held-out text. None if it says nothing; what it extends does not speak for it. ValueError as of load_recipe."""
    path = _path(name)
    return _table(path, f"recipe {path.name}").get(LEARNS)


def _path(name: str) -> Path:
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        raise ValueError(f"no recipe {name!r}: {nearest(name, recipe_names())}, or the path of a .toml file")
    return path


def _read(files: Sequence[Path]) -> tuple[dict[str, Any], str]:
    """The values of the last of `files`, each of which extends the next, over those of the recipe that it extends itself; and
    the name that errors give to them."""
    path, where = files[-1], "recipe " + " extends ".join(file.name for file in files)
    values = _table(path, where)
    values.pop(LEARNS, None)
    if EXTENDS not in values:
        return values, where
    name = values.pop(EXTENDS)
    if not isinstance(name, str):
        raise ValueError(f"{where}: {EXTENDS} = {name!r}, expected the name of a recipe, or the path of a .toml file")
    parent = path.parent / name if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not parent.is_file():
        raise ValueError(
            f"{where}: {EXTENDS} = {name!r}: no such recipe; {nearest(name, recipe_names())}, or the path of a .toml file"
        )
    if parent.resolve() in [file.resolve() for file in files]:
        raise ValueError(f"{where}: {EXTENDS} = {name!r}: a circle; one of them has to stand on its own")
    inherited, where = _read([*files, parent])
    return _merged(without_outdone(inherited, values), values), where


def _table(path: Path, where: str) -> dict[str, Any]:
    """What one file says, its sections not yet validated."""
    try:
        values = tomllib.loads(user_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from error
    legal = [*RunConfig.model_fields, EXTENDS, LEARNS]
    for key in values:
        if key not in legal:
            raise ValueError(f"{where}: {unknown_key([key], legal)}")
    learns = values.get(LEARNS, 0.0)
    if isinstance(learns, bool) or not isinstance(learns, int | float) or not math.isfinite(learns):
        raise ValueError(f"{where}: {LEARNS} = {learns!r}, expected nats, a number")
    return values


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both tables in one, key by key; where both have a value, it is that of `above`."""
    both = {key: _merged(below[key], above[key]) for key in below.keys() & above.keys() if _are_tables(below[key], above[key])}
    return {**below, **above, **both}


def _are_tables(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)


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
    try:
        _put(values, key.strip(), value)
    except ValueError as error:
        raise ValueError(f"--set {override}: {error}") from error


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a dotted key in nested sections."""
    *sections, leaf = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ValueError(f"{section} is a value, not a section")
    values[leaf] = value
