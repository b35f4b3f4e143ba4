"""Names of files that operating systems, file servers and their tools create.

Import and batch skip these files in folders, archives and buckets.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

# of files and folders, case-insensitive; fnmatch globs, in which [ and ] are special
JUNK_NAMES = (
    # macOS: resource forks and metadata of any volume, trash, index, archives made by Finder
    "._*",
    ".ds_store",
    ".localized",
    ".volumeicon.icns",
    ".appledouble",
    ".appledb",
    ".appledesktop",
    ".apdisk",
    ".com.apple.timemachine.*",
    ".documentrevisions-v100",
    ".fseventsd",
    ".spotlight-v100",
    ".temporaryitems",
    ".trashes",
    "__macosx",
    "icon\r",
    "network trash folder",
    "temporary items",
    # Windows: thumbnails, views, bin, restore points, repaired fragments, open documents
    "thumbs.db",
    "thumbs.db:encryptable",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "found.[0-9][0-9][0-9]",
    "~$*",
    # Linux and other Unixes: trash, thumbnails, what fsck found, files that are still open
    ".trash",
    ".trash-*",
    ".thumbnails",
    ".sh_thumbnails",
    ".xvpics",
    ".directory",
    "lost+found",
    ".nfs[0-9a-f]*",
    ".fuse_hidden*",
    ".goutputstream-*",
    ".~lock.*#",
    # Android: the trash and what is being written
    ".trashed-*",
    ".pending-*",
    # file servers (Synology, QNAP, NetApp, ZFS, Btrfs, Samba): thumbnails, bins, snapshots
    "@eadir",
    "@synoeastream",
    "*@synoeastream",
    "*@synoresource",
    "@sharebin",
    "@tmp",
    "#recycle",
    "#snapshot",
    "@recycle",
    "@recently-snapshot",
    ".@__thumb",
    ".@upload_cache",
    ".recycle",
    ".snapshot",
    ".snapshots",
    "~snapshot",
    ".zfs",
    # synchronisation: old versions, bins, unfinished copies
    ".stfolder",
    ".stversions",
    ".syncthing.*.tmp",
    "~syncthing~*",
    ".dropbox.cache",
)
_JUNK = re.compile("|".join(fnmatch.translate(name) for name in JUNK_NAMES), re.IGNORECASE)


def is_junk(parts: Iterable[str]) -> bool:
    """Whether one of the names of a path, below the given folder or prefix, is junk."""
    return any(_JUNK.match(part) for part in parts)
