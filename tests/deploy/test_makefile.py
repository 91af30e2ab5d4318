"""`make` makes its environment once, and again where it was interrupted or needs something else."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "tiny"
version = "1"
optional-dependencies = {dev = []}
"""
# What pip calls (PEP 660); nothing is fetched.
BACKEND = """
import os, zipfile
def build_editable(directory, *_):
    if os.path.exists("interrupted"):
        raise KeyboardInterrupt
    with zipfile.ZipFile(os.path.join(directory, "tiny-1-py3-none-any.whl"), "w") as wheel:
        info = "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1\\nProvides-Extra: dev\\n"
        tag = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        for name, text in (("METADATA", info), ("WHEEL", tag), ("RECORD", "")):
            wheel.writestr("tiny-1.dist-info/" + name, text)
        wheel.writestr("tiny.py", "")
    return "tiny-1-py3-none-any.whl"
"""


def test_an_environment_that_is_half_made_is_made_again(
    tmp_path: Path, program: Callable[..., str]
) -> None:
    def make() -> int:
        return subprocess.run(
            [program("make"), ".venv/.installed", f"PYTHON={quick}"],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "PIP_NO_BUILD_ISOLATION": "1"},
            capture_output=True,
            timeout=60,
            check=False,
        ).returncode

    base = sys._base_executable  # type: ignore[attr-defined]
    stamp, python = tmp_path / ".venv" / ".installed", tmp_path / ".venv" / "bin" / "python"
    # `python -m venv DIRECTORY`, with the pip that is there in the place of a fresh one: 6 s less.
    quick = tmp_path / "python"
    quick.write_text(f'#!/bin/sh\nexec "{base}" "$@" --without-pip --system-site-packages\n')
    quick.chmod(0o755)
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "backend.py").write_text(BACKEND)
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)  # as after Ctrl-C in the first second: no pip yet

    assert make() == 0
    assert subprocess.run([python, "-c", "import tiny"], check=False).returncode == 0

    (tmp_path / "interrupted").touch()  # from now on whatever calls pip fails
    later = stamp.stat().st_mtime + 9
    settings = "[tool.ruff]\nline-length = 9\n[[tool.importlinter.contracts]]\nlayers = ['a']\n"
    (tmp_path / "pyproject.toml").write_text(PROJECT + settings)
    os.utime(tmp_path / "pyproject.toml", (later, later))
    assert make() == 0  # pip has nothing to do
    assert stamp.exists()

    (tmp_path / "pyproject.toml").write_text(f"{PROJECT}description = 'a change'\n{settings}")
    os.utime(tmp_path / "pyproject.toml", (later, later))
    assert make() != 0
    assert not stamp.exists()  # so the next one does not trust what is there
