"""Times of several candidates side by side: machines are shared and noisy, so only ratios within one run count."""

import statistics
import time
from collections.abc import Callable


def medians_s(candidates: dict[str, Callable[[], object]], rounds: int, warm: int = 2) -> dict[str, float]:
    """Each candidate's median time, all of them in turn in every round."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds + warm):
        for name, run in candidates.items():
            began_s = time.perf_counter()
            run()
            if turn >= warm:  # the first ones warm caches and allocators
                times[name].append(time.perf_counter() - began_s)
    return {name: statistics.median(t) for name, t in times.items()}
