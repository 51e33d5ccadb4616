"""The house stands as its map says: floors, doors, names, sizes."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "harness").rglob("*.py"))
FORBIDDEN_NAMES = re.compile(r"(^|_)(utils?|common|helpers?|base|manager|misc|core)($|_)")
PORTS = ("engines", "runtimes", "targets", "shapes", "exporters")
HEAVY = ("ray", "locust", "optuna", "flaml", "sklearn", "matplotlib", "pandas", "onnxruntime", "scipy")
LINES_PER_FILE, LINES_PER_FUNCTION = 400, 60


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_a_room(path: Path) -> None:
    tree = ast.parse(path.read_text())
    docstring = ast.get_docstring(tree)
    assert docstring, "its first docstring says what lives there"
    assert not FORBIDDEN_NAMES.search(path.stem), "its name says nothing"
    assert len(path.read_text().splitlines()) <= LINES_PER_FILE, "a noun is missing"
    if path.stem != "__init__":
        assert "In: " in docstring, "it says what comes in"
        assert "Out: " in docstring, "and what goes out"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < LINES_PER_FUNCTION, f"{node.name} is too long"


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.parent.name in ("engines", "runtimes", "targets", "shapes", "exporters")],
    ids=name_of,
)
def test_a_plug_in_names_its_libraries_and_imports_none_of_them_at_once(path: Path) -> None:
    if path.stem == "__init__":
        return
    tree = ast.parse(path.read_text())
    imported = {
        module.partition(".")[0]
        for node in tree.body
        for module in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    required = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and "REQUIRES" in ast.unparse(node)
    )
    assert not imported & {*required, "ray", "locust", "optuna", "flaml", "onnxruntime", "matplotlib"}


@pytest.mark.parametrize("statement", ["import harness", "from harness.cli.main import main; main(['--help'])"])
def test_the_front_door_opens_without_the_heavy_libraries(statement: str) -> None:
    asked = (
        "import sys, contextlib\n"
        f"with contextlib.suppress(SystemExit): exec({statement!r})\n"
        f"print('loaded:', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    answered = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answered.stdout.splitlines()[-1] == "loaded: []"


def test_listing_plug_ins_loads_none_of_their_libraries() -> None:
    asked = (
        "import sys; from harness.cli.main import main; main(['list'])\n"
        "print('loaded:', sorted({'ray', 'locust', 'optuna', 'flaml', 'onnxruntime', 'matplotlib'} & set(sys.modules)))"
    )
    answered = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answered.stdout.splitlines()[-1] == "loaded: []"


def test_the_map_names_every_room_as_the_room_does_itself() -> None:
    page = (ROOT / "harness" / "README.md").read_text()
    mapped = dict(re.findall(r"^\| `([a-z_/]+\.py)` \| (.+) \|$", page, re.MULTILINE))
    rooms = {}
    for path in FILES:
        if path.stem != "__init__":
            docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
            rooms[str(path.relative_to(ROOT / "harness"))] = docstring.partition("\n\n")[0].replace("\n", " ")
    assert mapped == rooms


def test_no_file_names_this_machine_or_a_package_registry() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    forbidden = re.compile("|".join(("pypi" + r"\.org", "python" + "hosted", r"/root" + "/", r"/work" + "/")))
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".lock", ".jinja", ".json", "") and path.is_file():
            assert not forbidden.search(path.read_text(errors="replace")), name


def test_the_lock_files_pin_every_package_by_hash() -> None:
    for path in ROOT.glob("requirements*.lock"):
        requirements = re.split(r"\n(?=\S)", path.read_text().strip())
        assert requirements
        for requirement in requirements:
            assert "==" in requirement, requirement[:80]
            assert "--hash=sha256:" in requirement, requirement[:80]


def test_what_runs_without_a_hash_is_nothing() -> None:
    recipes = (ROOT / "Makefile").read_text()
    for line in recipes.splitlines():
        if "pip install" in line:
            assert "--require-hashes" in line or "--no-deps --no-build-isolation" in line
