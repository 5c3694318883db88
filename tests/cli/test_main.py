"""The command itself."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from painseq import __version__
from painseq.cli import COMMANDS
from painseq.errors import LeakError


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)


def test_help_lists_every_command_and_imports_nothing_heavy():
    code = "import sys; from painseq.cli import main; code = main(['--help'])"
    heavy = "; heavy = {'torch', 'numpy', 'pytorch_lightning', 'cv2', 'timm', 'rich'} & {*sys.modules}"
    ran = python(f"{code}{heavy}; assert not heavy, heavy; sys.exit(code)")
    assert ran.returncode == 0, ran.stderr
    for name, sentence in COMMANDS.items():
        assert f"  {name} " in ran.stdout and sentence in ran.stdout


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"]])
def test_help_needs_no_command(painseq, argv):
    result = painseq(*argv)
    assert result.code == 0 and result.out.names("painseq", *COMMANDS)


def test_version(painseq):
    assert painseq("--version").out == f"painseq {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_tells_its_options(painseq, name):
    result = painseq(name, "--help")
    assert result.code == 0 and f"painseq {name}" in result.out and "--" in result.out


def test_an_unknown_command_is_told_with_those_there_are(painseq):
    result = painseq("trian")
    assert result.code == 2 and result.err.names("trian", *COMMANDS)


@pytest.mark.parametrize(
    ("error", "code", "facts"),
    [
        (LeakError("S01 is on both sides."), 1, ["S01 is on both sides."]),
        (KeyboardInterrupt(), 130, []),
        (ModuleNotFoundError("No module named 'torch._C'", name="torch._C"), 1, ["torch", "painseq[train]"]),
        (OSError(28, "No space left", "/tmp/x", None, "run/a.ckpt"), 1, ["No space left", "run/a.ckpt"]),
    ],
)
def test_errors_for_people_and_interrupts_are_one_message(painseq, monkeypatch, error, code, facts):
    def fail(argv):
        raise error

    monkeypatch.setattr("importlib.import_module", lambda name: SimpleNamespace(main=fail))
    result = painseq("submit")
    assert result.code == code and result.err.names("painseq submit", *facts) and result.err.count("\n") == 1


def test_from_the_shell_a_mistake_is_one_message(tmp_path):
    (tmp_path / "typo.yaml").write_text("trainer: {max_epoch: 3}\n")
    args = ["fit", "--config", "configs/head/lstm.yaml", "--config", str(tmp_path / "typo.yaml"), "--out", "x"]
    ran = python(f"import sys; from painseq.cli import main; sys.exit(main({args!r}))")
    assert ran.returncode == 1
    assert "trainer" in ran.stderr and "'max_epoch'" in ran.stderr
    assert "Traceback" not in ran.stderr and "Warning" not in ran.stderr and len(ran.stderr.splitlines()) < 5
