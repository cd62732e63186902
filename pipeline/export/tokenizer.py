"""The corpus' SentencePiece model as a fast tokenizer of Hugging Face: the same ids, and characters of the text as offsets.

    normalizer      what `preprocessing.text.clean` does to a line, then SentencePiece's own folding, from its table
    pre_tokenizer   words by white space; "Ġ" marks the space before a word, where SentencePiece has "▁"
    model           Unigram: the same pieces and scores
    post_processor  the space before a word is no part of its offsets; [CLS] A [SEP] B [SEP]

"Ġ" is what the library takes away from offsets, and folded text has no such letter ("Ġ" is folded to "ġ"). [MASK] takes the
space before it: "is [MASK]." is "▁is", [MASK], ".", as in masked text.
"""

import base64
import re
from typing import Any

from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

from preprocessing.corpus.reader import CLS_ID, FIRST_ORDINARY_ID, MASK_ID, SEP_ID, SPECIAL_PIECES, UNK_ID
from preprocessing.text.clean import CONTROLS, LOOSE_JOINER

SPACE, SPACE_HERE = "▁", "Ġ"
NAMES = {"pad_token": 0, "unk_token": UNK_ID, "cls_token": CLS_ID, "sep_token": SEP_ID, "mask_token": MASK_ID}


def tokenizer_json(tokenizer: SentencePieceProcessor) -> dict[str, Any]:
    """The contents of tokenizer.json."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(number) for number in range(FIRST_ORDINARY_ID)],
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(tokenizer)},
        "pre_tokenizer": {"type": "Metaspace", "replacement": SPACE_HERE, "prepend_scheme": "first", "split": True},
        "post_processor": {"type": "Sequence", "processors": [_TRIM, _template()]},
        "decoder": {"type": "Metaspace", "replacement": SPACE_HERE, "prepend_scheme": "first", "split": True},
        "model": {
            "type": "Unigram",
            "unk_id": UNK_ID,
            "vocab": [
                [tokenizer.id_to_piece(i).replace(SPACE, SPACE_HERE), tokenizer.get_score(i)]
                for i in range(tokenizer.get_piece_size())
            ],
            "byte_fallback": False,
        },
    }


def tokenizer_config(max_length: int) -> dict[str, Any]:
    """The contents of tokenizer_config.json; `max_length` of a sequence, in tokens."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        **{name: SPECIAL_PIECES[number] for name, number in NAMES.items()},
        "added_tokens_decoder": {
            str(number): {key: value for key, value in _special(number).items() if key != "id"}
            for number in range(FIRST_ORDINARY_ID)
        },
    }


def _special(number: int) -> dict[str, Any]:
    """A token that is found in the text by its name. [MASK] takes the white space before it with it."""
    return {
        "id": number,
        "content": SPECIAL_PIECES[number],
        "single_word": False,
        "lstrip": number == MASK_ID,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _normalizers(tokenizer: SentencePieceProcessor) -> list[dict[str, Any]]:
    folding = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.serialized_model_proto()).normalizer_spec
    table = base64.b64encode(folding.precompiled_charsmap).decode()
    controls = "".join(re.escape(chr(code)) for code in CONTROLS)
    return [
        {"type": "NFC"},
        # Metaspace marks the first word where it begins at character 0: what shows nothing before it (a byte order mark) is to
        # become its space, for without it the word would seem to go on with another.
        _replace(rf"\A[{controls}\u200c\u200d]+", " "),
        _replace(f"[{controls}]", ""),
        _replace(LOOSE_JOINER.pattern, ""),
        {"type": "Precompiled", "precompiled_charsmap": table},
        _replace(rf"[\s{SPACE}]", " "),
        _replace(" +(?= )", ""),  # the last of several stays: a word's offsets begin behind it
        {"type": "Strip", "strip_left": False, "strip_right": True},
    ]


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


# The first word's mark stands for no character of the text, which `add_prefix_space` says.
_TRIM = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}


def _template() -> dict[str, Any]:
    cls, sep = (SPECIAL_PIECES[number] for number in (CLS_ID, SEP_ID))

    def special(name: str, type_id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": type_id}}

    def text(name: str, type_id: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    single = [special(cls, 0), text("A", 0), special(sep, 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, text("B", 1), special(sep, 1)],
        "special_tokens": {
            name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ((cls, CLS_ID), (sep, SEP_ID))
        },
    }
