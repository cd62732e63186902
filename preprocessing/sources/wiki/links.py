"""What a link shows."""

from preprocessing.sources.wiki.names import CATEGORY, FILE, INTERLANGUAGE, MEDIA, Site, folded

_HIDDEN = {FILE: "image", CATEGORY: "category", MEDIA: "image"}


def link_text(parts: list[str], site: Site) -> tuple[str | None, str]:
    """What [[a|b|c]] shows, for its parts [a, b, c]; or None, and what kind of link it is that shows nothing.

    A title with a line break in it is none, as in MediaWiki: then all of it is text.
    """
    title, *labels = parts
    title = title.strip()
    if "\n" in title:
        return " ".join([title, *labels]), ""
    if kind := _hidden(title, site):
        return None, kind
    label = "|".join(labels).strip(" ") if labels else ""
    if label:
        return label, ""
    if not labels:
        return title.removeprefix(":").strip() or None, "empty link"
    plain = title.removeprefix(":").partition("(")[0].strip() or title  # [[Title (what)|]]
    return plain or None, "empty link"


def _hidden(title: str, site: Site) -> str:
    prefix, colon, rest = title.partition(":")
    if not colon or not prefix.strip():  # [[:File:…]] is a link
        return ""
    namespace = site.namespace(prefix, rest)
    if namespace in _HIDDEN:
        return _HIDDEN[namespace]
    if namespace is None and folded(prefix) in INTERLANGUAGE and prefix.strip().isascii():
        return "interlanguage link"
    return ""
