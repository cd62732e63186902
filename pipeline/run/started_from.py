"""Whose weights a run begins with: `pretrain --from`, resolved once, recorded in config.json, and not looked at again. They are
a checkpoint's, or those of a folder that `export` wrote.

A run that has a checkpoint of its own goes on from that. One that was ended before its first checkpoint takes the recorded
weights again, which must be the same ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.checkpoint.layout import CHECKPOINTS, MANIFEST, step_directories
from pipeline.checkpoint.reader import Checkpoint
from pipeline.checkpoint.resume import verified
from pipeline.checkpoint.snapshot import PARAM
from pipeline.config.schema import RunConfig
from pipeline.distributed.ranks import ALONE, Ranks
from pipeline.init.from_weights import check_shapes
from pipeline.model.build import skeleton
from pipeline.model.pretraining import parameter_shapes
from pipeline.run.directory import RUN_FILE_KEYS, STARTED_FROM, is_empty
from pipeline.run.exported import WEIGHTS_FILE, Exported, is_exported, read_pretrained
from preprocessing.base.files import file_sha256
from preprocessing.base.json_file import read_object
from preprocessing.corpus.reader import Corpus


@dataclass(frozen=True)
class Weights:
    """Trained weights to start from. `record` is what config.json says of them; `made_from` the run file of the training."""

    record: Mapping[str, Any]  # `manifest_sha256` of an export: of its weights' file
    shapes: Mapping[str, list[int]]
    tensor: Callable[[str], Tensor]  # by the parameter's name, whole
    made_from: Mapping[str, Any]

    @property
    def trained_positions(self) -> int:
        """How many positions were read in their training, and in that of the weights which it had started from."""
        positions: int = self.record["trained_positions"]
        return positions


def check_is_another(given: Path, run_dir: Path) -> None:
    """ValueError if --from names the run itself, which --fresh would rename away."""
    if _run_of(given) == run_dir.resolve():
        raise ValueError(f"--from {given} is the run itself, which goes on without it: give another --run for a new one")


def first_weights(run_dir: Path | None, given: Path | None, ranks: Ranks = ALONE) -> Weights | None:
    """The weights that the run at `run_dir` (None: a new one) begins with; None if they are its own, or no longer needed.
    `given`: --from. A collective.

    Of a run that is there it is what was recorded; every byte is verified if they are still needed. ValueError if what is
    given is neither a run nor a checkpoint, is damaged, or is not what the run that is there began with.
    """
    recorded = ranks.from_main(lambda: run_dir and _recorded(run_dir))
    if recorded is None or run_dir is None:
        directory = ranks.from_main(lambda: None if given is None else str(_checkpoint_of(given)))
        if directory is None:
            return None
        return ranks.together(lambda: _given_weights(Path(directory), ranks))
    begun: dict[str, Any] | None = recorded[STARTED_FROM]
    ranks.on_main(lambda: _check_given(run_dir, given, begun))
    if begun is None or recorded["saved"]:
        return None
    return ranks.together(lambda: _again(run_dir, begun, ranks))


def weights_of(found: Checkpoint) -> Weights:
    """A checkpoint as the start of another run."""
    made_from = found.manifest["made_from"]
    before = (made_from.get(STARTED_FROM) or {}).get("trained_positions", 0)
    record = {
        "checkpoint": str(found.directory.resolve()),
        "step": found.step,
        "manifest_sha256": file_sha256(found.directory / MANIFEST),
        "trained_positions": max(before, made_from["config"]["data"]["seq_len"]),
    }
    return Weights(record, found.manifest["parameters"], partial(found.whole, PARAM), made_from)


def weights_of_export(found: Exported) -> Weights:
    """An exported model as the start of a run."""
    config = found.config
    names = [name for name, _ in skeleton(config, found.record["vocab_size"]).named_parameters()]
    record = {
        "checkpoint": str(found.directory.resolve()),
        "step": found.record["step"],
        "manifest_sha256": file_sha256(found.directory / WEIGHTS_FILE),
        "trained_positions": config.data.seq_len,
    }
    shapes = {name: shape for name in names if (shape := found.shape(name)) is not None}
    return Weights(record, shapes, found.tensor, found.record)


def check_weights(weights: Weights, config: RunConfig, corpus: Corpus) -> None:
    """ValueError unless the run's model can take the weights: trained on the tokens of the same tokenizer, for an embedding's
    rows mean its pieces, and with the same parameters (`check_shapes`)."""
    theirs, ours = weights.made_from["tokenizer_sha256"], corpus.manifest.tokenizer_sha256
    if theirs != ours:
        raise ValueError(
            f"--from {weights.record['checkpoint']}: trained with the tokenizer of sha256 {theirs[:12]}…, "
            f"{corpus.directory} has {ours[:12]}…: give a corpus that was built with the same tokenizer, or leave --from out"
        )
    shapes = parameter_shapes(skeleton(config, corpus.vocab_size))
    check_shapes(weights.shapes, shapes, f"--from {weights.record['checkpoint']}")


def flat_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record under the names that a summary and a table have for it."""
    return {f"{STARTED_FROM}_{key}": record[key] for key in ("checkpoint", "step", "manifest_sha256")}


def same_samples(weights: Weights, wanted: Mapping[str, Any]) -> bool:
    """Would the new run (its run file) see the same samples with the same masks in the same order again?"""
    theirs = weights.made_from
    alike = theirs["config"]["data"] == wanted["config"]["data"] and theirs["corpus_sha256"] == wanted["corpus_sha256"]
    return alike and theirs["config"]["train"]["seed"] == wanted["config"]["train"]["seed"]


def _run_of(given: Path) -> Path:
    """The run directory of a run or a checkpoint."""
    path = given.resolve()
    return path.parent.parent if path.parent.name == CHECKPOINTS else path


def _checkpoint_of(given: Path) -> Path:
    """The checkpoint or the export at `given`, or the newest checkpoint of the run at `given`."""
    if (given / MANIFEST).is_file() or is_exported(given):
        return given
    if not (given / "config.json").is_file():
        raise ValueError(
            f"--from {given}: neither a run directory or an export (no config.json) nor a checkpoint (no {MANIFEST}): give the "
            f"--run of a `pipeline pretrain`, one of its {CHECKPOINTS}/step-…, or the --out of a `pipeline export`"
        )
    found = step_directories(given)
    if not found:
        raise ValueError(f"--from {given}: that run has no checkpoint yet")
    return found[0]


def _recorded(run_dir: Path) -> dict[str, Any] | None:
    """Of a run that is there: what it began with, and whether it has saved since. None if there is none."""
    path = run_dir / "config.json"
    if is_empty(run_dir) or not path.is_file():
        return None
    begun = read_object(path, required=RUN_FILE_KEYS).get(STARTED_FROM)
    return {STARTED_FROM: begun, "saved": bool(step_directories(run_dir))}


def _check_given(run_dir: Path, given: Path | None, begun: Mapping[str, Any] | None) -> None:
    """ValueError unless --from, if it is given, says what the run began with. Compared by name, for the source may be gone, and
    by content if the name is another."""
    if given is None:
        return
    if begun is None:
        raise ValueError(
            f"{run_dir} is there and began with weights of its own: --from {given} begins a new run; give another --run"
        )
    named = Path(begun["checkpoint"])
    if given.resolve() in (named, named.parent.parent):
        return
    identity = _identity(given)
    if identity.is_file() and file_sha256(identity) == begun["manifest_sha256"]:
        return
    raise ValueError(
        f"{run_dir} began with the weights of {named}, not of --from {given}: leave --from out to go on, or give another --run"
    )


def _identity(directory: Path) -> Path:
    """The file whose hash says which weights are there."""
    return directory / (WEIGHTS_FILE if is_exported(directory) else MANIFEST)


def _weights_in(directory: Path, ranks: Ranks) -> Weights:
    """Of a checkpoint, of which every byte is verified, or of an export."""
    return weights_of_export(read_pretrained(directory)) if is_exported(directory) else weights_of(verified(directory, ranks))


def _given_weights(directory: Path, ranks: Ranks) -> Weights:
    try:
        return _weights_in(directory, ranks)
    except ValueError as error:
        older = "" if is_exported(directory) else f"; an older one may be whole: --from {directory.parent}/step-…"
        raise ValueError(f"--from: {error}{older}") from error


def _again(run_dir: Path, begun: Mapping[str, Any], ranks: Ranks) -> Weights:
    weights = _weights_in(Path(begun["checkpoint"]), ranks)
    if weights.record["manifest_sha256"] != begun["manifest_sha256"]:
        raise ValueError(
            f"{begun['checkpoint']} is not what {run_dir} began with any more (its weights are others); the run has no "
            "checkpoint of its own yet: --fresh begins anew"
        )
    return weights
