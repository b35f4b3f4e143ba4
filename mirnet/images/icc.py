"""A colour profile from PNG's colour chunks.

ICC.1:2001-04 (version 2): a matrix and curves. PNG, third edition, sections 11.3.2.1 to 11.3.2.6:
cICP before sRGB before cHRM and gAMA. Code points of cICP: ITU-T H.273.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

Chunks = tuple[tuple[bytes, bytes], ...]
Floats = npt.NDArray[np.float64]
# x and y of white, red, green, blue
Points = tuple[tuple[float, float], ...]

_D65 = (0.3127, 0.3290)
_SRGB = (_D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
# by number of H.273
_PRIMARIES = {
    1: _SRGB,
    9: (_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: (_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_SRGB_CURVE, _GAMMA_2_2, _GAMMA_2_8, _LINEAR = 13, 4, 5, 8
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def is_srgb(chunks: Chunks) -> bool:
    """Whether the samples are sRGB, the assumption without a profile."""
    found = dict(chunks)
    if b"cICP" in found:
        return found[b"cICP"][:2] == bytes([1, _SRGB_CURVE])
    if b"sRGB" in found:
        return True
    return not {b"gAMA", b"cHRM"} & set(found)


def from_png(chunks: Chunks, *, grey: bool) -> bytes | None:
    """A profile; none for sRGB, and for transfer functions without one (PQ, HLG)."""
    found = dict(chunks)
    if is_srgb(chunks):
        return None
    if b"cICP" in found:
        primaries, transfer = found[b"cICP"][0], found[b"cICP"][1]
        curve = _curve_of(transfer)
        listed = _PRIMARIES.get(primaries)
        return None if curve is None or listed is None else _profile(listed, curve, grey)
    gamma = struct.unpack(">I", found[b"gAMA"])[0] if len(found.get(b"gAMA", b"")) == 4 else 0
    curve = _gamma(100_000 / gamma) if gamma else _srgb_curve()
    points: Points = _SRGB
    if len(found.get(b"cHRM", b"")) == 32:
        values = [value / 100_000 for value in struct.unpack(">8I", found[b"cHRM"])]
        points = tuple(zip(values[::2], values[1::2], strict=True))
    return _profile(points, curve, grey)


def _curve_of(transfer: int) -> bytes | None:
    gammas = {_GAMMA_2_2: 2.2, _GAMMA_2_8: 2.8, _LINEAR: 1.0}
    if transfer == _SRGB_CURVE:
        return _srgb_curve()
    return _gamma(gammas[transfer]) if transfer in gammas else None


def _gamma(exponent: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256))


def _srgb_curve() -> bytes:
    coded = np.arange(1024) / 1023
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    table = np.round(linear * 65535).astype(">u2").tobytes()
    return b"curv\0\0\0\0" + struct.pack(">I", 1024) + table


def _profile(points: Points, curve: bytes, grey: bool) -> bytes | None:
    try:
        columns = _matrix(points)
    except (ZeroDivisionError, np.linalg.LinAlgError):
        return None
    text = b"as the PNG says"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + bytes(1 + 8 + 3 + 67)
    entries = [(b"desc", description), (b"cprt", b"text\0\0\0\0no copyright\0")]
    entries.append((b"wtpt", _xyz(_D50)))
    if grey:
        entries.append((b"kTRC", curve))
    else:
        entries += [(b"rXYZ", _xyz(columns[:, 0])), (b"gXYZ", _xyz(columns[:, 1]))]
        entries += [(b"bXYZ", _xyz(columns[:, 2])), (b"rTRC", curve)]
        entries += [(b"gTRC", curve), (b"bTRC", curve)]
    return _packed(entries, b"GRAY" if grey else b"RGB ")


def _matrix(points: Points) -> Floats:
    """Columns: XYZ of red, green and blue under D50."""
    white, *primaries = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in points)
    matrix = np.stack(primaries, axis=1)
    matrix = matrix * np.linalg.solve(matrix, white)
    cones = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    adapted: Floats = np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD @ matrix
    return adapted


def _xyz(values: Floats) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(v) * 65536) for v in values))


def _packed(entries: list[tuple[bytes, bytes]], space: bytes) -> bytes:
    at = 128 + 4 + 12 * len(entries)
    table, bodies, places = struct.pack(">I", len(entries)), b"", dict[bytes, int]()
    for name, body in entries:
        if body not in places:
            places[body] = at + len(bodies)
            bodies += body + bytes(-len(body) % 4)
        table += name + struct.pack(">II", places[body], len(body))
    header = struct.pack(
        ">I4sI4s4s4s12s4s",
        at + len(bodies),
        b"",
        0x02400000,
        b"mntr",
        space,
        b"XYZ ",
        struct.pack(">6H", 2020, 1, 1, 0, 0, 0),
        b"acsp",
    )
    header += bytes(68 - len(header)) + _xyz(_D50)[8:]
    return header.ljust(128, b"\0") + table + bodies
