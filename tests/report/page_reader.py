"""Reads a report with the standard library's HTML parser, for tests: elements, attributes, text."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any


class Node:
    """An element: tag, attributes, children (elements and text)."""

    def __init__(self, tag: str, attributes: dict[str, str | None]):
        self.tag, self.own = tag, attributes
        self.children: list[Any] = []

    def walk(self):
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.walk()

    @property
    def content(self) -> str:
        return "".join(child if isinstance(child, str) else child.content for child in self.children)

    def has(self, tag: str, name: str | None) -> bool:
        return self.tag == tag and (name is None or name in (self.own.get("class") or "").split())

    def find(self, tag: str, name: str | None = None) -> list[Node]:
        return [node for node in self.walk() if node.has(tag, name)]

    def text(self, tag: str, name: str | None = None) -> list[str]:
        return [" ".join(node.content.split()) for node in self.find(tag, name)]

    def attributes(self, tag: str, name: str | None = None) -> list[dict[str, str | None]]:
        return [node.own for node in self.find(tag, name)]

    def classes(self, tag: str) -> list[list[str]]:
        return [(node.own.get("class") or "").split() for node in self.find(tag)]

    def marks(self) -> list[tuple[str, list[str]]]:
        return [(node.content, (node.own["data-e"] or "").split()) for node in self.find("mark")]


class Page(Node):
    """A whole report. Every tag must be closed where it should be."""

    def __init__(self, html: str):
        super().__init__("page", {})
        self.html = html
        stack: list[Node] = [self]

        class Reader(HTMLParser):
            def handle_starttag(self, tag, attributes):
                node = Node(tag, dict(attributes))
                assert len(node.own) == len(attributes), f"an attribute twice: {attributes}"
                stack[-1].children.append(node)
                if tag not in ("meta", "br", "input"):
                    stack.append(node)

            def handle_startendtag(self, tag, attributes):
                stack[-1].children.append(Node(tag, dict(attributes)))

            def handle_endtag(self, tag):
                while stack[-1].tag != tag:
                    assert stack[-1].tag in ("p", "li", "tr", "td", "th"), f"</{tag}> within <{stack[-1].tag}>"
                    stack.pop()
                stack.pop()

            def handle_data(self, data):
                stack[-1].children.append(data)

            def handle_comment(self, data):
                raise AssertionError(f"a comment: {data}")

        Reader(convert_charrefs=True).feed(html)
        assert stack == [self]
        self.cases = self.find("details", "case")

    def numbers(self) -> set[float]:
        return {float(node.own["value"] or "nothing") for node in self.find("data")}
