"""The table of sprites, built from the npm packages that hold the images.

    python -m training.sprite_table            # rebuild data/sprites/sprites.parquet
    python -m training.sprite_table --check    # compare the committed file with a rebuild, pixel by pixel

The list of things is data, not logic: change it, `NAMES` in `entropy_lib/scenes/sprites.py` too, rebuild the
    table and train again.
"""

import argparse
import hashlib
import io
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from entropy_lib.errors import extra
from entropy_lib.files import replacing
from entropy_lib.scenes.sprites import LONGEST, PARQUET, load

CODEPOINTS = {
    "apple": "1f34e", "banana": "1f34c", "strawberry": "1f353", "pineapple": "1f34d", "carrot": "1f955",
    "mushroom": "1f344",
    "sunflower": "1f33b", "cactus": "1f335", "doughnut": "1f369", "hamburger": "1f354", "pizza": "1f355",
    "cupcake": "1f9c1",
    "penguin": "1f427", "owl": "1f989", "frog": "1f438", "butterfly": "1f98b", "octopus": "1f419",
    "turtle": "1f422",
    "whale": "1f433", "fox": "1f98a", "panda": "1f43c", "chick": "1f425", "bus": "1f68c", "car": "1f697",
    "rocket": "1f680",
    "sailboat": "26f5", "guitar": "1f3b8", "robot": "1f916", "football": "26bd", "balloon": "1f388",
    "crown": "1f451",
    "snowman": "26c4",
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One npm package that holds the images of one design."""

    package: str
    sha256: str  # of the package's tarball
    licence: str  # of the images, not of the package
    member: str  # path of one image inside the package


SOURCES = {
    "fluent": Source(
        package="@lobehub/fluent-emoji-3d@1.1.0",
        sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        licence="MIT",
        member="package/assets/{codepoint}.webp",
    ),
    "twemoji": Source(
        package="@twemoji/svg@15.0.0",
        sha256="1d2907557a422c7c4e3feca50ef915c39da1db3d76b4a4d7e73fb59bce4403c3",
        licence="CC-BY-4.0",
        member="package/{codepoint}.svg",
    ),
}


def fetch(source: Source, folder: Path) -> Path:
    """Download one package with the npm client and verify its checksum.

    Raises:
        ValueError: when the tarball is not the one this data was built from.
    """
    run = subprocess.run(
        ["npm", "pack", "--silent", source.package], cwd=folder, check=True, capture_output=True, text=True
    )
    tarball = folder / run.stdout.strip().splitlines()[-1]
    given = hashlib.sha256(tarball.read_bytes()).hexdigest()
    if given != source.sha256:
        raise ValueError(
            f"{source.package}: sha256 is {given}, expected {source.sha256}; the published package has "
            "changed"
        )
    return tarball


def decoded(member: str, data: bytes) -> Image.Image:
    """An image of a package as RGBA; vector drawings at 256 px."""
    if member.endswith(".svg"):
        with extra("dev"):  # needed to rebuild the table only
            import resvg_py

        data = bytes(resvg_py.svg_to_bytes(svg_string=data.decode("utf-8"), width=256, height=256))
    return Image.open(io.BytesIO(data)).convert("RGBA")


def cropped(picture: Image.Image) -> bytes:
    """The visible part of an image, its longer side scaled to `LONGEST` pixels, encoded without loss."""
    box = picture.getchannel("A").point(lambda alpha: 255 * (alpha >= 16)).getbbox()
    part = picture.crop(box)
    scale = LONGEST / max(part.size)
    part = part.resize((round(part.width * scale), round(part.height * scale)), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    part.save(encoded, format="WEBP", lossless=True, method=6)
    return encoded.getvalue()


def rows(design: str, tarball: Path) -> list[dict]:
    """One table row for every thing, in the order of `CODEPOINTS`."""
    source, table = SOURCES[design], []
    with tarfile.open(tarball) as archive:
        for name, codepoint in CODEPOINTS.items():
            member = source.member.format(codepoint=codepoint)
            image = cropped(decoded(member, archive.extractfile(member).read()))
            row = {
                "name": name,
                "design": design,
                "codepoint": codepoint,
                "licence": source.licence,
                "image": image,
            }
            table.append(row)
    return table


def build(folder: Path) -> pd.DataFrame:
    """Rebuild the whole table from the npm packages, downloading them into `folder`."""
    return pd.DataFrame(
        [row for design, source in SOURCES.items() for row in rows(design, fetch(source, folder))]
    )


def same(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether two tables hold the same sprites, pixel by pixel."""
    if not one.drop(columns="image").equals(other.drop(columns="image")):
        return False
    pairs = (
        [np.asarray(Image.open(io.BytesIO(data))) for data in pair]
        for pair in zip(one.image, other.image, strict=True)
    )
    return all(np.array_equal(first, second) for first, second in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed file instead of replacing it"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = build(Path(folder))
    if arguments.check:
        raise SystemExit(0 if same(table, load()) else f"{PARQUET.name} differs from a rebuild")
    PARQUET.parent.mkdir(parents=True, exist_ok=True)
    with replacing(PARQUET) as temporary:
        table.to_parquet(temporary, compression="zstd")
    print(
        f"{len(table)} sprites of {table.name.nunique()} things in {PARQUET.name}, "
        f"{PARQUET.stat().st_size / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
