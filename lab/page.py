"""A page of pictures: one HTML file that holds everything, so it can be mailed, archived or opened offline."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

CSS = (Path(__file__).parent / "page.css").read_text()


class Page:
    """Build the page from top to bottom, then `write` it."""

    def __init__(self, title: str, lead: str = "") -> None:
        self.title = title
        self._parts = [f"<h1>{html.escape(title)}</h1>"]
        if lead:
            self._parts.append(f'<p class="lead">{html.escape(lead)}</p>')

    def heading(self, text: str) -> None:
        """A section begins."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def code(self, text: str) -> None:
        """Text in fixed width."""
        self._parts.append(f"<pre>{html.escape(text)}</pre>")

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table; all cells are text."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        self._parts.append(f"<table><tr>{head}</tr>{body}</table>")

    def pictures(self, *pictures: tuple[bytes, str], pixel: bool = False) -> None:
        """Pictures side by side as (PNG or GIF bytes, caption); `pixel` keeps hard edges when they are scaled."""
        figures = "".join(_figure(data, caption, pixel) for data, caption in pictures)
        self._parts.append(f'<div class="row">{figures}</div>')

    def write(self, path: Path) -> Path:
        """Write the page, self-contained, and return its path."""
        path.parent.mkdir(parents=True, exist_ok=True)
        title, body = f"<title>{html.escape(self.title)}</title>", "\n".join(self._parts)
        head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width">{title}<style>{CSS}</style>'
        path.write_text(
            f'<!doctype html><html lang="en"><head>{head}</head><body><main>\n{body}\n</main></body></html>\n'
        )
        return path


def _figure(data: bytes, caption: str, pixel: bool) -> str:
    kind = "gif" if data[:3] == b"GIF" else "png"
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    style = ' class="pixel"' if pixel else ""
    words = html.escape(caption)
    return f'<figure><img{style} src="{source}" alt="{words}"><figcaption>{words}</figcaption></figure>'
