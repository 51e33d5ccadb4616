"""junit.xml: the gates as test cases, for CI systems.

In: a document. Out: one file. A gate that fails is a failure; one that is inconclusive is skipped, with the reason, as
JUnit knows no third answer. The exit status of the command still tells the two apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from harness.records.finding import Answer, Document, GateVerdict
from harness.units import format_bound, format_number, xml_text

REQUIRES: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Junit:
    """The gates as JUnit test cases."""

    suite: str = "harness gates"

    def export(self, document: Document) -> Mapping[str, bytes]:
        gates = document.verdict.gates
        counts = {
            "tests": len(gates),
            "failures": sum(gate.answer is Answer.FAIL for gate in gates),
            "errors": 0,
            "skipped": sum(gate.answer is Answer.INCONCLUSIVE for gate in gates),
        }
        totals = {name: str(count) for name, count in counts.items()}
        root = ElementTree.Element("testsuites", totals)
        suite = ElementTree.SubElement(root, "testsuite", {"name": self.suite, **totals})
        for gate in gates:
            suite.append(_case(gate))
        ElementTree.SubElement(suite, "system-out").text = xml_text(document.recommendation)
        ElementTree.indent(root)
        return {"junit.xml": ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"}


def _case(gate: GateVerdict) -> ElementTree.Element:
    case = ElementTree.Element("testcase", {"classname": "harness.gates", "name": gate.name})
    if gate.answer is Answer.FAIL:
        ElementTree.SubElement(case, "failure", {"message": xml_text(gate.sentence), "type": "gate"})
    elif gate.answer is Answer.INCONCLUSIVE:
        ElementTree.SubElement(case, "skipped", {"message": xml_text(gate.sentence)})
    unit = gate.value.unit
    lines = [
        gate.sentence,
        f"measured: {format_number(gate.value.value, unit)}",
        f"asked: {gate.direction.replace('_', ' ')} {format_bound(gate.bound, unit)}",
        *gate.value.warnings,
    ]
    ElementTree.SubElement(case, "system-out").text = xml_text("\n".join(lines))
    return case
