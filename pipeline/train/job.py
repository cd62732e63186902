"""What a start is given."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config.schema import RunConfig


@dataclass(frozen=True)
class Job:
    """What a start is given."""

    config: RunConfig
    recipe: str
    data_dir: Path
    run_dir: Path
    fresh: bool = False  # put the run that is there aside and begin anew
