"""Admin's or GradInit's start of a run: found once by rank 0, kept in RUN/start.json, given to all ranks."""

from collections.abc import Callable
from pathlib import Path

from pipeline.config.schema import RunConfig
from pipeline.data.pretraining import PretrainingData
from pipeline.init.measured import MEASURED, advance, apply, measure, said
from pipeline.model.pretraining import PretrainingModel
from pipeline.run.start_file import read_start, write_start
from pipeline.train.place import Place


def measured_start(
    config: RunConfig,
    model: PretrainingModel,
    data: PretrainingData,
    place: Place,
    run_dir: Path,
    beat: Callable[[str], None],
    asked_to_stop: Callable[[], bool],
) -> bool:
    """Give the model, which has its normal weights on every rank, the start that model.init names; a collective. False if some
    rank was asked to stop meanwhile: nothing is kept then.

    A run that was ended before its first checkpoint reads what it has found before. Between two iterations of a search every
    rank reports progress, so none is taken for one that hangs.
    """
    if config.model.init not in MEASURED:
        return True
    ranks = place.ranks
    start = ranks.from_main(lambda: read_start(run_dir, config.model.init))
    if start is None:
        measuring = measure(config, model, data, place.device, place.say) if ranks.is_main else None
        while start is None:
            beat(f"the start, {config.model.init}")
            if any(ranks.gather(asked_to_stop())):
                return False
            start = ranks.from_main(lambda: measuring and advance(measuring))
        ranks.on_main(lambda: write_start(run_dir, start))
        place.say(said(start))
    else:
        place.say(f"{said(start)}: found by an earlier start of this run")
    ranks.together(lambda: apply(model, start))
    return True
