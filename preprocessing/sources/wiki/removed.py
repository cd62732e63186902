"""What was left out of a document's text, counted: the account that a source hands on beside the text."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Removed:
    """Lines dropped by reason, pieces of markup dropped by kind, and templates that no table knows, dropped, by name."""

    lines: Counter[str] = field(default_factory=Counter)
    markup: Counter[str] = field(default_factory=Counter)
    templates: Counter[str] = field(default_factory=Counter)
