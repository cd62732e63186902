"""What templates of other languages show: their words, readings and quotation marks, and links to Wikipedias in them."""

from preprocessing.sources.wiki.arguments import Arguments
from preprocessing.sources.wiki.codes import LANGUAGES
from preprocessing.sources.wiki.names import INTERLANGUAGE
from preprocessing.sources.wiki.shown import Show


def language(code: str) -> Show:
    def show(arguments: Arguments) -> str | None:
        text = arguments.first("1", "text")
        if not text:
            return None
        label = "" if arguments.named.get("label", "").strip() == "none" else LANGUAGES.get(code, "")
        shown = f"{label}: {text.strip()}" if label else text.strip()
        romanised, meaning = arguments.first("2", "translit") or "", arguments.first("3", "lit", "translation") or ""
        shown += f", romanized: {romanised.strip()}" if romanised.strip() else ""
        return shown + (f", lit. '{meaning.strip()}'" if meaning.strip() else "")

    return show


def langx(arguments: Arguments) -> str | None:
    code = arguments.positional[0].strip().lower() if arguments.positional else ""
    return language(code)(Arguments(arguments.positional[1:], arguments.named))


def named_language(arguments: Arguments) -> str | None:
    """{{langnf|de|German|Haus}}."""
    name, text = (*(item.strip() for item in arguments.positional[1:]), "", "")[:2]
    return f"{name}: {text}" if name and text else text or None


def korean(arguments: Arguments) -> str | None:
    named = [arguments.named.get(key, "").strip() for key in ("hangul", "hanja", "rr", "mr")]
    return "; ".join(item for item in named if item) or arguments.first("1")


def reading(arguments: Arguments) -> str | None:
    """Japanese: {{読み仮名|漢字|かな}} is 漢字（かな）."""
    word, kana = (*(item.strip() for item in arguments.positional), "", "")[:2]
    return f"{word}（{kana}）" if word and kana else word or None


def quoted(arguments: Arguments) -> str | None:
    """German: {{"|text}} is a quotation, {{"}} a mark."""
    text = arguments.first("1", "text")
    return f"„{text}“" if text else '"'


def guillemets(arguments: Arguments) -> str | None:
    """French: {{citation|text}} is a quotation; in English its arguments are named, and it is a reference."""
    text = arguments.first("1")
    return f"« {text} »" if text else None


def interlanguage(arguments: Arguments) -> str | None:
    """{{ill|Title|de}}, and as it was once written, {{ill|de|Title}}."""
    if label := arguments.first("lt", "label", "display"):
        return label
    first, second = (*(item.strip() for item in arguments.positional), "", "")[:2]
    backwards = first in INTERLANGUAGE and second and second not in INTERLANGUAGE
    return second if backwards else arguments.first("1", "text", "2")


def foreign_link(arguments: Arguments) -> str | None:
    """{{link-en|title here|title there|what is shown}}; French: {{lien|title|texte=…}}."""
    return arguments.first("texte", "3", "1", "fr", "trad")


def missing_link(arguments: Arguments) -> str | None:
    """Russian: {{нп5|title here|what is shown|en|title there}}."""
    return arguments.first("текст", "2", "надо", "1")


def translated_link(arguments: Arguments) -> str | None:
    """Chinese: {{tsl|en|title there|title here|what is shown}}."""
    return arguments.first("4", "3", "2")


def zh(arguments: Arguments) -> str | None:
    labels = {
        "c": "Chinese",
        "s": "simplified Chinese",
        "t": "traditional Chinese",
        "p": "pinyin",
        "w": "Wade–Giles",
        "j": "Jyutping",
        "cy": "Cantonese Yale",
        "poj": "Pe̍h-ōe-jī",
        "l": "lit.",
    }
    plain = arguments.flag("labels", no=True)
    shown = [value if plain else f"{labels[key]}: {value}" for key in labels if (value := arguments.named.get(key, "").strip())]
    return "; ".join(shown) or (arguments.first("1") or None)


def zh_without_labels(arguments: Arguments) -> str | None:
    return zh(Arguments(arguments.positional, {**arguments.named, "labels": "no"}))


def nihongo(arguments: Arguments) -> str | None:
    english, kanji, romaji, extra = (*(item.strip() for item in arguments.positional), "", "", "", "")[:4]
    extra = extra or arguments.named.get("extra", "")
    inside = ", ".join(item for item in (kanji, romaji, extra) if item)
    return (f"{english} ({inside})" if english and inside else english or inside) or None


def nihongo3(arguments: Arguments) -> str | None:
    english, kanji, romaji = (*(item.strip() for item in arguments.positional), "", "", "")[:3]
    return nihongo(Arguments([romaji, kanji, english], {}))
