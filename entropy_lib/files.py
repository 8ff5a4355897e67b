"""Where the project's files are, and how a file is written so that no reader ever sees half of it."""

import errno
import hashlib
import importlib.resources
import os
import re
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from entropy_lib.errors import InvalidInputError, NotWrittenError, shortened

PACKAGE = Path(str(importlib.resources.files("entropy_lib"))).resolve()
SHIPPED = PACKAGE / "_shipped"  # only in an installed wheel, see setup.py
INSTALLED = SHIPPED.is_dir()
# holds `data/`, `notebooks/`, `docs/`; nothing is written here but in a checkout
ROOT = SHIPPED if INSTALLED else PACKAGE.parent
DATA = ROOT / "data"
PROMPTS = DATA / "prompts"  # lists of prompts, one a line
# environment variable: the kernels of notebooks, which run elsewhere, are told by it
WORKPLACE = "ENTROPY_LIB_WORKPLACE"
HOST = re.sub(r"\W", "_", socket.gethostname())
SPACE = 2**20  # bytes that a folder must take: what a page, a plan or a table needs at least
REFUSALS = {  # of a disk or a place on it
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR,
    errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ESTALE,
}  # fmt: skip


def workplace() -> Path:
    """The folder that relative paths of output start from: the checkout or, where installed, the current one.

    A relative path in the environment is made absolute there, once, for this process and those that it
    starts.
    """
    if not os.environ.get(WORKPLACE):
        return Path.cwd() if INSTALLED else ROOT
    os.environ[WORKPLACE] = os.path.abspath(Path(os.environ[WORKPLACE]).expanduser())
    return Path(os.environ[WORKPLACE])


def restore_command(folder: str) -> str:
    """How a damaged folder of `data/` is got back."""
    again = "pip install --force-reinstall --no-deps entropy_lib"
    return again if INSTALLED else f"git checkout -- data/{folder}"


@contextmanager
def disk_words(place: Path | None = None) -> Iterator[None]:
    """Within the block, what a disk refuses is said in a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        beside = place and (error.filename is None or Path(error.filename).parent == place.parent)
        named = (place if beside else error.filename) or "a file"
        refusal = f"{named} cannot be used: {os.strerror(error.errno)}"
        advice = "make room or name another place, and start the same command again"
        raise NotWrittenError(f"{refusal}; {advice}. What was finished before stays") from error


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, on an error it is removed."""
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.tmp{path.suffix}")
    with disk_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def check_writable(name: str, folder: Path) -> None:
    """InvalidInputError unless a folder, or where it would be made, can be written to; it is not made."""
    try:
        with tempfile.TemporaryFile(dir=_there(folder)) as file:
            file.write(bytes(SPACE))
    except OSError as error:
        refusal = f"{name} is {shortened(str(folder), 300)}, which cannot be written to: {error.strerror}"
        raise InvalidInputError(f"{refusal}; make room or name another") from None


def _there(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    try:
        os.lstat(folder)
    except FileNotFoundError:
        above = _there(folder.parent)
        with suppress(FileNotFoundError):
            os.lstat(above / folder.name)  # which may be too long a name
        return above
    return folder


def sha256(path: Path | str) -> str:
    """Checksum of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
