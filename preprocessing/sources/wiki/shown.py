"""What single templates show for their arguments: one function each, for the table in `templates`. None: nothing to show.

Longer than a room should be: some forty short functions of one kind, one a family of templates.
"""

# ruff: noqa: SIM905 (lists of words are best read as words)
import re
from collections.abc import Callable

from preprocessing.sources.wiki import units
from preprocessing.sources.wiki.arguments import Arguments
from preprocessing.sources.wiki.codes import COUNTRIES, CURRENCIES, LANGUAGES
from preprocessing.sources.wiki.names import INTERLANGUAGE

BREAK = "\n"
Show = Callable[[Arguments], str | None]
_MUSIC = {
    "flat": "♭",
    "b": "♭",
    "sharp": "♯",
    "#": "♯",
    "natural": "♮",
    "doublesharp": "𝄪",
    "doubleflat": "𝄫",
    "quarter": "♩",
    "eighth": "♪",
}
_MONTHS = tuple("January February March April May June July August September October November December".split())


def always(text: str) -> Show:
    """The same text, whatever the arguments."""
    return lambda arguments: text


def first_of(arguments: Arguments) -> str | None:
    return arguments.first("lt", "1", "text", "2")


def numbered(number: int) -> Show:
    def show(arguments: Arguments) -> str | None:
        if number < 0:
            return arguments.positional[-1] if arguments.positional else None
        return arguments.first(str(number), "text") if len(arguments.positional) >= number else arguments.first("text", "1")

    return show


def block(arguments: Arguments) -> str | None:
    text = arguments.first("text", "quote", "content", "1", "texte", "texto", "text1")
    return None if text is None else f"{BREAK}{text}{BREAK}"


def joined(separator: str) -> Show:
    return lambda arguments: separator.join(item for item in arguments.positional if item.strip()) or None


def lines_of(arguments: Arguments) -> str | None:
    items = [item.strip() for item in arguments.positional if item.strip()]
    return BREAK + BREAK.join(items) + BREAK if items else None


def labelled(label: str) -> Show:
    def show(arguments: Arguments) -> str | None:
        shown = "–".join(item.strip() for item in arguments.positional[:2] if item.strip())
        return label + shown if shown else label.strip() or None

    return show


def around(left: str, right: str) -> Show:
    def show(arguments: Arguments) -> str | None:
        text = arguments.first("1", "text")
        return left + text.strip() + right if text else None

    return show


def convert(arguments: Arguments) -> str | None:
    return units.convert(arguments.positional) or None


def val(arguments: Arguments) -> str | None:
    return units.value(arguments.positional, arguments.named) or None


def fraction(arguments: Arguments) -> str | None:
    found = [item.strip() for item in arguments.positional if item.strip()][:3]
    if len(found) == 3:
        return f"{found[0]} {found[1]}/{found[2]}"
    return {0: "/", 1: f"1/{found[0]}" if found else ""}.get(len(found)) or "/".join(found)


def power(arguments: Arguments) -> str | None:
    base = "10" if len(arguments.positional) < 2 else arguments.positional[0].strip()
    return base + units.power(arguments.positional[-1]) if arguments.positional else None


def exponent(arguments: Arguments) -> str | None:
    return " × 10" + units.power(arguments.positional[0]) if arguments.positional else None


def height(arguments: Arguments) -> str | None:
    shown = [
        f"{units.number(arguments.named[code])} {code}"
        for code in ("m", "cm", "ft", "in", "kg", "lb", "st")
        if arguments.named.get(code)
    ]
    return " ".join(shown) or None


def month_name(text: str) -> str:
    text = text.strip()
    if text.isdecimal():
        return _MONTHS[int(text) - 1] if 1 <= int(text) <= 12 else ""
    return next((month for month in _MONTHS if len(text) >= 3 and month.lower().startswith(text.lower())), text)


def date(parts: list[str], day_first: bool) -> str:
    """Year, month, day, as many as there are, or the same backwards, as a date in words."""
    year, month, day = [*(part.strip() for part in parts[:3]), "", "", ""][:3]
    if len(day) == 4 and day.isdecimal() and len(year) < 3:  # {{date|3|mai|2001}}
        year, day, day_first = day, year, True
    if not month:
        return year
    day = day.lstrip("0")
    if not day:
        return f"{month_name(month)} {year}".strip()
    return f"{day} {month_name(month)} {year}" if day_first else f"{month_name(month)} {day}, {year}"


def date_of(default_day_first: bool) -> Show:
    def show(arguments: Arguments) -> str | None:
        day_first = default_day_first or arguments.flag("df")
        return date(arguments.positional, day_first and not arguments.flag("mf")).strip() or None

    return show


def dated_age(arguments: Arguments) -> str | None:
    numbers = arguments.positional[:6]
    shown = date(numbers[:3], arguments.flag("df"))
    if len(numbers) == 6 and all(item.strip().isdecimal() for item in numbers):
        died, born = (tuple(int(item) for item in numbers[at : at + 3]) for at in (0, 3))
        shown += f" (aged {died[0] - born[0] - (died[1:] < born[1:])})"
    return shown or None


def age(arguments: Arguments) -> str | None:
    numbers = [item.strip() for item in arguments.positional[:6]]
    if len(numbers) < 6 or not all(item.isdecimal() for item in numbers):
        return None  # until today: nobody knows which day that is
    born, then = (tuple(int(item) for item in numbers[at : at + 3]) for at in (0, 3))
    return str(then[0] - born[0] - (then[1:] < born[1:]))


def as_of(arguments: Arguments) -> str | None:
    if alternative := arguments.named.get("alt", "").strip():
        return alternative
    shown = date(arguments.positional, arguments.named.get("df", "").strip().upper() != "US")
    if shown and (before := arguments.named.get("pre", "").strip()):
        shown = f"{before} {shown}"
    word = "since" if arguments.flag("since") else "as of"
    word = "" if arguments.flag("bare") else word if arguments.flag("lc") else word.capitalize()
    return f"{word} {shown}{arguments.named.get('post', '')}".strip() if shown else None


def currency(symbol: str) -> Show:
    return lambda arguments: symbol + (arguments.positional[0].strip() if arguments.positional else "") or None


def any_currency(arguments: Arguments) -> str | None:
    amount, code = (*arguments.positional, "", "")[:2]
    return CURRENCIES.get(code.strip().lower(), code.strip() or "$") + amount.strip() if amount.strip() else None


def pounds(arguments: Arguments) -> str | None:
    marks = {"l": "£{}", "s": "{}s", "d": "{}d"}
    return (
        " ".join(mark.format(arguments.named[key].strip()) for key, mark in marks.items() if arguments.named.get(key)) or None
    )


def ship(arguments: Arguments) -> str | None:
    prefix, name, number, form = (*(item.strip() for item in arguments.positional), "", "", "", "")[:4]
    form = form or arguments.named.get("format", "").strip()
    number = "" if form in ("1", "2", "6") or arguments.named.get("up") else number
    prefix = "" if form in ("2", "3") else prefix
    return f"{prefix} {name}{f' ({number})' if number else ''}".strip() or None


def prefixed_ship(prefix: str) -> Show:
    return lambda arguments: ship(Arguments([prefix, *arguments.positional], arguments.named)) if arguments.positional else None


def ship_class(arguments: Arguments) -> str | None:
    name, type_, form = (*(item.strip() for item in arguments.positional), "", "", "")[:3]
    shown = {"0": f"{name}-class", "1": f"{name} class", "2": name, "4": f"{name} class {type_}", "5": f"{name}-class"}
    return shown.get(form, f"{name}-class {type_}").strip() or None


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


def measured(arguments: Arguments) -> str | None:
    """French: {{unité|5|km|2}} is 5 km²."""
    number, unit, exponent = (*(item.strip() for item in arguments.positional), "", "", "")[:3]
    return f"{number} {unit}{units.power(exponent) if unit else ''}".strip() or None


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


def translated_link(arguments: Arguments) -> str | None:
    """Chinese: {{tsl|en|title there|title here|what is shown}}."""
    return arguments.first("4", "3", "2")


def rupees(arguments: Arguments) -> str | None:
    amount, code = (*(item.strip() for item in arguments.positional), "", "")[:2]
    scales = {
        "k": " thousand",
        "l": " lakh",
        "m": " million",
        "c": " crore",
        "b": " billion",
        "t": " trillion",
        "lc": " lakh crore",
    }
    return f"₹{amount}{scales.get(code, '')}" if amount else None


def plus_minus(arguments: Arguments) -> str | None:
    upper, lower = (*(item.strip() for item in arguments.positional), "", "")[:2]
    return f"+{upper} −{lower}" if lower else f"±{upper}" if upper else None


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


def nihongo(arguments: Arguments) -> str | None:
    english, kanji, romaji, extra = (*(item.strip() for item in arguments.positional), "", "", "", "")[:4]
    extra = extra or arguments.named.get("extra", "")
    inside = ", ".join(item for item in (kanji, romaji, extra) if item)
    return (f"{english} ({inside})" if english and inside else english or inside) or None


def nihongo3(arguments: Arguments) -> str | None:
    english, kanji, romaji = (*(item.strip() for item in arguments.positional), "", "", "")[:3]
    return nihongo(Arguments([romaji, kanji, english], {}))


def sic(arguments: Arguments) -> str | None:
    text = "".join(arguments.positional[:2]).strip()
    return (text or None) if arguments.flag("hide") else f"{text} [sic]".strip()


def country(arguments: Arguments) -> str | None:
    name = (arguments.first("name", "1") or "").strip()
    return COUNTRIES.get(name.lower(), name) or None


def athlete(arguments: Arguments) -> str | None:
    name, country = (*(item.strip() for item in arguments.positional), "", "")[:2]
    return f"{name} ({country})" if country else name or None


def flag(arguments: Arguments) -> str | None:
    return arguments.first("name", "1")


def gauge(arguments: Arguments) -> str | None:
    found = (
        re.sub(r"(?<=\d)(?=(?:ft|in|mm|m)\b|ft|in|mm)", " ", arguments.positional[0].strip()) if arguments.positional else ""
    )
    standard = found.lower() in ("sg", "std", "standard", "ussg", "uksg")
    return "1,435 mm" if standard else re.sub(r"(?<=ft)(?=\d)", " ", found) or None


def music(arguments: Arguments) -> str | None:
    return "".join(_MUSIC.get(item.strip().lower(), item.strip()) for item in arguments.positional) or None


def ordinal(arguments: Arguments) -> str | None:
    text = arguments.positional[0].strip() if arguments.positional else ""
    if not text.isdecimal():
        return text or None
    return text + ("th" if text[-2:] in ("11", "12", "13") else {"1": "st", "2": "nd", "3": "rd"}.get(text[-1], "th"))


def roads(arguments: Arguments) -> str | None:
    items = [item.strip() for item in arguments.positional]
    pairs = zip(items[::2], items[1::2], strict=False)
    return " / ".join(f"I-{number}" if kind == "I" else f"{kind} {number}" for kind, number in pairs if number) or None


def old_style(arguments: Arguments) -> str | None:
    day, year, old = (*(item.strip() for item in arguments.positional), "", "", "")[:3]
    return f"{day} [O.S. {old}] {year}".strip() if old else f"{day} {year}".strip() or None


def section_link(arguments: Arguments) -> str | None:
    return " § ".join(item.strip() for item in arguments.positional if item.strip()) or None


def percentage(arguments: Arguments) -> str | None:
    try:
        part, whole, digits = [*(float(item.replace(",", "")) for item in arguments.positional[:3]), 0.0][:3]
        return f"{100 * part / whole:.{min(9, max(0, int(digits)))}f}%"
    except (ValueError, ZeroDivisionError):
        return None


def harvard(arguments: Arguments) -> str | None:
    *names, year = [item.strip() for item in arguments.positional[:5]] or [""]
    return f"{' & '.join(names)} ({year})" if names else None


def verse(arguments: Arguments) -> str | None:
    return " ".join(item.strip() for item in arguments.positional[:2]) or None


def nuclide(arguments: Arguments) -> str | None:
    return "-".join(item.strip() for item in arguments.positional[:2]) or None


def french_number(name: str) -> str:
    """French, a name that is its text: {{XIXe siècle}}, {{1er}}; "" for any other."""
    found = re.fullmatch(r"(\d+|[ivxlc]+)(er|re|e)( siècle)?", name)
    return f"{found[1].upper()}{found[2]}{found[3] or ''}" if found else ""


def century(arguments: Arguments) -> str | None:
    """French: {{s-|XIX|e}}."""
    number, ending = (*(item.strip() for item in arguments.positional), "", "")[:2]
    return f"{number}{ending} siècle" if number and ending else None


def link_url(arguments: Arguments) -> str | None:
    return arguments.first("2", "1")
