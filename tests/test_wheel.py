"""The wheel: what it holds, and that it works away from the clone."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PACKAGES = ("painseq", "data_modules", "configs")


@pytest.fixture
def run(installed, tmp_path):
    """Runs a program on the installed wheel, in a folder that is not the clone."""

    def go(*command: str) -> str:
        env = {**os.environ, "PYTHONPATH": str(installed)}
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return go


def test_holds_the_packages_their_yaml_and_types_and_no_tests(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"painseq"}
    for package in PACKAGES:
        files = [*(ROOT / package).rglob("*.py"), *(ROOT / package).rglob("*.yaml")]
        below = "" if package == "painseq" else "painseq/"
        assert {below + file.relative_to(ROOT).as_posix() for file in files} <= names
    templates = (ROOT / "painseq" / "report" / "templates").iterdir()
    assert {file.relative_to(ROOT).as_posix() for file in templates} <= names
    assert {"painseq/py.typed", "painseq/data_modules/py.typed"} <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_command_starts_from_the_wheel(run, installed):
    code = "import painseq, painseq.data_modules as m, painseq.configs as c; print(painseq, m, c, sep='\\n')"
    assert run("-c", code).count(str(installed)) == 3
    assert "painseq demo" in run(str(installed / "bin" / "painseq"), "demo", "--help")


def test_a_page_is_written_from_the_wheel(run, tmp_path):
    code = (
        "from pathlib import Path; from painseq.report import *; write_report(Path('page.html'), Report('A', 'b', 'c'))"
    )
    run("-c", code)
    assert "<h1>A</h1>" in (tmp_path / "page.html").read_text()


def test_a_folder_of_the_users_own_called_configs_hides_nothing(run, installed, tmp_path):
    for name in ("configs", "data_modules"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not ours')\n")
    code = "from painseq.files import shipped_configs; print(shipped_configs())"
    assert run("-c", code).strip() == str(installed / "painseq" / "configs")
    recipes = run("-c", "from painseq.studies.recipe import shipped_recipes; print(*shipped_recipes())").split()
    assert "prajod2024_lstm" in recipes


def test_without_the_shipped_files_the_error_says_so(wheel, tmp_path):
    lacking = tmp_path / "site"
    with zipfile.ZipFile(wheel) as content:
        content.extractall(lacking, [name for name in content.namelist() if not name.startswith("painseq/configs/")])
    code = "from painseq.studies.recipe import shipped_recipes; shipped_recipes()"
    env = {**os.environ, "PYTHONPATH": str(lacking), "PYTHONNOUSERSITE": "1"}
    # The clone is installed in this environment, and would lend its own.
    code = f"import sys; sys.meta_path = [f for f in sys.meta_path if 'painseq' not in repr(f)]; {code}"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode and "PainseqError" in done.stderr and str(lacking / "painseq") in done.stderr


def test_a_shipped_config_extracts_features(run, installed, tmp_path):
    painseq = str(installed / "bin" / "painseq")
    few = ["--subjects", "2", "0", "1", "--trials", "1", "--baseline-s", "10", "--fps", "2", "--size-px", "96"]
    run(painseq, "synth", "ai4pain", "electrical", *few, "--workers", "1")
    run(painseq, "extract", "--config", "configs/demo/electrical.yaml", "--data.options.fps", "2", "--out", "store")
    assert (tmp_path / "store" / "store.json").is_file()
