"""What models of these tests take and answer: numbers alone, and a column of each kind."""

from harness.records.candidate import Column, Signature

NUMBERS = Signature(
    task="binary",
    columns=(Column(name="height", kind="number"), Column(name="width", kind="number")),
    classes=("no", "yes"),
)
MIXED = Signature(
    task="regression",
    columns=(
        Column(name="height", kind="number"),
        Column(name="colour", kind="category"),
        Column(name="sold", kind="date"),
        Column(name="new", kind="boolean"),
    ),
)
