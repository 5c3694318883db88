"""The order of the rooms: which part of painseq may import which, and which parts need no torch."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from painseq.cli import COMMANDS

ROOT = Path(__file__).parents[1]

ROOMS = (
    "root", "video", "faces", "extractors", "features", "data", "heads", "model", "runtime", "evaluation", "report",
    "explain", "training", "synthetic", "data_modules", "studies", "export", "live", "serve", "cli",
)  # fmt: skip

ROOT_MODULES = {
    "__init__", "__main__", "batch", "download", "errors", "files", "moments", "records", "runs", "spec", "tables",
}  # fmt: skip

MAY_IMPORT = {
    "video": {"root"},
    "faces": {"root", "video"},
    "extractors": {"root"},
    "features": {"root", "video", "faces", "extractors"},
    "data": {"root", "video", "faces", "extractors", "features"},
    "heads": {"root"},
    "model": {"root", "video", "faces", "extractors", "features", "data", "heads"},
    "runtime": {"root", "video", "faces", "data", "model"},
    "evaluation": {"root", "video", "data"},
    "report": {"root", "evaluation"},
    "explain": {
        "root", "video", "faces", "extractors", "features", "data", "heads", "model", "evaluation", "report",
    },
    "training": {
        "root", "video", "faces", "extractors", "features", "data", "heads", "model", "evaluation", "report",
    },
    "synthetic": {"root", "video", "faces"},
    "data_modules": {"root", "video", "faces", "extractors", "features", "data"},
    "studies": set(ROOMS[: ROOMS.index("studies")]),
    "live": {"root", "video", "faces", "data", "model", "runtime"},
    "serve": {"root", "video", "faces", "data", "model", "runtime", "live"},
    "export": {"root", "faces", "extractors", "data", "heads", "model", "runtime", "evaluation", "studies"},
    "cli": set(ROOMS[: ROOMS.index("cli")]),
}  # fmt: skip

WITHOUT_TORCH = [
    "painseq", "painseq.errors", "painseq.spec", "painseq.files", "painseq.download", "painseq.runs",
    "painseq.records", "painseq.tables", "painseq.video", "painseq.data.labels", "painseq.data.splits",
    "painseq.video.sources", "painseq.live.reader",
    "painseq.moments", "painseq.data.streams",
    "painseq.model.record", "painseq.model.predictor", "painseq.runtime", "painseq.evaluation",
    "painseq.report", "painseq.cli", "painseq.live", "painseq.serve",
]  # fmt: skip


def room_of(module: str) -> str:
    """The room of a dotted module name below painseq."""
    part = module.split(".")[1] if "." in module else "__init__"
    return part if part in ROOMS else "root"


def python_files():
    yield from sorted((ROOT / "painseq").rglob("*.py"))
    yield from sorted((ROOT / "data_modules").rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "painseq" else ("painseq", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Modules of painseq that a file imports, inside functions too, those for type checking alone left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names if node.module == "painseq")
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return {name for name in found if name.split(".")[0] == "painseq"}


@pytest.mark.parametrize("path", list(python_files()), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_imports_only_what_stands_before_its_room(path):
    room = room_of(module_of(path))
    if path.name == "__main__.py" or path == ROOT / "painseq" / "__init__.py":
        return
    allowed = {"root"} | MAY_IMPORT.get(room, set()) | {room}
    wrong = {name for name in imports_of(path) if room_of(name) not in allowed}
    assert not wrong, f"{room} may import {sorted(allowed)}"


def test_the_root_holds_what_every_room_needs_and_nothing_else():
    assert {path.stem for path in (ROOT / "painseq").glob("*.py")} == ROOT_MODULES


def test_every_folder_is_a_room():
    folders = {path.parent.name for path in (ROOT / "painseq").glob("*/__init__.py")}
    assert folders <= set(ROOMS)


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_these_need_no_torch(module):
    code = f"import {module}, sys; sys.exit('torch' in sys.modules or 'pytorch_lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120).returncode == 0


SUBCOMMANDS = {
    "data": ("check", "show"), "audit": ("model", "check"), "explain": ("", "regions", "score"),
    "live": ("", "replay", "csv"),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_torch_and_lists_the_commands_own_options(command):
    for subcommand in SUBCOMMANDS.get(command, ("",)):
        words = [command, *([subcommand] if subcommand else []), "--help"]
        code = (
            f"import sys\nfrom painseq.cli import main\ntry:\n    code = main({words})\n"
            "except SystemExit as end:\n    code = end.code\nsys.exit(code or 3 * ('torch' in sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (words, done.stderr)
        assert f"usage: painseq {command}" in done.stdout and len(done.stdout.splitlines()) < 80


def test_the_wheel_packs_every_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = {module_of(path) for path in python_files() if path.name == "__init__.py"}
    assert set(settings["packages"]) - {"painseq.configs"} == packages


MAY_WRITE = {
    "files.py", "runs.py", "features/lock.py", "features/writer.py", "features/clip_file.py", "video/writing.py",
    "data/splits.py", "live/log.py", "training/saving.py", "faces/mesh_nets.py", "download.py",
    "serve/uploads.py",
}  # fmt: skip
"""Files that open others for writing: what results are written with, locks, a new split file, the lines of a live
log, a copy for OpenCV, a download in pieces, an upload that is deleted.

All else goes through `painseq.files`, so that a killed process leaves no half of a file.
"""


def writes_in_place(path: Path) -> bool:
    """Whether a file calls `write_text`, `write_bytes`, or `open` with a mode that writes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            modes = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            if name in ("write_text", "write_bytes") or (
                name == "open" and any(isinstance(mode, str) and mode.strip("bt+") in ("w", "a", "x") for mode in modes)
            ):
                return True
    return False


def test_results_are_written_in_one_way():
    # Generated videos are written by their own generator, which tells what is finished by other means.
    paths = [path for path in (ROOT / "painseq").rglob("*.py") if path.parent.name != "synthetic"]
    found = {path.relative_to(ROOT / "painseq").as_posix() for path in paths if writes_in_place(path)}
    assert not found - MAY_WRITE


def functions():
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_functions_can_be_read_in_one_look():
    long = [name for name, node in functions() if node.end_lineno - node.lineno >= 60]
    assert not long, "at most 60 lines each"


def test_functions_take_few_parameters():
    wide = []
    for name, node in functions():
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = sum(argument.arg not in ("self", "cls", "ctx") for argument in arguments)
        if count > 7 and node.name != "__init__":
            wide.append(name)
    assert not wide, "at most 7 each; arguments of constructors are settings"
