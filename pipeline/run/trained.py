"""The model of a run's newest checkpoint, for `evaluate` and everything else that follows training."""

import sys
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from pipeline.checkpoint import probe
from pipeline.checkpoint.resume import newest
from pipeline.config.load import from_dict
from pipeline.config.schema import RunConfig
from pipeline.model.build import build_model
from pipeline.model.pretraining import PretrainingModel, parameter_shapes
from pipeline.run.directory import RUN_FILE_KEYS, check_same
from pipeline.run.exported import corpus_of_tokenizer, is_exported, load_exported, read_exported
from preprocessing.base.command_line import one_line
from preprocessing.base.json_file import read_object
from preprocessing.corpus.reader import Corpus, Verify, open_corpus


def load_run(
    run_dir: Path, data_dir: Path | None = None, verify: Verify = "hashes"
) -> tuple[RunConfig, Corpus, PretrainingModel, int]:
    """(configuration, corpus, model with the newest checkpoint's weights, its step) of a run directory. `verify`: as
    `open_corpus` has it; "sizes" is for those who read little of the text.

    data_dir: the run's corpus, if it has moved, or another one with the same tokenizer. It may be a folder that `export` wrote,
    too. Raises ValueError if the run has no checkpoint, or the corpus is neither.
    """
    if is_exported(run_dir):
        return load_exported(run_dir, data_dir)
    saved = read_run_file(run_dir)
    config = from_dict(saved["config"], where=f"{run_dir}/config.json")
    if config.task.name != "pretraining":
        raise ValueError(f"{run_dir} is fine-tuned on {config.task.name}: its head is another one; expected a pretraining run")
    if data_dir is None:
        corpus = _its_corpus(run_dir, saved, verify)
    else:
        remedy = "give the run's corpus, or one that was built with its tokenizer"
        corpus = corpus_of_tokenizer(data_dir, saved["tokenizer_sha256"], run_dir, "the run", remedy, verify)
    found = newest(run_dir, complain=lambda text: print(text, file=sys.stderr))
    if found is None:
        raise ValueError(
            f"{run_dir} has no checkpoint yet: run `python -m pipeline pretrain … --run {quote(str(run_dir))}` first"
        )
    check_same(found.manifest["made_from"], saved, found.directory, "it is not this run's: move it away")
    trained_on, unknown = _trained_on(run_dir, saved, corpus)
    model = build_model(config, corpus.vocab_size, trained_on.unigram_counts("train"))
    found.check_covers(parameter_shapes(model))
    found.load_parameters(model)
    try:
        probe.check(found, probe.loss(model, probe.stored_batch(found)))
    except ValueError as error:
        if unknown:
            raise ValueError(
                f"{data_dir} is another corpus than the one that {run_dir} was trained on, whose token frequencies are a part "
                f"of its model: they are its decoder's bias; {unknown}"
            ) from error
        raise
    return config, corpus, model, found.step


def _trained_on(run_dir: Path, saved: Mapping[str, Any], corpus: Corpus) -> tuple[Corpus, str]:
    """The corpus whose token frequencies the model knows: of a row-normalised decoder they are the bias, fixed, and so in no
    checkpoint. If it is not to be had, `corpus` in its place, and why; the probe tells whether that is near enough."""
    if corpus.manifest_sha256 == saved["corpus_sha256"]:
        return corpus, ""
    remedy = "put it back there, or start the run once with --data at its new place, which notes it for good"
    try:
        return _its_corpus(run_dir, saved, "sizes", remedy), ""
    except ValueError as error:
        return corpus, str(error)


def _its_corpus(run_dir: Path, saved: Mapping[str, Any], verify: Verify, remedy: str = "") -> Corpus:
    """The corpus that the run was trained on, where it was; ValueError with all that is known of it if it is not there."""
    place = Path(saved["data"])
    known = f"manifest of sha256 {saved['corpus_sha256'][:12]}…, tokenizer of {saved['tokenizer_sha256'][:12]}…"
    remedy = remedy or f"give the corpus ({known}) with --data; a resume with another --data notes it for good"
    if not place.is_dir():
        raise ValueError(f"the corpus of {run_dir} was at {place} and is not there any more; {remedy}")
    try:
        corpus = open_corpus(place, verify)
    except (ValueError, OSError) as error:
        raise ValueError(f"the corpus of {run_dir} was at {place}: {one_line(error)}; {remedy}") from error
    if corpus.manifest_sha256 != saved["corpus_sha256"]:
        raise ValueError(
            f"{place} is not the corpus of {run_dir} any more: its manifest has sha256 {corpus.manifest_sha256[:12]}…; {remedy}"
        )
    return corpus


def read_record(directory: Path) -> Mapping[str, Any]:
    """What a run, or a folder that `export` wrote, says of its training: "recipe", "config", "corpus_sha256" and the like."""
    return read_exported(directory).record if is_exported(directory) else read_run_file(directory)


def read_run_file(run_dir: Path) -> dict[str, Any]:
    """RUN/config.json: {"recipe", "data", "corpus_sha256", "config"}; ValueError if it is not a run directory."""
    path = run_dir / "config.json"
    if not path.is_file():
        raise ValueError(f"{run_dir} is not a run directory (no config.json): give the --run of a `pipeline pretrain`")
    return read_object(path, required=RUN_FILE_KEYS)
