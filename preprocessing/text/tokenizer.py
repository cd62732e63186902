"""Train and load the tokenizer: a SentencePiece unigram model, lower-casing, with BERT's special pieces at ids 0-4."""

import contextlib
import hashlib
import heapq
import io
import os
import re
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

import sentencepiece

from preprocessing.base.processes import clean_processes
from preprocessing.corpus.reader import CLS_ID, FIRST_ORDINARY_ID, MASK_ID, PAD_ID, SEP_ID, SPECIAL_PIECES, UNK_ID

SAMPLE_CHARACTERS = 20_000_000
# Fixed: partial sums of the EM steps are added up thread by thread, so their number changes the model's last bits,
# while the number of cores they run on does not.
TRAINING_THREADS = 4
MAX_SENTENCE_BYTES = 16_384  # SentencePiece's default is 4192; it leaves longer ones out
RESERVED = "\u2585"  # ▅, by which SentencePiece means the unknown: it leaves out every sentence that has one, without a warning
_LOGGED = re.compile(r"[WEF]\d{4} .*?\] (.*)")  # what absl puts before a message: "W0000 00:00:17.05 9529 file.cc:419] "
NAMED_WARNINGS = 10
COVERAGE = 0.9995  # of the sample's characters, the commonest; what is rarer is [UNK]
# SentencePiece's rule makes a space of U+200C, which Persian and others write within words ("می‌خواهم"). Declared as a symbol
# of its own it is let alone; that costs a piece, so it is for text in which it is no rarity.
ZERO_WIDTH_NON_JOINER = "\u200c"
SMALL_SAMPLE_CHARACTERS = 1_000_000  # so many are trained on a second time, for an error that says all it can
LARGEST_VOCABULARY = 2**20 - 1
WORD_START = "▁"  # SentencePiece's mark of a piece that begins a word
Tag: TypeAlias = tuple[str, int]  # source, draw of the document


class TextSample:
    """The paragraphs with the lowest seeded hashes, as many as fit into `limit_characters`.

    Which paragraphs those are depends on the seed and on the set of paragraphs, not on the order they come in.
    """

    def __init__(self, seed: int, limit_characters: int = SAMPLE_CHARACTERS) -> None:
        self._key = f"tokenizer sample {seed}".encode()
        self._limit, self._characters = limit_characters, 0
        self._heap: list[tuple[int, str, Tag]] = []  # the highest hash on top: (-hash, paragraph, tag)

    def add(self, paragraph: str, tag: Tag, fraction: float = 1.0) -> None:
        """Offer a paragraph; `tag` says whose it is (see `paragraphs`).

        fraction: of its source that is offered. The hash shrinks by it, so that a source of which a tenth is offered is
        drawn from ten times as often, and the sample has the sources' own proportions.
        """
        hashed = hashlib.blake2b(paragraph.encode(), digest_size=8, key=self._key).digest()
        self._push(-int(int.from_bytes(hashed) * fraction), paragraph, tag)

    def merge(self, other: "TextSample") -> None:
        """Take over what another sample of the same seed holds."""
        for negative, paragraph, tag in other._heap:
            self._push(negative, paragraph, tag)

    def _push(self, negative: int, paragraph: str, tag: Tag) -> None:
        entry = (negative, paragraph, tag)
        if self._characters >= self._limit and entry <= self._heap[0]:  # the same paragraph may stand in several documents
            return
        heapq.heappush(self._heap, entry)
        self._characters += len(paragraph)
        while self._characters - len(self._heap[0][1]) >= self._limit:
            self._characters -= len(heapq.heappop(self._heap)[1])

    def paragraphs(self, without: Callable[[Tag], bool]) -> list[str]:
        """The sample, in an order that depends on nothing but itself, less those whose tag is to be left out."""
        return [paragraph for _, paragraph, tag in sorted(self._heap, reverse=True) if not without(tag)]


def train(sentences: Sequence[str], vocab_size: int, say: Callable[[str], None] = lambda line: None) -> bytes:
    """Train on sentences and return the model file's bytes: same sentences, same bytes, whatever the machine's cores.

    A sentence of more than MAX_SENTENCE_BYTES is trained on in pieces, RESERVED not at all. SentencePiece's warnings are said,
    a line each. ValueError: vocab_size is more than the text can fill, or less than its characters need. Works in a child
    process, because the trainer's C++ code would keep Ctrl-C waiting until it is done.
    """
    context = clean_processes()
    here, there = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        child = context.Process(target=_receive_train_and_send, args=(there, vocab_size, log), daemon=True)
        # A Ctrl-C between the child's start and the moment it is known here would leave it running: it has to wait.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            child.start()
            there.close()  # else the end of the child would not end the waits
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            here.send(list(_cut(sentences)))
            result = here.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            child.join()
            last = log.read_text(errors="replace").splitlines()[-1:] if log.exists() else []
            raise OSError(
                f"tokenizer training ended with signal or code {child.exitcode}; {' '.join(last) or 'out of memory?'}"
            ) from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if child.pid is not None:
                child.kill()
                child.join()
        warnings = _warnings(log.read_text(errors="replace"))
    for warning in warnings:
        say(f"WARNING: SentencePiece: {warning}")
    if isinstance(result, ValueError):
        raise result
    return result


def _cut(sentences: Iterable[str]) -> Iterator[str]:
    """The sentences as SentencePiece leaves none out: those of more than MAX_SENTENCE_BYTES in pieces, cut at spaces, or
    between characters; a space in place of its reserved character."""
    for sentence in (sentence.replace(RESERVED, " ") for sentence in sentences):
        if len(sentence) * 4 <= MAX_SENTENCE_BYTES or len(content := sentence.encode()) <= MAX_SENTENCE_BYTES:
            yield sentence
            continue
        start = 0
        while len(content) - start > MAX_SENTENCE_BYTES:
            end = content.rfind(b" ", start + 1, start + MAX_SENTENCE_BYTES + 1)
            if end < 0:
                end = start + MAX_SENTENCE_BYTES
                while content[end] & 0xC0 == 0x80:  # within a character of UTF-8
                    end -= 1
            yield content[start:end].decode()
            start = end + (content[end : end + 1] == b" ")
        yield content[start:].decode()


def _warnings(log: str) -> list[str]:
    """The different warnings in what SentencePiece wrote, without their time and place; the first ones of many."""
    found = list(dict.fromkeys(match[1] for line in log.splitlines() if (match := _LOGGED.match(line))))
    more = [f"and {len(found) - NAMED_WARNINGS:,} more warnings"] if len(found) > NAMED_WARNINGS else []
    return [*found[:NAMED_WARNINGS], *more]


def _receive_train_and_send(parent: Connection, vocab_size: int, log: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, and the parent ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 2)  # the trainer's C++ code knows no other place for its warnings
    result: bytes | ValueError
    try:
        result = _train(parent.recv(), vocab_size)
    except ValueError as error:
        result = error
    except EOFError:  # the parent was killed
        return
    with contextlib.suppress(BrokenPipeError):  # it was killed meanwhile: nobody wants the model any more
        parent.send(result)


def _train(sentences: Sequence[str], vocab_size: int) -> bytes:
    try:
        model = _sentencepiece_model(sentences, vocab_size)
    except RuntimeError as error:
        raise ValueError(_training_error(str(error), sentences, vocab_size)) from None
    check_specials(sentencepiece.SentencePieceProcessor(model_proto=model), "the trained model")
    return model


def symbols_of(sentences: Sequence[str]) -> list[str]:
    """What the tokenizer of this text keeps as a piece of its own: U+200C, where it stands as often as what is covered."""
    characters = sum(map(len, sentences))
    found = sum(sentence.count(ZERO_WIDTH_NON_JOINER) for sentence in sentences)
    return [ZERO_WIDTH_NON_JOINER] if found > (1 - COVERAGE) * characters else []


def _sentencepiece_model(sentences: Sequence[str], vocab_size: int) -> bytes:
    """RuntimeError with SentencePiece's reason if it cannot."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="unigram",
        vocab_size=vocab_size,
        normalization_rule_name="nmt_nfkc_cf",
        character_coverage=COVERAGE,
        max_sentence_length=MAX_SENTENCE_BYTES,
        pad_id=PAD_ID,
        pad_piece=SPECIAL_PIECES[PAD_ID],
        unk_id=UNK_ID,
        unk_piece=SPECIAL_PIECES[UNK_ID],
        bos_id=-1,
        eos_id=-1,
        control_symbols=[SPECIAL_PIECES[i] for i in (CLS_ID, SEP_ID, MASK_ID)],
        user_defined_symbols=symbols_of(sentences),
        num_threads=TRAINING_THREADS,
        minloglevel=1,  # warnings
    )
    return model.getvalue()


def _training_error(message: str, sentences: Sequence[str], vocab_size: int) -> str:
    """One line with all that is known of the sizes that this text can have, so that its advice is true at once."""
    least, most = _limits(message)
    if least is None and most is None:
        return f"--vocab-size {vocab_size}: SentencePiece could not train: {message}"
    if sum(map(len, sentences)) <= SMALL_SAMPLE_CHARACTERS:  # the other limit is another attempt's error
        try:
            _sentencepiece_model(sentences, FIRST_ORDINARY_ID + 1 if least is None else LARGEST_VOCABULARY)
        except RuntimeError as error:
            other = _limits(str(error))
            least, most = least or other[0], most or other[1]
    if most and most < vocab_size:
        from_ = f", from {least} on, which its characters and special pieces alone need," if least else ""
        return (
            f"--vocab-size {vocab_size}: the text yields at most {most} pieces; "
            f"choose --vocab-size {most} or less{from_} or give more text"
        )
    up_to = f", to {most} at most, all that the text yields" if most else ""
    return f"--vocab-size {vocab_size}: the text's characters and special pieces alone need {least}; raise it{up_to}"


def _limits(message: str) -> tuple[int | None, int | None]:
    """(least, most) pieces, as far as SentencePiece's error says."""
    too_high = re.search(r"too high.*<= (\d+)", message)
    too_low = re.search(r"smaller than required_chars\D*(\d+) vs (\d+)", message)
    return int(too_low[2]) if too_low else None, int(too_high[1]) if too_high else None


def load(path: Path | str) -> sentencepiece.SentencePieceProcessor:
    """Load a model file. `encode(sentences)` gives lists of ids; a special's name in a text is ordinary text to it.

    FileNotFoundError, or ValueError: not a model, or not one with BERT's special pieces at 0-4.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a SentencePiece model")
    tokenizer = sentencepiece.SentencePieceProcessor()
    try:
        tokenizer.load(str(path))
    except RuntimeError as error:
        raise ValueError(f"{path}: not a SentencePiece model ({error}); copy the corpus again") from None
    check_specials(tokenizer, str(path))
    return tokenizer


def readable(piece: str) -> str:
    """A piece as a reader is shown it: "▁the" is the, "ing", which goes on with the word before, is …ing, "," stays."""
    if piece.startswith(WORD_START):
        return piece[len(WORD_START) :] or piece
    return f"…{piece}" if piece[:1].isalnum() else piece


def check_specials(tokenizer: sentencepiece.SentencePieceProcessor, name: str) -> None:
    """ValueError unless ids 0-4 are [PAD], [UNK], [CLS], [SEP], [MASK]."""
    found = tuple(tokenizer.id_to_piece(i) for i in range(min(FIRST_ORDINARY_ID, tokenizer.get_piece_size())))
    if found != SPECIAL_PIECES:
        raise ValueError(f"{name}: pieces 0-4 are {found}, expected {SPECIAL_PIECES}; build the corpus again")
