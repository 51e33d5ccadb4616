"""summary.json: every headline figure with its unit, interval, sample and warnings, for programs.

In: a document. Out: one file; `summary.schema.json` beside this one promises its form.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from harness.records.finding import Document

REQUIRES: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Json:
    """The report's figures as JSON."""

    indent: int = 2

    def export(self, document: Document) -> Mapping[str, bytes]:
        # NaN is no JSON: a figure that is not known is null, and a NaN here is a bug.
        text = json.dumps(document.summary, indent=self.indent, ensure_ascii=False, allow_nan=False)
        return {"summary.json": f"{text}\n".encode()}
