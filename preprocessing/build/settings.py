"""The settings of a build: what shapes a corpus beside its sources, each with its bounds and the words for them."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from preprocessing.base.command_line import nearest
from preprocessing.build.mixing import check_mixing
from preprocessing.sources.types import Source
from preprocessing.text.tokenizer import SAMPLE_CHARACTERS

DEFAULT_SLICE_MB = (8.0, 64.0)  # what a thousandth of the input is held within, as the files are on disk
MOST_SLICES = 10_000  # by default; a rank of a training job maps two shards of each, and Linux allows 65,530 maps
_TOKENIZER = Field(
    pattern="^[0-9a-f]{64}$",
    description="a sha256 in hexadecimal digits",
    exclude_if=lambda given: given is None,  # plans and manifests of before know none, and are the same
)
_SLICE_MB = Field(gt=0, lt=2001, description="more than 0 and at most 2000 (a shard holds less than 2^31 tokens)")


class Strict(BaseModel):
    """Values that are checked when they are put together: none is converted, no name is unknown, nothing changes later.

    ValueError, in one line: the option as the command line calls it (a field's `title`, or else its name), what it got, and
    what was expected (its `description`).
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(_complaint(type(self), error)) from None

    def as_json(self) -> dict[str, Any]:
        """A plain dictionary, as files keep it; the constructor takes it back."""
        return self.model_dump()


def _complaint(kind: type[Strict], error: ValidationError) -> str:
    """The first thing that is wrong."""
    first = error.errors()[0]
    name, *keys = map(str, first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{name}: no such setting; {nearest(name, kind.model_fields)}"
    if first["type"] == "missing":
        return f"{name}: missing"
    field, got = kind.model_fields[name], first["input"]
    option = field.title or f"--{name.replace('_', '-')}"
    if isinstance(got, float) and keys:
        got = f"{got:g}"
    elif first["type"].endswith("_type"):  # never by the command line, whose parser has converted it
        got = repr(got)
    return f"{option} {':'.join(keys)}{'=' * bool(keys)}{got}: expected {field.description}"


class Settings(Strict):
    """What shapes a corpus beside its sources, as a user asks for it.

    `epochs` and `weights` are by the source's name. `slice_mb` None leaves it to the size of the input. `tokenizer`: the sha256
    of one that is there already; None trains one.
    """

    vocab_size: Annotated[int, Field(gt=5, lt=1 << 20, description="6 to 1048575 pieces")] = 8192
    heldout_fraction: Annotated[float, Field(gt=0, lt=1, description="a fraction above 0 and below 1")] = 0.02
    seed: Annotated[int, Field(description="a whole number")] = 0
    min_words: Annotated[int, Field(ge=0, lt=1 << 40, description="0 words or more")] = 20
    language: Annotated[str | None, Field(pattern="^[a-z]{2}$", description="a code of two letters, such as en")] = None
    near_duplicates: Annotated[float | None, Field(gt=0.3, lt=1, description="a similarity above 0.3 and below 1")] = None
    max_document_mb: Annotated[float, Field(gt=0, lt=1e6, description="more than 0 and below a million")] = 20.0
    sample_characters: Annotated[int, Field(ge=1, lt=1 << 40, description="at least 1 character")] = SAMPLE_CHARACTERS
    slice_mb: Annotated[float | None, _SLICE_MB] = None
    tokenizer: Annotated[str | None, _TOKENIZER] = None
    epochs: dict[str, Annotated[float, Field(ge=0.01, lt=1e6)]] = Field(
        default_factory=dict, description="at least 0.01 and below a million"
    )
    weights: dict[str, Annotated[float, Field(gt=0, lt=1e6)]] = Field(
        default_factory=dict, title="--weight", description="a number above 0 and below a million"
    )

    def check(self, sources: Sequence[Source]) -> "PlannedSettings":
        """The settings for these sources. ValueError: one is named that is not there, or a number does not go with them."""
        check_mixing([source.name for source in sources], self.epochs, self.weights)
        slice_mb = default_slice_mb(sources) if self.slice_mb is None else self.slice_mb
        return PlannedSettings(**{**vars(self), "slice_mb": slice_mb})


class PlannedSettings(Settings):
    """The settings as a plan and a manifest keep them: nothing is left open any more."""

    slice_mb: Annotated[float, _SLICE_MB]


def default_slice_mb(sources: Sequence[Source]) -> float:
    """A thousandth of the input within DEFAULT_SLICE_MB, more if there were too many: enough to spread over tasks, few to
    list."""
    total_mb = sum(unit.bytes for source in sources for unit in source.units) / 1e6
    return max(min(max(total_mb / 1000, DEFAULT_SLICE_MB[0]), DEFAULT_SLICE_MB[1]), total_mb / MOST_SLICES)
