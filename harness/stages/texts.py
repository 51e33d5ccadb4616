"""Texts of a column: categories, or something else that was written as text.

In: the texts of the rows, "" a hole. Out: how many are distinct, or a UsageError where they are names, identifiers or
sentences, which teach a model of categories nothing; and `Disguise`, where most of them are dates or numbers.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.errors import UsageError

CATEGORIES_MAX = 100
"""Most distinct texts of a column that become a feature each; of more, models see the mean target of a text."""

CATEGORIES_SHARE = 0.5
CATEGORIES_FREE = 20
"""A text column with more distinct values than that share of its rows, and than so many, holds names or free text."""

SENTENCE_WORDS = 5
SENTENCE_LETTERS = 60
SENTENCES_SHARE = 0.1
SENTENCES_FREE = 10
"""Texts are sentences where half of the distinct ones have so many words, or letters, and where they are more than may
be features, or more than so many and each in fewer than ten rows on average.

Long words alone would take the answers of a questionnaire for sentences ("Strongly agree with what was said"): there
are at most ten of these, or they come again and again. What a census has names of up to four words for is far off."""

DISGUISED_SHARE = 0.5
"""Of the filled rows: where more of them are dates, or numbers, the column is one of these."""

LOOKED_AT = 2_000
"""Distinct texts that are looked at; more of a column say the same."""

_WORD = re.compile(r"[^\W\d_]+")
_MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_YEAR = r"(?:1[5-9]|2[01])\d\d"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_TIME = r"(?:[T ]+\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?)? ?(?:[ap]m)? ?(?:Z|UTC|GMT|[+-]\d\d:?\d\d)?"
_ISO = re.compile(rf"{_YEAR}-\d\d(?:-\d\d{_TIME})?", re.IGNORECASE)
_DATES = (
    _ISO,
    *(
        re.compile(written + _TIME, re.IGNORECASE)
        for written in (
            rf"{_YEAR}(?:/{_DAY}/{_DAY}|\.{_DAY}\.{_DAY})",
            rf"{_DAY}/{_DAY}/(?:{_YEAR}|\d\d)",
            # Of a year with two digits only with a day that has two: versions of software look like the others.
            rf"{_DAY}\.{_DAY}\.{_YEAR}|\d\d\.[01]\d\.\d\d",
            rf"{_DAY}-{_DAY}-{_YEAR}",
            rf"{_DAY}[ .-]*{_MONTH}[ ,.-]*(?:{_YEAR}|\d\d)",
            rf"{_MONTH} *{_DAY}(?:st|nd|rd|th)?,? +{_YEAR}",
        )
    ),
)
"""A pattern per way of writing a date; with one more time of day it is the same way."""

_PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE)
_AMOUNT = re.compile(
    r"[$€£¥]? ?[+-]?(?:\d+(?:[.,]\d+)?|\d{1,3}(?:[,.'\u2019 \u00a0\u202f]\d{3})+(?:[.,]\d+)?) ?[%$€£¥]?"
)
_CODE = re.compile(r"0\d+")
"""With leading zeros a number is none: postcodes are written so."""


@dataclass(frozen=True, slots=True)
class Disguise:
    """What a column of texts holds for the most part."""

    kind: Literal["date", "number"]
    rows: int
    """So many rows are of that kind..."""
    filled: int
    """... of so many that have a text, among those that were looked at."""
    forms: tuple[str, ...]
    """One text per way of writing; of numbers one that is not written plainly, where there is one."""
    beside: str | None
    """A text that is nothing of the kind."""
    is_iso: bool = False
    """Whether all are dates that can be read as they are."""

    @property
    def is_mixed(self) -> bool:
        """Whether one day is written in several ways."""
        return self.kind == "date" and len(self.forms) > 1

    @property
    def told(self) -> str:
        """What the column holds, and what to do about it, as the end of a sentence that begins with its name."""
        more = f"; others are not, such as {_shown(self.beside)}, and want a hole in their place" if self.beside else ""
        of = f"in {self.rows:,} of {self.filled:,} filled rows{more}"
        if self.kind == "number":
            odd = f", such as {_shown(self.forms[0])}," if self.forms else ""
            return (
                f"holds numbers{odd} {of}. As categories they have no order: write them with a point and nothing else "
                "(1234.5)."
            )
        if self.is_mixed:
            return (
                f"holds dates that are written in {len(self.forms)} ways ({', '.join(map(_shown, self.forms))}), {of}. "
                "One day would be several categories: write them all as 2026-01-31, and list the column under `dates`."
            )
        advice = "List" if self.is_iso else "Write them as 2026-01-31, and list"
        return f"holds dates, such as {_shown(self.forms[0])}, {of}. {advice} the column under `dates`."


def disguise(texts: Iterable[str]) -> Disguise | None:
    """What most of the texts are, if they are dates or numbers."""
    counts = Counter(text.strip() for text in texts)
    counts.pop("", None)
    looked_at = dict(list(counts.items())[:LOOKED_AT])
    filled = sum(looked_at.values())
    return _dates(looked_at, filled) or _numbers(looked_at, filled)


def _dates(counts: dict[str, int], filled: int) -> Disguise | None:
    forms: dict[int, str] = {}
    rows, beside = 0, None
    for text, count in counts.items():
        form = next((place for place, pattern in enumerate(_DATES) if pattern.fullmatch(text)), None)
        if form is None:
            beside = beside or text
            continue
        forms.setdefault(form, text)
        rows += count
    if rows <= DISGUISED_SHARE * filled:
        return None
    return Disguise("date", rows, filled, tuple(forms.values()), beside, is_iso=set(forms) == {0})


def _numbers(counts: dict[str, int], filled: int) -> Disguise | None:
    amounts = {text: count for text, count in counts.items() if _PLAIN.fullmatch(text) or _AMOUNT.fullmatch(text)}
    odd = tuple(text for text in amounts if not _PLAIN.fullmatch(text))
    beside = next((text for text in counts if text not in amounts), None)
    rows = sum(amounts.values())
    few = len(amounts) <= CATEGORIES_FREE  # numbers of classes, beside which there may be an "other"
    # Plain numbers alone are texts only where a file says so of them: it knows.
    if few or rows <= DISGUISED_SHARE * filled or not (odd or beside) or any(map(_CODE.fullmatch, amounts)):
        return None
    return Disguise("number", rows, filled, odd[:1], beside)


def refuse_no_categories(texts: Iterable[str], column: str, where: str) -> int:
    """Number of distinct texts of a column of categories. Raises UsageError where they are none."""
    filled = [text for text in texts if text != ""]
    distinct = dict.fromkeys(filled)
    name = f"The text column {column!r} of {where}"
    rare = len(distinct) > CATEGORIES_FREE and len(distinct) > CATEGORIES_SHARE * len(filled)
    found = disguise(filled) if rare else None
    if found is not None:
        raise UsageError(f"{name} {found.told} Or leave it out with `{drop_setting(column)}` under [data].")
    if rare:
        raise UsageError(
            f"{name} has {len(distinct)} distinct values in {len(filled)} filled rows, such as {_shown(filled[0])}: "
            "names, identifiers or free text teach a model of categories nothing. Leave it out with "
            f"`{drop_setting(column)}` under [data]; list it under `dates` if it holds dates."
        )
    seldom = len(distinct) > SENTENCES_FREE and len(distinct) > SENTENCES_SHARE * len(filled)
    if seldom or len(distinct) > CATEGORIES_MAX:
        words = float(np.median([len(_WORD.findall(text)) for text in distinct]))
        letters = float(np.median([len(text) for text in distinct]))
        if words >= SENTENCE_WORDS or letters >= SENTENCE_LETTERS:
            raise UsageError(
                f"{name} has {len(distinct)} distinct texts in {len(filled)} filled rows, half of them of {words:.0f} "
                f"words or more, such as {_shown(filled[0])}: sentences are no categories. Make numbers of them "
                f"beforehand, or leave the column out with `{drop_setting(column)}` under [data]."
            )
    return len(distinct)


def drop_setting(column: str) -> str:
    """What to write under [data] to leave a column out."""
    return f"drop = [{json.dumps(column, ensure_ascii=False)}]"


def _shown(text: str | None) -> str:
    return repr(str(text)[:40])
