"""Small pictures of every kind of file: what of each is transparent or moves, drawn by hand where Pillow cannot."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageDraw

SIDE = 32


def saved(picture, format="PNG", **how):
    out = io.BytesIO()
    picture.save(out, format, **how)
    return out.getvalue()


def colours():
    """RGB, uint8 [32, 32, 3], and an alpha channel with all values among it."""
    down, right = np.mgrid[:SIDE, :SIDE]
    rgb = np.stack([right * 8, down * 8, (down + right) * 4], -1).astype(np.uint8)
    alpha = ((right * 37 + down * 11) % 256).astype(np.uint8)
    alpha[:8], alpha[8:16] = 0, 255
    return rgb, alpha


RGB, ALPHA = colours()
RGBA = Image.fromarray(np.dstack([RGB, ALPHA]))
PALETTE = Image.fromarray(RGB).quantize(16)


def text():
    """Black on nothing, as a formula or a diagram is saved."""
    made = Image.new("RGBA", (SIDE, SIDE))
    ImageDraw.Draw(made).text((2, 8), "abc", fill=(0, 0, 0, 255))
    return made


def png(samples, colour, depth, key=None):
    """A PNG of any bit depth; `samples` [rows, columns(, channels)], `key` the transparent colour's samples."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = samples.shape[:2]
    rows = b""
    for row in samples.reshape(height, -1):
        bits = "".join(format(int(sample), f"0{depth}b") for sample in row)
        rows += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))]
    parts += [(b"tRNS", struct.pack(f">{len(key)}H", *key))] if key else []
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def bmp(alpha):
    """A BMP with an alpha mask (BITMAPV4), which Pillow does not write."""
    data = np.dstack([RGB[..., ::-1], alpha])[::-1].tobytes()
    head = struct.pack("<IiiHHIIiiII", 108, SIDE, SIDE, 1, 32, 3, len(data), 2835, 2835, 0, 0)
    head += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52)
    return struct.pack("<2sIHHI", b"BM", 14 + len(head) + len(data), 0, 0, 14 + len(head)) + head + data


def small_gif(at, **how):
    """A GIF whose first frame, 16 × 16, does not cover its 32 × 32."""
    made = bytearray(saved(PALETTE.crop((0, 0, 16, 16)), "GIF", **how))
    made[6:10] = struct.pack("<HH", SIDE, SIDE)
    frame = made.index(b"\x2c\0\0\0\0\x10\0\x10\0")
    made[frame + 1 : frame + 5] = struct.pack("<HH", *at)
    return bytes(made)


def moving(pictures, format, **how):
    """An animation so slow that a screenshot has its first frame."""
    return saved(pictures[0], format, save_all=True, append_images=pictures[1:], duration=60000, **how)


def turned():
    """EXIF that turns a picture by a quarter."""
    made = Image.Exif()
    made[0x112] = 6
    return made


def kinds():
    """Name -> content, whether it is transparent somewhere, whether it is animated."""
    red = RGB[..., 0]
    keyed = np.where((red > 100)[..., None], np.array([10, 20, 30], np.uint8), RGB)
    clear = [Image.fromarray(np.dstack([np.roll(RGB, 8 * n, 0), ALPHA])) for n in range(3)]
    solid = [Image.fromarray(np.roll(RGB, 8 * n, 0)).quantize(16) for n in range(3)]
    grey = {depth: red >> (8 - depth) for depth in (1, 2, 4)}
    made = {
        "text.png": (saved(text()), True, False),
        "rgba.png": (saved(RGBA), True, False),
        "rgba-opaque.png": (saved(Image.fromarray(RGB).convert("RGBA")), False, False),
        "rgba-clear.png": (saved(Image.new("RGBA", (SIDE, SIDE))), True, False),
        "rgba16.png": (png(np.dstack([RGB, ALPHA]).astype(int) * 257, 6, 16), True, False),
        "rgb16.png": (png(RGB.astype(int) * 257, 2, 16), False, False),
        "la.png": (saved(RGBA.convert("LA")), True, False),
        "la16.png": (png(np.dstack([red, ALPHA]).astype(int) * 257, 4, 16), True, False),
        "palette.png": (saved(PALETTE), False, False),
        "palette-index.png": (saved(PALETTE, transparency=3), True, False),
        "palette-alpha.png": (saved(PALETTE, transparency=bytes(range(0, 256, 16))), True, False),
        "rgb-key.png": (saved(Image.fromarray(keyed), transparency=(10, 20, 30)), True, False),
        "grey-key.png": (png(np.where(red > 100, 77, red), 0, 8, [77]), True, False),
        "turned.png": (saved(RGBA.crop((0, 0, SIDE, 20)), exif=turned()), True, False),
        "moving.png": (moving(clear, "PNG"), True, True),
        "moving-behind-another.png": (
            moving([Image.new("RGBA", (SIDE, SIDE), "red"), *clear], "PNG", default_image=True),
            True,
            True,
        ),
        "rgba.webp": (saved(RGBA, "WEBP", lossless=True, exact=True), True, False),
        "rgba-lossy.webp": (saved(RGBA, "WEBP", quality=90), True, False),
        "rgb.webp": (saved(Image.fromarray(RGB), "WEBP", lossless=True), False, False),
        "moving.webp": (moving(clear, "WEBP", lossless=True), True, True),
        "palette.gif": (saved(PALETTE, "GIF"), False, False),
        "palette-index.gif": (saved(PALETTE, "GIF", transparency=3), True, False),
        "small.gif": (small_gif((4, 6)), True, False),
        "moving.gif": (moving(solid, "GIF"), False, True),
        "moving-clear.gif": (moving(clear, "GIF"), True, True),
        "bmp.bmp": (saved(Image.fromarray(RGB), "BMP"), False, False),
        "alpha.bmp": (bmp(ALPHA), True, False),
        "rgb.jpg": (saved(Image.fromarray(RGB), "JPEG", quality=95), False, False),
        "turned.jpg": (saved(Image.fromarray(RGB[:20]), "JPEG", quality=95, exif=turned()), False, False),
    }
    for depth, samples in grey.items():
        made[f"grey{depth}.png"] = (png(samples, 0, depth), False, False)
        for key in (0, 2**depth - 1):
            made[f"grey{depth}-key{key}.png"] = (png(samples, 0, depth, [key]), True, False)
    return made


KINDS = kinds()
