"""What a model puts for [MASK]: the text's way to ids, the probabilities, the verb, and the sentences a run ends with."""

import io
import itertools
import json
import math
from pathlib import Path

import pytest
import sentencepiece
import torch

from pipeline.__main__ import main
from pipeline.data.batch import Batch
from pipeline.run.trained import load_run
from pipeline.train.fill_mask import guesses, masked_ids
from pipeline.train.heldout_guesses import chosen_sentences, write_guesses
from preprocessing.corpus.reader import CLS_ID, FIRST_ORDINARY_ID, MASK_ID, SEP_ID, UNK_ID, open_corpus
from preprocessing.text import tokenizer
from preprocessing.text.tokenizer import readable
from tests.helpers.ranks import WITHOUT_REPORT, RankServer
from tests.helpers.running import SMALL, set_options

TWENTY = "cab " * 40


@pytest.fixture(scope="module")
def pieces(corpus: Path) -> sentencepiece.SentencePieceProcessor:
    return tokenizer.load(corpus / "tokenizer.model")


@pytest.fixture(scope="module")
def trained(rank_server: RankServer, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By two ranks under ZeRO 3, which hold no whole model."""
    run = tmp_path_factory.mktemp("fill mask") / "run"
    options = [*SMALL, *set_options(train__steps=10, train__ds_config="zero3")]
    argv = ["pretrain", "--recipe", "tiny", "--data", corpus, "--run", run, *options]
    ranks = rank_server.run(argv, ranks=2, skip=WITHOUT_REPORT[:1])
    assert ranks.codes == [0, 0], ranks.stderr
    return run


def test_a_mask_for_a_piece_leaves_the_rest_of_the_text_as_it_is(
    corpus: Path, pieces: sentencepiece.SentencePieceProcessor
) -> None:
    """For every place of held-out sentences that is a word or goes on with one."""
    tried = 0
    for tokens, _ in chosen_sentences(open_corpus(corpus), pieces, 60):
        names = [pieces.id_to_piece(token) for token in tokens]
        for place, name in enumerate(names):
            shown = [*names[:place], f"{'▁' if name[0] == '▁' else ''}[MASK]", *names[place + 1 :]]
            text = "".join(shown).replace("▁", " ")
            again = pieces.encode("".join(names).replace("▁", " "))
            if name == "▁" or (place and names[place - 1] == "▁" and name[0] != "▁") or again != tokens:
                continue  # a piece without its space, and the space before it: a [MASK] after a space stands for both
            ids = masked_ids(pieces, text, 64)
            around = [CLS_ID, *tokens[:place], MASK_ID, *tokens[place + 1 :], SEP_ID]
            if ids != around:  # the pieces beside it may be cut in another way without it: the same text, though
                assert ids.count(MASK_ID) == 1
                at = ids.index(MASK_ID)
                assert pieces.decode(ids[1:at]) == pieces.decode(tokens[:place])
                assert pieces.decode(ids[at + 1 : -1]) == pieces.decode(tokens[place + 1 :])
            tried += ids == around
    assert tried > 50


def test_masks_that_touch_each_other_and_unknown_letters(pieces: sentencepiece.SentencePieceProcessor) -> None:
    assert masked_ids(pieces, "[MASK]", 64) == [CLS_ID, MASK_ID, SEP_ID]
    assert masked_ids(pieces, "[MASK][MASK] [MASK]", 64) == [CLS_ID, MASK_ID, MASK_ID, MASK_ID, SEP_ID]
    full_stop = pieces.piece_to_id(".")
    plain = masked_ids(pieces, "the cooperation of [MASK]", 64)
    assert masked_ids(pieces, "\ufeffthe co\u00adop\u200beration of [MASK]", 64) == plain, "cleaned as a corpus is"
    assert masked_ids(pieces, "\ud800 [MASK]", 64) == masked_ids(pieces, "\ufffd [MASK]", 64), "a lone surrogate"
    assert masked_ids(pieces, "[MASK].", 64) == [CLS_ID, MASK_ID, full_stop, SEP_ID]
    space = pieces.piece_to_id("▁")
    assert masked_ids(pieces, "\u5b57[MASK]\u5b57", 64) == [CLS_ID, space, UNK_ID, MASK_ID, UNK_ID, SEP_ID]


def test_guesses_are_the_most_probable_pieces(trained: Path, pieces: sentencepiece.SentencePieceProcessor) -> None:
    """Each probability is what the training's loss says of that piece, and no other piece has more."""
    _, corpus, model, _ = load_run(trained)
    ids = masked_ids(pieces, "the [MASK] of a list is [MASK].", 32)
    first, second = guesses(model, pieces, ids)
    positions = [place for place, token in enumerate(ids) if token == MASK_ID]
    everything = range(FIRST_ORDINARY_ID, corpus.vocab_size)
    for position, found in zip(positions, (first, second), strict=True):
        row = torch.tensor([ids])
        slots = torch.full((1, len(everything)), position)
        batch = Batch(row, torch.zeros_like(row), slots, torch.tensor([list(everything)]), torch.ones(slots.shape))
        with torch.no_grad():
            probabilities = (-model(batch).token_loss_N).exp()
        best = probabilities.topk(5)
        assert [guess.piece for guess in found] == [pieces.id_to_piece(FIRST_ORDINARY_ID + i) for i in best.indices.tolist()]
        assert [guess.probability for guess in found] == pytest.approx(best.values.tolist(), rel=1e-4)


def test_the_sentences_of_a_run_under_zero_3_are_those_of_its_checkpoint(trained: Path, corpus: Path) -> None:
    path = trained / "guesses.json"
    first = path.read_text()
    document = json.loads(first)
    assert document["step"] == 10
    assert len(document["sentences"]) == 10
    for sentence in document["sentences"]:
        assert sentence["text"].count("[MASK]") == len(sentence["masks"]) in (1, 2)
        for mask in sentence["masks"]:
            assert readable(mask["truth"]).isalpha()
            assert len(mask["guesses"]) == 5
            assert all(0 < guess["probability"] < 1 for guess in mask["guesses"])
    write_guesses(trained)
    assert path.read_text() == first
    path.unlink()
    write_guesses(trained)
    assert json.loads(path.read_text()) == document
    again = [tokens for tokens, _ in chosen_sentences(open_corpus(corpus), tokenizer.load(corpus / "tokenizer.model"), 30)]
    assert len({tuple(tokens) for tokens in again}) == 10, "a sentence twice"


def test_chosen_words_do_not_touch_and_the_seed_says_which(corpus: Path, pieces: sentencepiece.SentencePieceProcessor) -> None:
    opened = open_corpus(corpus)
    seen = []
    for seed in range(5):
        chosen = chosen_sentences(opened, pieces, 62, seed)
        assert chosen == chosen_sentences(opened, pieces, 62, seed)
        seen.append(chosen)
        for tokens, hidden in chosen:
            assert 8 <= len(tokens) <= 40
            assert all(b - a > 1 for a, b in itertools.pairwise(hidden))
            assert hidden == sorted(hidden)
            assert all(pieces.id_to_piece(tokens[place])[0] == "▁" for place in hidden)
    assert seen[0] != seen[1]
    assert all(len(tokens) <= 9 for tokens, _ in chosen_sentences(opened, pieces, 9))


def test_the_verb_reads_the_argument_or_lines(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["fill-mask", "--run", str(trained), "A list of [MASK] and [MASK]."]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "A list of [MASK] and [MASK]."
    assert [line.split()[0] for line in lines[1:]] == ["[MASK]", "[MASK]"]
    assert [line.count("%") for line in lines[1:]] == [5, 5]
    monkeypatch.setattr("sys.stdin", io.StringIO("the [MASK]\n\n a [MASK] b\n"))
    assert main(["fill-mask", "--run", str(trained), "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["text"] for answer in answers] == ["the [MASK]", "a [MASK] b"]
    assert all(len(mask) == 5 for answer in answers for mask in answer["masks"])
    best = [guess["probability"] for guess in answers[0]["masks"][0]]
    assert best == sorted(best, reverse=True)
    assert 0 < math.fsum(best) < 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The capital of France is mask.", "expected [MASK]"),
        ("", "no text"),
        (TWENTY + "[MASK]", "expected at most 30"),
        ("\ue000 [MASK]", "U+E000"),
    ],
)
def test_a_text_that_cannot_be_filled_is_one_line(
    trained: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    assert main(["fill-mask", "--run", str(trained), text]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert words in captured.err


def test_a_directory_that_is_no_trained_run_is_one_line(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"task": "squad"}')
    (tmp_path / "untrained").mkdir()
    (tmp_path / "untrained" / "config.json").write_bytes((trained / "config.json").read_bytes())
    for name, words in (("nothing", "not a run directory"), ("other", "config.json"), ("untrained", "no checkpoint yet")):
        assert main(["fill-mask", "--run", str(tmp_path / name), "a [MASK]"]) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        assert words in error


def test_a_finished_run_whose_sentences_cannot_be_made_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.verbs.pretrain import _write_guesses

    def refuse(run_dir: Path) -> None:
        raise OSError(28, "No space left on device", str(run_dir / "guesses.json"))

    monkeypatch.setattr("pipeline.train.heldout_guesses.write_guesses", refuse)
    _write_guesses(tmp_path)
    assert capsys.readouterr().err == f"the report has no sentences: {tmp_path}/guesses.json: No space left on device\n"


def test_pieces_as_a_reader_sees_them() -> None:
    assert [readable(piece) for piece in ("▁the", "ing", ",", "▁", "2")] == ["the", "…ing", ",", "▁", "…2"]
