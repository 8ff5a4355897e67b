"""All that is declared is in pyproject.toml; this adds the folders `data/`, `notebooks/` and `docs/` to the
wheel, as they are.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CONTROLS = {"data/mini-weak", "data/mini-circular"}  # 30 MB: the tables made with them are shipped
SHIPPED = ("data", "notebooks", "docs")  # become entropy_lib/_shipped/…, see entropy_lib/files.py


class BuildWithShippedFolders(build_py):
    """An ordinary build, and the shipped folders; an editable install reads them where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for name in SHIPPED:
                folder = Path(self.build_lib, "entropy_lib", "_shipped", name)
                shutil.rmtree(folder, ignore_errors=True)  # what an earlier build left
                shutil.copytree(name, folder, ignore=_left_out)


def _left_out(folder: str, names: list[str]) -> set[str]:
    hidden = {name for name in names if name.startswith(".") or name == "__pycache__"}
    return hidden | {name for name in names if f"{folder}/{name}" in CONTROLS}


setup(cmdclass={"build_py": BuildWithShippedFolders})
