"""The contact sheet: counts, and links to the whole images."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from mirnet.batch.contact_sheet import relative_link
from tests.batch.samples import UNGUARDED, enhance_batch, picture

HOSTILE = "a #1 &?'%20.png"


class Parsed(HTMLParser):
    """Links, number of images, and the text of the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images, self.text = 0, ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.images += tag == "img"
        if tag == "a":
            self.links.append(dict(attrs)["href"] or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_counts_labels_and_links_that_resolve(tmp_path: Path) -> None:
    source, target = tmp_path / "dark photos", tmp_path / "out"
    source.mkdir()
    for number, name in enumerate((HOSTILE, "b.png", "c.png")):
        (source / name).write_bytes(picture(number))
    (source / "broken.png").write_bytes(picture(9)[:100])
    result = enhance_batch(str(source), str(target), contact_images=3, max_bad_share=1, **UNGUARDED)
    page = Parsed(Path(str(result.contact_uri)).read_text(encoding="utf-8"))

    assert page.images == 6
    assert "images of this run4" in page.text
    assert "enhanced3" in page.text and "quarantined1" in page.text
    assert page.text.count("before") >= 3 and page.text.count("after") >= 3
    folder = Path(str(result.contact_uri)).parent
    assert not any(str(tmp_path) in link for link in page.links), "they hold where it is copied"
    linked = {(folder / unquote(urlsplit(link).path)).resolve() for link in page.links}
    assert all(path.is_file() for path in linked), "no link is dead"
    assert {source / HOSTILE, source / "broken.png"} <= linked
    outputs = {path for path in target.rglob("*.png") if "_mirnet" not in path.parts}
    assert len(outputs) == 3 and outputs <= linked


@pytest.mark.parametrize(
    ("page", "address", "expected"),
    [
        ("s3://out/_mirnet/runs/1/contact.html", "s3://out/a%2F b.png", "../../../a%252F%20b.png"),
        ("s3://one/x/_mirnet/runs/1/contact.html", "s3://one/in/a.png", "../../../../in/a.png"),
        ("s3://out/_mirnet/runs/1/contact.html", "s3://dark/a.png", None),
        ("s3://out/_mirnet/runs/1/contact.html", "/dark/a.png", None),
        ("s3://out/_mirnet/runs/1/contact.html", "s3://out/a//b.png", None),
    ],
)
def test_links_are_relative_or_none(page: str, address: str, expected: str | None) -> None:
    link = relative_link(page, address, "an <image>")
    if expected is None:
        assert link == address, "an address to copy"
    else:
        assert link == f'<a href="{expected}">an &lt;image&gt;</a>'
