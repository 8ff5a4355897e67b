"""Run the benchmarks and write what they print into RESULTS.md, beside when, where and by which command.

    python -m benchmarks.run                    # all, which takes an hour on two cores
    python -m benchmarks.run attention growth   # these; the other sections stay

No figure in RESULTS.md is typed by hand. A benchmark that fails leaves its section as it was, and the command
says so.
"""

import ast
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

import diffusers
import torch

from entropy_lib.errors import UnknownNameError
from entropy_lib.files import replacing

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "RESULTS.md"
SCRIPTS = {  # name: arguments
    "attention": [],
    "generation": [],
    "denoising_step": ["3"],
    "growth": [],
    "interruptions": ["20"],
    "metric_tables": [],
    "coverage": ["32", "200"],
    "positions": [],
    "dilution": [],
    "importance": ["mini", "mini-dit", "terrain"],
    "gpu": [],
}
COLOURED = "\x1b["  # how a line begins that a library, Ray for one, prints for a terminal
HEAD = """# Measured

Written by `make bench`: each section is what its command printed, on the machine and the day that it
names. Ratios are taken within one run.
"""


def machine() -> str:
    """What decides how fast it is, in a line."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = (
        f"Python {platform.python_version()}, torch {torch.__version__}, diffusers {diffusers.__version__}"
    )
    return f"{processor()}, {len(os.sched_getaffinity(0))} cores{gpu}; {versions}"


def processor() -> str:
    """Its name and the widest vectors that torch uses on it."""
    lines = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if Path("/proc/cpuinfo").exists()
        else []
    )
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def heading(name: str) -> str:
    """The first line of the benchmark's docstring."""
    text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8")))
    return text.splitlines()[0].rstrip(".")


def sections(text: str) -> dict[str, str]:
    """{name: section} of an earlier RESULTS.md."""
    found = {}
    for part in text.split("\n## ")[1:]:
        title = part.splitlines()[0]
        found |= {name: f"## {part.rstrip()}\n" for name in SCRIPTS if heading(name) == title}
    return found


def section(name: str, printed: str, day: datetime.date) -> str:
    """What is written of one run."""
    command = " ".join(["python", "-m", f"benchmarks.{name}", *SCRIPTS[name]])
    printed = "\n".join(line for line in printed.splitlines() if not line.startswith(COLOURED))
    return f"## {heading(name)}\n\n`{command}`, {day}, {machine()}\n\n{printed.strip()}\n"


def main(names: list[str]) -> int:
    for name in names:
        if name not in SCRIPTS:
            raise UnknownNameError("benchmark", name, SCRIPTS)
    chosen, failed = names or list(SCRIPTS), []
    for name in chosen:
        if name == "gpu" and not torch.cuda.is_available():
            print("gpu: no CUDA device here; its section stays as it is")
            continue
        print(f"{name} …", flush=True)
        run = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *SCRIPTS[name]],
            stdout=subprocess.PIPE,
            text=True,
            cwd=FOLDER.parent,  # from where `training` is found too
        )
        if run.returncode:
            failed.append(name)
            continue
        kept = sections(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        kept[name] = section(name, run.stdout, datetime.datetime.now(datetime.UTC).date())
        with replacing(RESULTS) as temporary:
            text = "\n".join([HEAD, *(kept[one] for one in SCRIPTS if one in kept)])
            temporary.write_text(text, encoding="utf-8")
    print(f"failed: {', '.join(failed)}" if failed else f"written: {RESULTS}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
