"""What pydantic found wrong with a configuration, in one line: the key, the value, what is expected or the nearest name."""

from collections.abc import Iterable
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from preprocessing.base.command_line import nearest


def refusal(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing that is wrong with values for `model`; an unknown key before all others."""
    details = error.errors(include_url=False)
    return _line(min(details, key=lambda detail: detail["type"] != "extra_forbidden"), model)


def unknown_key(keys: Iterable[str], legal: Iterable[str]) -> str:
    """The refusal of the last of `keys`, which lead to it from the top, with the names that are legal in its place."""
    keys = list(keys)
    return f"unknown key {'.'.join(keys)!r}; {nearest(keys[-1], legal)}"


def _line(detail: ErrorDetails, model: type[BaseModel]) -> str:
    keys, value, kind = [part for part in detail["loc"] if isinstance(part, str)], detail["input"], detail["type"]
    if kind == "extra_forbidden":
        return unknown_key(keys, _hint(keys[:-1], model).model_fields)
    key, hint = ".".join(keys), _hint(keys, model)
    if kind == "model_type":
        return f"{key or 'the configuration'} is a section of keys, got {value!r}"
    if kind == "value_error" and isinstance(hint, type) and issubclass(hint, BaseModel):
        return str(detail["ctx"]["error"])  # a rule about several keys names them itself
    if kind == "literal_error":
        return f"{key} = {value!r}; {nearest(str(value), map(str, get_args(hint)))}"
    limit = _limit(kind, detail.get("ctx", {}))
    if limit:
        return f"{key} = {value!r}: {limit}"
    if len(keys) < len(detail["loc"]) and kind != "missing":  # what is wrong is not the list, but one of its elements
        hint = get_args(hint)[0]
    return f"{key} = {value!r}, expected {_name(hint)}"


def _limit(kind: str, context: dict[str, Any]) -> str | None:
    """What is expected of a value of the right type; None if it was not of the right type."""
    match kind:
        case "greater_than":
            return f"expected a number above {context['gt']:g}" if context["gt"] else "expected a number above zero"
        case "greater_than_equal":
            return f"at least {context['ge']:g}" if context["ge"] else "expected a number not below zero"
        case "less_than_equal":
            return f"expected at most {context['le']:g}"
        case "less_than":
            return f"expected a number below {context['lt']:g}"
        case "finite_number":
            return "expected a finite number"
        case "value_error":
            return str(context["error"])
    return None


def _hint(keys: Iterable[str], model: type[BaseModel]) -> Any:
    """The type of what these keys lead to."""
    hint: Any = model
    for key in keys:
        hint = hint.model_fields[key].annotation
    return hint


def _name(hint: Any) -> str:
    """float, tuple[float, ...]: a type as Python writes it, without its constraints."""
    if hint is Ellipsis:
        return "..."
    if get_origin(hint) is Annotated:
        return _name(get_args(hint)[0])
    inner = ", ".join(map(_name, get_args(hint)))
    return f"{hint.__name__}[{inner}]" if inner else str(hint.__name__)
