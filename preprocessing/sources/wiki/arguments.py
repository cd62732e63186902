"""A template's arguments, as MediaWiki counts them: {{name|first|key=value|second}}."""

from dataclasses import dataclass, field

_LONGEST_KEY = 60
_NO = ("", "no", "n", "off", "0", "false")


@dataclass
class Arguments:
    """Positional ones in their order, as they are written; named ones without the spaces around them."""

    positional: list[str] = field(default_factory=list)
    named: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(parts: list[str]) -> "Arguments":
        """From what stands between the bars. A numbered key (2=…) is that positional one."""
        found = Arguments()
        numbered: dict[int, str] = {}
        for part in parts:
            key, equals, text = part.partition("=")
            key = key.strip()
            if not equals or len(key) > _LONGEST_KEY or "\n" in key:
                found.positional.append(part)
            elif key.isdecimal() and len(key) < 3 and key.isascii():
                numbered[int(key)] = text.strip()
            else:
                found.named[key] = text.strip()
        for number, text in sorted(numbered.items()):
            if 1 <= number <= len(found.positional):
                found.positional[number - 1] = text
            elif number == len(found.positional) + 1:
                found.positional.append(text)
            else:
                found.named[str(number)] = text
        return found

    def first(self, *keys: str) -> str | None:
        """The first of these arguments that says something, without the spaces around it."""
        for key in keys:
            if key.isdecimal() and 1 <= int(key) <= len(self.positional):
                text = self.positional[int(key) - 1].strip()
            else:
                text = self.named.get(key, "").strip()
            if text:
                return text
        return None

    def flag(self, key: str, *, no: bool = False) -> bool:
        """Whether a named argument says yes; `no`: whether it is there and says no."""
        text = self.named.get(key)
        return text is not None and (text.lower() in _NO) is no
