"""Where the project's files are, and how a file is written so that no reader ever sees half of it."""

import hashlib
import importlib.resources
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(str(importlib.resources.files("entropy_lib"))).resolve()
SHIPPED = PACKAGE / "_shipped"  # only in an installed wheel, see setup.py
INSTALLED = SHIPPED.is_dir()
ROOT = SHIPPED if INSTALLED else PACKAGE.parent  # holds `data/`, `notebooks/`, `docs/`; nothing is written here but in a checkout
DATA = ROOT / "data"
PROMPTS = DATA / "prompts"  # lists of prompts, one a line
WORKPLACE = "ENTROPY_LIB_WORKPLACE"  # environment variable: the kernels of notebooks, which run elsewhere, are told by it
HOST = re.sub(r"\W", "_", socket.gethostname())


def workplace() -> Path:
    """The folder that relative paths of output start from: the checkout or, where installed, the folder one stands in.

    A relative path in the environment is made absolute there, once, for this process and those that it starts.
    """
    if not os.environ.get(WORKPLACE):
        return Path.cwd() if INSTALLED else ROOT
    os.environ[WORKPLACE] = os.path.abspath(Path(os.environ[WORKPLACE]).expanduser())
    return Path(os.environ[WORKPLACE])


def restore_command(folder: str) -> str:
    """How a damaged folder of `data/` is got back."""
    return "pip install --force-reinstall --no-deps entropy_lib" if INSTALLED else f"git checkout -- data/{folder}"


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, on an error it is removed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "a.txt") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     (Path(folder) / "a.txt").read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{HOST}-{os.getpid()}-{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path | str) -> str:
    """Checksum of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
