"""How degrees of homogeneity are said, and those of torch's own operations.

Degree k in the parameters x: out(c·x) = c^k·out(x) for c > 0 (paper section 3, table of degrees). Every operation's rule stands
beside it: a module has a method `degrees(name, degree)` next to its forward, which gives the Rows of what it does to an input
of that degree; a function that a module is handed (an attention) is marked with `has_degree`. What torch brings is here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

F = TypeVar("F", bound=Callable[..., Tensor])


@dataclass(frozen=True)
class Row:
    """One operation: its module (or the attribute that names it), what it is, the degrees, and what is wrong, if anything."""

    name: str
    what: str
    degree_in: int
    degree_out: int
    problem: str | None = None


@dataclass(frozen=True)
class Rule:
    """Of a function: what the table calls it, and whether f(c·x) = c^k·f(x) for some k; if not, it bears only degree 0."""

    what: str
    is_homogeneous: bool


RULES_OF_TORCH = {
    torch.relu: Rule("ReLU", True),
    functional.relu: Rule("ReLU", True),
    functional.gelu: Rule("GeLU", False),
}


def has_degree(what: str, *, is_homogeneous: bool) -> Callable[[F], F]:
    """A decorator that declares a function's Rule beside it."""

    def declare(function: F) -> F:
        function.degree_rule = Rule(what, is_homogeneous)  # type: ignore[attr-defined]
        return function

    return declare


def function_row(name: str, function: Callable[..., Tensor], degree_in: int, degree_out: int) -> Row:
    """The row of a function at the input degree `degree_in`, `degree_out` as if it were homogeneous; one without a Rule, or
    whose rule that input breaks, is a problem."""
    rule = getattr(function, "degree_rule", None) or RULES_OF_TORCH.get(function)
    if rule is None:
        what = getattr(function, "__name__", type(function).__name__)
        return Row(name, what, degree_in, degree_out, f"{name} is {what}, whose degree is not known")
    wrong = None if rule.is_homogeneous or not degree_in else f"{name} is {rule.what} of degree {degree_in}: not homogeneous"
    return Row(name, rule.what, degree_in, degree_out, wrong)


def module_rows(name: str, module: nn.Module, degree: int) -> list[Row]:
    """The rows of a module at the input degree `degree`: by its own `degrees`, or by the rules of torch's modules."""
    own: Any = getattr(module, "degrees", None)
    if own is not None:
        rows: list[Row] = own(name, degree)
        return rows
    if isinstance(module, nn.Sequential):
        rows = []
        for part, child in module.named_children():
            rows += module_rows(f"{name}.{part}", child, rows[-1].degree_out if rows else degree)
        return rows
    return [_torch_row(name, module, degree)]


def _torch_row(name: str, module: nn.Module, degree: int) -> Row:
    """Products with a parameter raise the degree by one; what is added must have the degree of what it is added to."""
    if isinstance(module, nn.Embedding):
        return Row(name, "embedding", degree, degree + 1)
    if isinstance(module, nn.Linear):
        out, bias = degree + 1, module.bias is not None
        wrong = f"{name}.bias adds degree 1 to a stream of degree {out}" if bias and out != 1 else None
        return Row(name, "linear with bias" if bias else "linear", degree, out, wrong)
    if isinstance(module, nn.LayerNorm):
        wrong = f"{name} adds an eps of {module.eps:g} to a variance of degree {2 * degree}" if module.eps and degree else None
        what, out = ("LayerNorm with affine", 1) if module.elementwise_affine else ("LayerNorm without affine", 0)
        return Row(name, what, degree, out, wrong)
    if isinstance(module, nn.Identity):
        return Row(name, "identity", degree, degree)
    kind = type(module).__name__
    return Row(name, kind, degree, degree, f"{name} is {kind}, whose degree is not known")
