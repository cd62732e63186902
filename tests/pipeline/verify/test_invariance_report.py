"""The report of `invariance`: what it passes, and what it says of what it fails."""

import pytest

from pipeline.config.load import load_recipe
from pipeline.verify.invariance_report import report


@pytest.mark.parametrize("recipe", ["tiny", "small"])
def test_the_report_passes_the_scale_invariant_recipes(recipe: str) -> None:
    text, passed = report(load_recipe(recipe), vocab_size=97)
    assert passed
    assert text.endswith("\nPASS")
    assert text.count("PASS\n") == 6  # three precisions, two sets of scales
    last = load_recipe(recipe).model.layers - 1
    assert f"encoder.layers.0…{last}.attention.output" in text


def test_the_report_fails_bert_and_lists_why() -> None:
    text, passed = report(load_recipe("tiny-bert"), vocab_size=97)
    assert not passed
    assert text.endswith("\nFAIL")
    for words in ("attention.attend is softmax", "ffn.activation is GeLU", "ffn_norm adds an eps", "query.bias adds degree 1"):
        assert any(line.startswith("problem: encoder.layers.0…1.") and words in line for line in text.splitlines()), words
    assert "problem: encoder ends at degree 1, not 0" in text
