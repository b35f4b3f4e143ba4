"""Hooks of mkdocs: the README is the start page, and files beside docs/ are named, not linked."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The README, with its links as they are from docs/."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=text.replace("](docs/", "](")))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Name files of the repository that are no pages of the site.

    A link to what does not exist stays, and mkdocs refuses it.
    """
    folder = posixpath.dirname(page.file.src_uri)

    def named(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        path = target.removeprefix("../")
        if "://" in link[2] or files.get_file_from_path(target) or not (ROOT / path).exists():
            return link[0]
        return f"{link[1]} (`{path}`)"

    return _LINK.sub(named, markdown)
