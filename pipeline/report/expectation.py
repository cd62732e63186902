"""What a run of this recipe is to learn, by the recipe's own account."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.load import as_dict, from_dict, learns_nats, load_recipe
from pipeline.report.recorded_run import Run

FAR_NATS = 0.3  # seeds differ by 0.1, the held-out texts of other corpora by a little more


@dataclass(frozen=True)
class Expectation:
    """`nats`: so far below the unigram entropy the recipe's own run ended on [MASK]; `short`: by so much more than this one, if
    that is far, else None."""

    nats: float
    short: float | None


def expectation(run: Run, learned: float) -> Expectation | None:
    """Beside `learned`, the same of this run. None if the recipe says nothing, or if this run is of other settings, or of a
    recipe that is no longer there."""
    recipe = run.summary.get("recipe") or run.made_from.get("recipe")
    if not isinstance(recipe, str):
        return None
    try:
        nats, own = learns_nats(recipe), as_dict(load_recipe(recipe))
        config = as_dict(from_dict(run.config, where=run.name))
    except ValueError:
        return None
    if nats is None or _what_is_learned(own) != _what_is_learned(config):
        return None
    return Expectation(nats, nats - learned if nats - learned > FAR_NATS else None)


def _what_is_learned(config: Mapping[str, Any]) -> list[Any]:
    """The settings that decide it, the seed apart."""
    parts = [config[section] for section in ("model", "data", "optim", "head_optim")]
    return [*parts, config["batch"]["global_sequences"], config["train"]["steps"]]
