"""Nothing read twice, nothing left out: what the slices of a file read has to join up."""

from collections import defaultdict
from collections.abc import Sequence

from preprocessing.build.marker import UnitSpan
from preprocessing.build.plan import Plan


def check_spans(plan: Plan, spans: Sequence[Sequence[UnitSpan]]) -> None:
    """ValueError unless every unit's slices begin where their predecessors ended, the first at 0.

    spans: for each slice, in the plan's order, what it read. They fail to join when a file changed between two
    tasks, or when two machines decompress it in different steps.
    """
    sources = {source.name: source for source in plan.sources}
    ends: dict[tuple[str, int], int] = defaultdict(int)
    for number, (one, own) in enumerate(zip(plan.slices, spans, strict=True)):
        for index, start, end in own:
            if start != ends[one.source, index]:
                raise ValueError(
                    f"slice {number} of source {one.source} began at {start:,} of {sources[one.source].units[index].path}, the "
                    f"one before it ended at {ends[one.source, index]:,}: the file changed between two tasks; move the work "
                    f"folder away and build again"
                )
            ends[one.source, index] = end
    for source in plan.sources:
        for index, unit in enumerate(source.units):
            if unit.rows and ends[source.name, index] != unit.rows:
                raise ValueError(f"{unit.path}: {ends[source.name, index]:,} of {unit.rows:,} rows were read; build again")
