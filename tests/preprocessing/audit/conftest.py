"""What the corpora of these tests are built from, and a sound one."""

from pathlib import Path
from pydoc_data.topics import topics

import pytest

from preprocessing.text.clean import clean
from preprocessing.text.tokenizer import load, train
from tests.helpers.audited_corpora import HOSTILE, VOCAB_SIZE, Material, Text, build, sentences_of, shared_out


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    blocks = [block for topic in topics.values() for block in topic.split("\n\n") if len(block) > 100]
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
