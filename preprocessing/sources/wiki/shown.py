"""What single templates show for their arguments: one function each, for the table in `templates`. None: nothing to show.

Those of dates are in `dates`, those of other languages in `languages`.
"""

import re
from collections.abc import Callable

from preprocessing.sources.wiki import units
from preprocessing.sources.wiki.arguments import Arguments
from preprocessing.sources.wiki.codes import COUNTRIES, CURRENCIES
from preprocessing.sources.wiki.marks import BREAK

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

# Parser functions, {{lc:ABC}}.
FUNCTIONS: dict[str, Callable[[str], str]] = {
    "formatnum": lambda argument: argument.strip(),
    "lc": str.lower,
    "uc": str.upper,
    "lcfirst": lambda argument: argument[:1].lower() + argument[1:],
    "ucfirst": lambda argument: argument[:1].upper() + argument[1:],
    "int": lambda argument: "",
    "ns": lambda argument: "",
}


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
    return None if text is None else BREAK + text.replace("\n", BREAK) + BREAK  # of verses each line is one


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


def measured(arguments: Arguments) -> str | None:
    """French: {{unité|5|km|2}} is 5 km²."""
    number, unit, exponent = (*(item.strip() for item in arguments.positional), "", "", "")[:3]
    return f"{number} {unit}{units.power(exponent) if unit else ''}".strip() or None


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
    sign, *numbers = [item.strip() for item in arguments.positional] or [""]
    if sign.lower() in ("time", "scale"):
        return "/".join(numbers) or None
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


def years_ago(arguments: Arguments) -> str | None:
    """{{mya|5}}; without a number it is a country's flag."""
    shown = "–".join(item.strip() for item in arguments.positional[:2] if item.strip())
    return f"{shown} million years ago" if shown else "Myanmar"


def megayears(arguments: Arguments) -> str | None:
    shown = "–".join(item.strip() for item in arguments.positional[:2] if item.strip())
    return f"{shown} Ma" if shown else None


def verse(arguments: Arguments) -> str | None:
    return " ".join(item.strip() for item in arguments.positional[:2]) or None


def nuclide(arguments: Arguments) -> str | None:
    return "-".join(item.strip() for item in arguments.positional[:2]) or None


def link_url(arguments: Arguments) -> str | None:
    return arguments.first("2", "1")
