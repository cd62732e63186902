"""Language variants: -{zh-hans:计算机; zh-hant:電腦}- shows one of them, the first."""

import re

_CODE = re.compile(r"\s*([a-z]{2,3}(?:-[a-z]+)*)\s*:(?!//)\s*")
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
    if "R" in flags or not _CODE.match(text):
        return text
    choices = [choice for choice in text.split(";") if choice.strip()]
    return _CODE.sub("", choices[0], count=1).partition("=>")[2].strip() or _CODE.sub("", choices[0], count=1).strip()
