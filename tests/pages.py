"""An HTML page as its tests read it."""

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "hr", "input", "link"}


class Page(HTMLParser):
    """Checks that elements nest, and collects what would be loaded, ids, anchors and tag counts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action") and not (
                value or ""
            ).startswith("#"):
                self.loads.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.anchors.append((value or "")[1:])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def drawn(svg: str, kind: str) -> list[tuple[float, float]]:
    """The points of a chart's line of this kind, in user units."""
    (path,) = re.findall(rf'<g class="{kind}">\s*<path d="([^"]*)"', svg)
    numbers = [float(x) for x in re.findall(r"[-\d.e]+", re.sub("[ML]", " ", path))]
    return list(zip(numbers[::2], numbers[1::2], strict=True))
