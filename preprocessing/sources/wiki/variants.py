"""Language variants: -{zh-hans:计算机; zh-hant:電腦}- shows one of them, the first."""

import re

_CODE = re.compile(r"\s*([a-z]{2,3}(?:-[a-z]+)*)\s*:(?!//)\s*")
# A semicolon ends a choice where another begins; else it is an entity's, or the author's.
_BETWEEN = re.compile(r";(?=(?:[^;:]*=>)?\s*[a-z]{2,3}(?:-[a-z]+)*\s*:)")
_ONE_WAY = re.compile(r"[^;=]*=>(?=\s*[a-z]{2,3}(?:-[a-z]+)*\s*:)")  # 甲=>zh-cn:乙
_END = re.compile(r"(?:(&#?\w{1,31};)|;)\s*$")
_FLAGS = re.compile(r"\s*(?:[AHRTDNSL+-]|[a-z]{2,3}(?:-[a-z]+)*)(?:\s*;\s*(?:[AHRTDNSL+-]|[a-z]{2,3}(?:-[a-z]+)*))*\s*")


def variant_text(parts: list[str]) -> str | None:
    """What stands between -{ and }-, cut at its bars, as it is read; None: a rule for the rest of the page, nothing to read."""
    flags: set[str] = set()
    if len(parts) > 1 and _FLAGS.fullmatch(parts[0]):
        flags = {flag.strip() for flag in parts[0].split(";")}
        parts = parts[1:]
    text = "|".join(parts)
    if flags & {"H", "T", "-", "D"}:
        return None
    if one_way := _ONE_WAY.match(text):
        text = text[one_way.end() :]
    if "R" in flags or not _CODE.match(text):
        return text
    first = _END.sub(lambda found: found[1] or "", _BETWEEN.split(text, maxsplit=1)[0])
    shown = _CODE.sub("", first, count=1)
    return shown.partition("=>")[2].strip() or shown.strip()
