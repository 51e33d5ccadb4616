"""report.html: the whole report in one file that loads nothing, with its charts inside.

In: a document. Out: one file, from `report.html.jinja` beside this one. It runs no script, prints well, and follows the
reader's choice of a light or a dark page.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.records.finding import Document
from harness.units import Unit, format_number

REQUIRES: tuple[str, ...] = ("jinja2",)

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Html:
    """The report as one self-contained page."""

    open_rows: int = 40
    """A longer table is folded; the reader opens it with a click."""

    def export(self, document: Document) -> Mapping[str, bytes]:
        import jinja2
        from markupsafe import Markup

        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

        def figure(value: float | None, unit: str) -> str:
            return format_number(value, Unit(unit))

        def drawing(svg: bytes) -> Markup:
            # Drawn by us, with every name in it escaped.
            return Markup(svg.decode())

        template = environment.get_template("report.html.jinja")
        text = template.render(
            document=document, summary=document.summary, open_rows=self.open_rows, figure=figure, drawing=drawing
        )
        # A message may hold control characters, for which HTML has no place.
        return {"report.html": _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text).encode()}
