"""What templates of dates, ages and centuries show."""

# ruff: noqa: SIM905 (lists of words are best read as words)
import re

from preprocessing.sources.wiki.arguments import Arguments
from preprocessing.sources.wiki.shown import Show

_MONTHS = tuple("January February March April May June July August September October November December".split())


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


MONTH_FIRST, DAY_FIRST = date_of(False), date_of(True)


def in_figures(arguments: Arguments) -> str | None:
    """A date that no English month stands in: 1990-05-03, unless the month is a word."""
    year, month, day = [*(part.strip() for part in arguments.positional[:3]), "", "", ""][:3]
    if len(day) == 4 and day.isdecimal():
        year, day = day, year
    if month and not month.isdecimal():
        return " ".join(part for part in (day, month, year) if part)
    return "-".join(part.zfill(2) for part in (year, month, day) if part) or None


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


def old_style(arguments: Arguments) -> str | None:
    day, year, old = (*(item.strip() for item in arguments.positional), "", "", "")[:3]
    return f"{day} [O.S. {old}] {year}".strip() if old else f"{day} {year}".strip() or None


def french_number(name: str) -> str:
    """French, a name that is its text: {{XIXe siècle}}, {{1er}}; "" for any other."""
    found = re.fullmatch(r"(\d+|[ivxlc]+)(er|re|e)( siècle)?", name)
    return f"{found[1].upper()}{found[2]}{found[3] or ''}" if found else ""


def century(arguments: Arguments) -> str | None:
    """French: {{s-|XIX|e}}, of two centuries {{-s-|XIX|e|XX|e}}; Russian: {{s|text}} is the text."""
    items = [item.strip() for item in arguments.positional]
    number, ending, other, its_ending = (*items, "", "", "", "")[:4]
    if other and its_ending:
        return f"{number}{ending} et {other}{its_ending} siècles"
    return f"{number}{ending} siècle" if number and ending else number or None
