#!/usr/bin/env bash
# Pillow 13.0.0: in a grey PNG of 2 or 4 bits a pixel, the level that is said to be transparent (tRNS) is not, though the file is valid.
#
# The samples are scaled to 8 bits when they are read, the transparent level is not: it stays 1 of 3 while the samples become 0, 85, 170 and 255
# (2 bits), so no pixel matches it. In 8 bits it works. Read PNGs of few bits with another reader, or compare levels before the conversion.
# Seen with: Pillow 13.0.0, Python 3.11.
# Output seen:
#   2 bits: opacity [255, 255, 255, 255]
#   4 bits: opacity [255, 255, 255, 255]
#   8 bits: opacity [255, 0, 255, 255]
# The script fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pillow==13.0.0
cat > "$folder/try.py" <<'PYTHON'
import io
import struct
import zlib

from PIL import Image


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(bits, transparent):
    """Four pixels beside each other, of the levels 0 to 3; all pixels of one level are transparent."""
    row = sum(level << bits * (3 - level) for level in range(4)).to_bytes(bits * 4 // 8, "big")
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)), (b"tRNS", struct.pack(">H", transparent)),
             (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


seen = {}
for bits in (2, 4, 8):
    picture = Image.open(io.BytesIO(png(bits, transparent=1))).convert("RGBA")
    seen[bits] = list(picture.getchannel("A").tobytes())
    print(f"{bits} bits: opacity {seen[bits]}")
assert seen == {2: [255] * 4, 4: [255] * 4, 8: [255, 0, 255, 255]}, "this has changed"
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
