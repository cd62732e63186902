"""What the corpora of these tests are built from, and a sound one."""

from pathlib import Path

import pytest

from preprocessing.text.clean import clean
from preprocessing.text.tokenizer import load, train
from tests.helpers.audited_corpora import HOSTILE, VOCAB_SIZE, Material, Text, build, sentences_of, shared_out
from tests.helpers.made_up_text import documents


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    sentences_of_all = [text.split(". ") for text in documents()]
    blocks = [". ".join(sentences[at : at + 4]) + "." for sentences in sentences_of_all for at in range(0, 24, 4)]
    model = train([line for block in blocks for line in clean(block).paragraphs], VOCAB_SIZE)
    path = tmp_path_factory.mktemp("model") / "tokenizer.model"
    path.write_bytes(model)
    tokenizer, texts = load(path), {}
    for block in blocks:
        if sentences := sentences_of(tokenizer, block):
            texts[tuple(token for sentence in sentences for token in sentence)] = Text(HOSTILE, block, sentences)
    assert len(texts) > 1100  # so that one document is less than the duplicates' limit
    return Material(model, list(texts.values()))


@pytest.fixture
def sound(tmp_path: Path, material: Material) -> Path:
    return build(tmp_path / "corpus", material, shared_out(material.texts))
