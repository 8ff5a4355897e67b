"""All that is declared is in pyproject.toml; this adds the folders `data/`, `notebooks/` and `docs/` to the
wheel, as they are.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("data", "notebooks", "docs")  # become entropy_lib/_shipped/…, see entropy_lib/files.py


class BuildWithShippedFolders(build_py):
    """An ordinary build, and the shipped folders; an editable install reads them where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for name in SHIPPED:
                folder = Path(self.build_lib, "entropy_lib", "_shipped", name)
                shutil.rmtree(folder, ignore_errors=True)  # what an earlier build left
                shutil.copytree(name, folder, ignore=shutil.ignore_patterns(".*", "__pycache__"))


setup(cmdclass={"build_py": BuildWithShippedFolders})
