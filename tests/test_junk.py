"""What operating systems leave is junk wherever it lies; what people name is not."""

from __future__ import annotations

import pytest

from mirnet.junk import is_junk

LEFT = [
    "._IMG_1.jpg",
    "2024/._IMG_1.jpg",
    "__MACOSX/in/a.png",
    ".DS_Store",
    ".Trashes/501/a.png",
    ".AppleDouble/a.png",
    ".Spotlight-V100/a.png",
    ".fseventsd/0000",
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg",
    "2024/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
    "@EADIR/a.jpg",
    "a.jpg@SynoEAStream",
    "#recycle/a.png",
    "#snapshot/GMT+01-2024.01.01-00.00.00/a.png",
    "@Recycle/a.png",
    ".@__thumb/default.jpg",
    ".Trash-1000/files/a.png",
    ".Trash/a.png",
    ".thumbnails/12.jpg",
    "DCIM/.thumbnails/12.jpg",
    ".trashed-1700000000-IMG_1.jpg",
    ".pending-1700000000-IMG_1.jpg",
    "$RECYCLE.BIN/S-1-5-21/$RABCDEF.png",
    "$Recycle.Bin/a.png",
    "System Volume Information/a.png",
    "Thumbs.db",
    "THUMBS.DB",
    "ehthumbs_vista.db",
    "desktop.ini",
    "~$report.png",
    "lost+found/#12.png",
    "FOUND.000/FILE0001.jpg",
    ".nfs000000000123abcd",
    ".snapshot/hourly.0/a.png",
    ".zfs/snapshot/a.png",
    ".stversions/a~20240101-120000.png",
    "Icon\r",
]
PEOPLES = [
    "a.png",
    ".hidden.png",
    "_x.png",
    "__x/a.png",
    ".photos/a.png",
    "~x/a.png",
    "$x.png",
    "#1.png",
    "@home/a.png",
    "trash/a.png",
    "thumbnails/a.png",
    "recycle/a.png",
    "snapshots/a.png",
    "found.png",
    "found.00x/a.png",
    "My Thumbs.db.png",
    "x._y.png",
    "Icon/a.png",
    "Recycled bottles/a.png",
    "lost+found.png",
    "...png",
]


@pytest.mark.parametrize("path", LEFT)
def test_left_by_a_system(path: str) -> None:
    assert is_junk(path.split("/"))


@pytest.mark.parametrize("path", PEOPLES)
def test_named_by_people(path: str) -> None:
    assert not is_junk(path.split("/"))
