"""Measures in templates: {{convert}} and its like as "value unit", with ranges, signs and compound units, not converted."""

# ruff: noqa: SIM905 (lists of words are best read as words)
import re

from preprocessing.sources.wiki.codes import UNITS

# How {{convert}} shows what stands between two values of a range, or of a product.
_BETWEEN = {
    **dict.fromkeys(("-", "–", "&ndash;"), "–"),
    **dict.fromkeys(("to", "to-", "to(-)"), " to "),
    **dict.fromkeys(("and", "&", "and(-)"), " and "),
    **dict.fromkeys(("or", "or(-)"), " or "),
    **dict.fromkeys(("by", "by(x)"), " by "),
    **dict.fromkeys(("x", "*", "×", "xx", "x(by)"), " × "),
    **dict.fromkeys(("+/-", "±", "&plusmn;"), " ± "),
    "+": " + ",
    "/": "/",
    ",": ", ",
    ", and": ", and ",
    ", or": ", or ",
    "to about": " to about ",
    "till": " till ",
    "~": " ~ ",
}
_COMPOUND = frozenset(
    "ft in mi yd lb oz st lbs foot feet inch inches chain furlong cwt qtr LT hr h min s nmi ch fur m cm km kg g".split()
)
_FRACTION = re.compile(r"(?:(\d+)\s*\+\s*)?(\d+)\s*//?\s*(\d+)")
_NUMBER = re.compile(r"[-−–+]?[\d.,]*\d[\d.,]*(?:e[-+]?\d+)?", re.IGNORECASE)
_SCALES = {"e3": "thousand", "e6": "million", "e9": "billion", "e12": "trillion"}
_SCALED = re.compile(r"(e(?:3|6|9|12))(\D.*)")
_RAISED = re.compile(r"(?<=[a-z])[23](?![\w.])")
_SUPERSCRIPTS = str.maketrans("0123456789-−–+", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁻⁻⁺")
_SUBSCRIPTS = str.maketrans("0123456789-−–+", "₀₁₂₃₄₅₆₇₈₉₋₋₋₊")


def power(text: str) -> str:
    """An exponent, raised."""
    return text.strip().translate(_SUPERSCRIPTS)


def lowered(text: str) -> str:
    """A number below the line, such as a base."""
    return text.strip().translate(_SUBSCRIPTS)


def number(text: str) -> str:
    """A value as text: a minus that is one, fractions as 1 1/2."""
    text = text.strip().replace("&minus;", "−").replace("&nbsp;", " ")
    sign = "−" if text.startswith(("-", "−")) and len(text) > 1 else ""
    body = text[1:].strip() if sign else text
    fraction = _FRACTION.fullmatch(body)
    if fraction:
        whole, upper, lower = fraction.groups()
        body = f"{whole} {upper}/{lower}" if whole else f"{upper}/{lower}"
    return sign + body


def is_number(text: str) -> bool:
    """Whether an argument is a value rather than a unit or a word."""
    text = text.strip().replace("&minus;", "−")
    return _NUMBER.fullmatch(text) is not None or _FRACTION.fullmatch(text.lstrip("-−+").strip()) is not None


def unit(code: str) -> str:
    """A unit's code as it is read: "e6cuft" is "million cu ft", "oilbbl/d" is "bbl/d"."""
    code = code.strip()
    if code in UNITS:
        return UNITS[code]
    if scaled := _SCALED.fullmatch(code):
        return f"{_SCALES[scaled[1]]} {unit(scaled[2])}"
    upper, slash, lower = code.partition("/")
    lower = _RAISED.sub(lambda found: power(found[0]), lower)
    return f"{unit(upper)}/{lower}" if slash and upper else _RAISED.sub(lambda found: power(found[0]), code)


def convert(positional: list[str]) -> str:
    """{{convert|5|to|10|km|mi}} as "5 to 10 km": values, what stands between them, units; not what they are converted into."""
    if not positional:
        return ""
    shown, at = number(positional[0]), 1
    while at + 1 < len(positional):
        word = positional[at].strip()
        if word in _BETWEEN and positional[at + 1].strip():
            shown += _BETWEEN[word] + number(positional[at + 1])
            at += 2
        elif word in _COMPOUND and is_number(positional[at + 1]) and "".join(positional[at + 2 : at + 3]).strip() in _COMPOUND:
            shown += f" {unit(word)} {number(positional[at + 1])}"  # 5 ft 11 in
            at += 2
        else:
            break
    code = unit(positional[at]) if at < len(positional) else ""
    return f"{shown}{'' if code.startswith('°') and len(code) == 1 else ' '}{code}".strip()


def value(positional: list[str], named: dict[str, str]) -> str:
    """{{val|5.2|0.3|e=6|u=kg}} as "5.2 ± 0.3 × 10⁶ kg"."""
    shown = number(positional[0]) if positional else ""
    errors = [error.strip() for error in positional[1:3] if error.strip()]
    if len(errors) == 2 and errors[0] not in _BETWEEN:
        shown += f" +{errors[0].lstrip('+')} −{errors[1].lstrip('-−')}"
    elif len(errors) == 2:
        for word, other in zip(positional[1::2], positional[2::2], strict=False):  # 2 × 3 × 4
            shown += _BETWEEN.get(word.strip(), f" {word.strip()} ") + number(other)
    elif errors and not (errors[0].startswith("(") or not is_number(errors[0])):
        shown += f" ± {errors[0]}"
    elif errors:
        shown += errors[0]
    if exponent := named.get("e", "").strip():
        shown = f"{shown} × 10{power(exponent)}" if shown else f"10{power(exponent)}"
    code = next((named[key].strip() for key in ("u", "ul") if named.get(key, "").strip()), "")
    per = next((named[key].strip() for key in ("up", "upl") if named.get(key, "").strip()), "")
    prefix, suffix = named.get("p", ""), named.get("s", "")
    space = "" if code in ("%", "‰", "°") else " "
    return f"{prefix}{shown}{suffix}{space}{unit(code)}{'/' + unit(per) if per else ''}".strip()
