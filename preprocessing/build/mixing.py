"""How often an epoch of training reads each source."""

from collections.abc import Mapping


def epochs(train_tokens: Mapping[str, int], times: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """Source -> readings in an epoch: `times` of it (1 unless named), or what `weights` come to, if there are any.

    Weights are shares of the tokens read. They are met with every source read at least once: the one that needs the fewest
    readings is read exactly once. ValueError: a weighted source without tokens in the train split.
    """
    if not weights:
        return {name: float(times.get(name, 1.0)) for name in train_tokens}
    for name, tokens in train_tokens.items():
        if not tokens:
            raise ValueError(f"--weight {name}: the source has no tokens in the train split")
    rates = {name: weights[name] / train_tokens[name] for name in train_tokens}
    return {name: rate / min(rates.values()) for name, rate in rates.items()}


def check_mixing(sources: list[str], epochs: Mapping[str, float], weights: Mapping[str, float]) -> None:
    """ValueError: an unknown source, both kinds at once, a source without a weight."""
    if epochs and weights:
        raise ValueError("--epochs and --weight: give one of the two")
    for option, values in (("--epochs", epochs), ("--weight", weights)):
        for name in values:
            if name not in sources:
                raise ValueError(f"{option} {name}: no such source; the sources are {', '.join(sources)}")
    if weights and (without := sorted(set(sources) - set(weights))):
        raise ValueError(f"--weight: none for {', '.join(without)}; give every source one")
