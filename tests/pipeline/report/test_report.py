"""The report: everything is in it, nothing is fetched, nothing breaks it."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.load import as_dict, load_recipe
from pipeline.report.panels import smooth, write_curve_png
from pipeline.report.recorded_run import load_run, load_runs, newly_clipped, series
from pipeline.report.run_page import write_report
from preprocessing.base.files import WRITING
from tests.helpers.html_page import HtmlPage
from tests.helpers.made_up_run import ENTROPY, with_what_it_has_learnt, write_run
from tests.helpers.running import ROOT


def page_of(path: Path) -> HtmlPage:
    return HtmlPage(path.read_text(encoding="utf-8"))


def test_a_finished_run_has_every_picture_and_figure(tmp_path: Path) -> None:
    path = write_report(write_run(tmp_path / "tiny"))
    page = page_of(path)
    assert path == tmp_path / "tiny/report.html"
    assert page.counts["svg"] == 6
    assert page.outside == []
    assert "script" not in page.counts
    assert "unfinished" not in page.text
    for expected in (
        "6.010 nats, 0.740 below the 6.750",
        "unigram entropy", "predicted equilibrium", "clip threshold", "1.25%", "1.20 GiB", "0:01:18",
        "5ca1ab1e", "demo/corpus", "3,417,088", "an unknown key", "optim.weight_decay", "gradient_clipping", "0123abc",
        "python -m pipeline pretrain --recipe tiny", "held-out, on [MASK]", "step 210",
    ):  # fmt: skip
        assert expected in page.text, expected
    assert not [left.name for left in path.parent.iterdir() if WRITING in left.name]


def test_the_page_leads_with_what_the_model_has_learnt(tmp_path: Path) -> None:
    """The loss on [MASK], by token frequency, sentences; then the rest. Everything is escaped."""
    path = write_report(with_what_it_has_learnt(write_run(tmp_path / "tiny")))
    page, source = page_of(path), path.read_text(encoding="utf-8")
    assert page.counts["svg"] == 7
    assert not {"i", "script"} & set(page.counts)
    parts = (
        "6.010 nats, 0.740 below the 6.750",
        "Held-out loss by token frequency",
        "frequencies alone",
        "<i>in [MASK] beginning & [MASK].",
        "the 71%",
        "…ing 5%",
        "<b> 1%",
        "The run in pictures",
        "Held-out loss elsewhere",
        "4.321 nats",
    )
    places = [page.text.find(part) for part in parts]
    assert -1 not in places, parts[places.index(-1)]
    assert places == sorted(places)
    for tick in ("123k", "1.1k", "39"):
        assert f">{tick}<" in source, tick
    assert source.count("guess good") == 1, "of six guesses one is right"
    assert "heldout by frequency" not in page.text
    assert "unigram_loss" not in page.text


@pytest.mark.parametrize(("loss", "short"), [(ENTROPY - 0.1, True), (ENTROPY - 1.7, False)])
def test_a_run_far_short_of_its_recipe_is_told(tmp_path: Path, loss: float, short: bool) -> None:
    run = write_run(tmp_path / "run", summary={"heldout_mask_loss": loss, "heldout_unigram_entropy_nats": ENTROPY})
    made_from = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**made_from, "config": as_dict(load_recipe("tiny"))}))
    page = page_of(write_report(run))
    assert "The recipe's own run ended 1.735 below." in page.text
    assert ("1.6 nats less than the recipe leads to expect" in page.text) == short


def test_an_older_run_has_neither_picture_nor_sentences(tmp_path: Path) -> None:
    page = page_of(write_report(write_run(tmp_path / "tiny")))
    for title in ("What it has learnt", "Sentences it never saw"):
        assert title not in page.text


@pytest.mark.parametrize("document", [{"sentences": [{}]}, {"sentences": 7}, {"sentences": [{"text": "x", "masks": [{}]}]}])
def test_sentences_that_are_something_else_are_one_line(tmp_path: Path, document: dict[str, Any]) -> None:
    run = write_run(tmp_path / "tiny", guesses=document)
    with pytest.raises(ValueError, match=r"tiny/guesses\.json: not what a run writes at its end .* move it away"):
        write_report(run)


@pytest.mark.parametrize("value", [None, "text", {}, {"bins": 7}, {"bins": [7, {}, {"mask": 3, "fewest": "x"}]}])
def test_a_strange_loss_by_frequency_is_no_picture(tmp_path: Path, value: object) -> None:
    run = write_run(tmp_path / "tiny", summary={"heldout_by_frequency": value})
    assert page_of(write_report(run)).counts["svg"] == 6


def test_ids_of_the_pictures_do_not_clash(tmp_path: Path) -> None:
    source = write_report(write_run(tmp_path / "tiny")).read_text(encoding="utf-8")
    assert ">clipped<" in source
    ids = re.findall(r'\bid="([^"]*)"', source)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', source)) <= set(ids)


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    page = page_of(write_report(write_run(tmp_path / "tiny", finished=False)))
    assert "This run is unfinished" in page.text
    assert "step 400 of 400" in page.text
    assert page.counts["svg"] == 6


def test_adamw_leaves_the_clip_pictures_out(tmp_path: Path) -> None:
    path = write_report(write_run(tmp_path / "adam", sgd=False))
    page = page_of(path)
    assert page.counts["svg"] == 5
    assert ">clipped<" not in path.read_text(encoding="utf-8")  # AdamW's own clipping acts all the time: no event
    assert "clip threshold" not in page.text
    assert "predicted equilibrium" not in page.text


def test_compared_runs_share_the_loss_picture_and_the_table(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a/run")
    other = write_run(tmp_path / "b/run", sgd=False, steps=200)
    page = page_of(write_report(run, [other]))
    assert "held-out, a/run" in page.text
    assert "held-out, b/run" in page.text
    assert "Side by side" in page.text
    assert page.text.count("1,638,400") >= 1  # tokens of the one
    assert page.text.count("819,200") == 1  # and of the other
    assert "million tokens" not in page.text


def test_runs_of_different_batches_are_compared_by_tokens(tmp_path: Path) -> None:
    run = write_run(tmp_path / "small")
    other = write_run(tmp_path / "large")
    config = json.loads((other / "config.json").read_text())
    config["config"]["batch"]["global_sequences"] = 64
    (other / "config.json").write_text(json.dumps(config))
    assert "million tokens" in page_of(write_report(run, [other])).text


def test_strings_are_escaped_everywhere(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>&$x"
    run = write_run(
        tmp_path / "<u>$run&",
        config={"recipe": evil, "config": {"description": evil, evil: evil}},
        ds_config={evil: evil},
        versions={evil: evil, "command": [evil]},
        summary={"recipe": evil, evil: evil, "heldout_loss": evil, "tokens": [evil]},
    )
    page = page_of(write_report(run, [write_run(tmp_path / r"$\nonsense<i>$")]))
    assert "script" not in page.counts
    assert "u" not in page.counts
    assert "u" not in page.counts
    assert "i" not in page.counts
    assert page.text.count(evil) >= 8


@pytest.mark.parametrize("value", [None, "text", [], True, 0, -1, 1e300])
def test_strange_values_do_not_break_the_pictures(tmp_path: Path, value: object) -> None:
    run = write_run(tmp_path / "odd", steps=3)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row |= {key: value for key in row if key not in ("kind", "step", "attempt")}
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "summary.json").write_text(json.dumps(dict.fromkeys(("heldout_loss", "tokens", "train_time_s"), value)))
    page_of(write_report(run))
    write_curve_png(run, tmp_path / "curve.png")


def test_one_record_and_bare_directory_are_enough(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "loss": 8.3}\n')
    page = page_of(write_report(tmp_path))
    assert page.counts["svg"] == 1
    assert "dashed line means" not in page.text
    assert "config.json is not in the run directory" in page.text


def test_gaps_are_gaps(tmp_path: Path) -> None:
    rows = [{"step": 1, "a": 1.0}, {"step": 2, "a": None}, {"step": 3}, {"step": 4, "a": 3.0}]
    steps, values = series(rows, "a")
    np.testing.assert_array_equal(steps, [1, 2, 3, 4])
    np.testing.assert_array_equal(values, [1, math.nan, math.nan, 3])
    np.testing.assert_array_equal(smooth(values, 2), [1, 1, math.nan, 3])
    np.testing.assert_array_equal(smooth(values, 9), [2, 2, 2, 2])
    np.testing.assert_array_equal(smooth(np.arange(5.0), 3), [0.5, 1, 2, 3, 3.5])


def test_clip_events_follow_from_the_fraction_of_all_steps(tmp_path: Path) -> None:
    counts = {10: 0, 20: 3, 30: 3, 50: 4}
    rows = [{"kind": "train", "step": step, "clipped_fraction": n / step} for step, n in counts.items()]
    rows.insert(2, {"kind": "train", "step": 25, "clipped_fraction": None})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps, clipped = newly_clipped(load_run(tmp_path))
    np.testing.assert_array_equal(steps, [10, 20, 30, 50])
    np.testing.assert_array_equal(clipped, [0, 3, 0, 1])


def test_a_directory_without_metrics_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no metrics\.jsonl there; give the directory of a run that has trained"):
        write_report(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="no records yet"):
        write_curve_png(tmp_path, tmp_path / "curve.png")
    with pytest.raises(ValueError, match="empty"):
        write_report(write_run(tmp_path / "good"), [tmp_path / "empty"])


def test_a_report_needs_no_tensorboard() -> None:
    """It reads metrics.jsonl, and runs where nobody looks at curves: TensorBoard costs seconds, and may not be there."""
    look = "import sys, pipeline.report.run_page; print({'torch.utils.tensorboard', 'tensorboard'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_a_broken_document_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "tiny")
    (run / "summary.json").write_text("{")
    with pytest.raises(ValueError, match=r"summary\.json: not valid JSON"):
        write_report(run)
    (run / "summary.json").write_text("[]")
    with pytest.raises(ValueError, match=r"summary\.json: expected a JSON object, got list"):
        write_report(run)


def test_the_curve_is_a_png(tmp_path: Path) -> None:
    sgd, adam = write_run(tmp_path / "sgd"), write_run(tmp_path / "adam", sgd=False)
    out = write_curve_png(sgd, tmp_path / "docs/curve.png", [adam])
    assert out.read_bytes().startswith(b"\x89PNG")
    assert [run.name for run in load_runs([sgd, adam])] == ["sgd", "adam"]
