"""charts/*.png and *.svg: every chart of the report, for slides and other pages.

In: a document. Out: two files per chart.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.records.finding import Document

REQUIRES: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Png:
    """The report's charts as pictures, with their vector forms beside them."""

    def export(self, document: Document) -> Mapping[str, bytes]:
        files: dict[str, bytes] = {}
        for section in document.sections:
            for chart in section.charts:
                files[f"charts/{chart.key}.png"] = chart.png
                files[f"charts/{chart.key}.svg"] = chart.svg
        return files
