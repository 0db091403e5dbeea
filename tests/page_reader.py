"""Reads a page of HTML as a browser's parser does, without a browser: its elements, its text, its table."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "img", "source", "input", "br", "link"}


@dataclass
class Element:
    """One start tag, and all the text inside it."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    inside: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> list[Element]:
        """The elements of ``tag`` inside this one, in document order."""
        found = []
        for element in self.inside:
            found += [element] if element.tag == tag else []
            found += element.all(tag)
        return found

    def with_id(self, id_: str) -> Element:
        """The element of that id inside this one."""
        return next(e for e in self.everything() if e.attributes.get("id") == id_)

    def everything(self) -> list[Element]:
        """Every element inside this one."""
        return [e for element in self.inside for e in (element, *element.everything())]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("document", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].inside.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def read_page(page: bytes) -> Element:
    """The document in ``page``; an error where its tags are not properly nested."""
    reader = _Reader()
    reader.feed(page.decode())
    reader.close()
    assert [element.tag for element in reader.open] == ["document"]
    return reader.open[0]


def table_of(document: Element, id_: str = "results") -> list[dict[str, Element]]:
    """The rows of the table of that id: title of a column -> its cell."""
    table = document.with_id(id_)
    titles = [cell.text for cell in table.all("thead")[0].all("th")]
    assert len(set(titles)) == len(titles)
    rows = [[e for e in row.inside if e.tag in ("th", "td")] for row in table.all("tbody")[0].all("tr")]
    return [dict(zip(titles, cells, strict=True)) for cells in rows]
