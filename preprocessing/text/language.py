"""Which language a text is in: py3langid's guess, of 97 languages, from the text's beginning.

py3langid (a kept descendant of langid.py) counts byte n-grams, is deterministic, and carries its 2 MB model with it: no
download. A guess, least sure for a handful of words and among close relatives (Danish and Norwegian).
"""

N_CHARACTERS = 2000
"""How much of a text is looked at: more makes the guess no better and takes longer."""


def detect(text: str) -> str:
    """The two-letter code (ISO 639-1) of the most likely language of the text's first 2,000 characters.

    "zxx" (ISO 639-2: nothing linguistic) for a text without words, such as numbers; an empty one gets some code too.
    ModuleNotFoundError: py3langid is not installed.
    """
    import py3langid  # here, for it takes half a second and only --language needs it

    code, _ = py3langid.classify(text[:N_CHARACTERS])
    return str(code)
