"""HTML pages of the project: one self-contained file each, no script, nothing fetched, light or dark as the reader likes it.

A page's template lies in a folder `templates` beside its module, extends shell.html and may import from parts.html: these two
and the style sheet lie in the `templates` beside this file.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

SHARED = Path(__file__).parent / "templates"


def render(template: Path, **values: Any) -> str:
    """The document that a template makes of values. Each is escaped where it is put in, unless it is markupsafe.Markup;
    jinja2.UndefinedError for one that is used and not given."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(values)
