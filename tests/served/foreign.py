"""Finds in a page what its templates did not write: elements, attributes, names and addresses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from playwright.sync_api import Page

_TEMPLATES = Path(__file__).resolve().parents[2] / "gateway/pages/templates"
#: What the parser and our scripts add to what the templates write: tables' bodies, titles of times, charts.
_TAGS_ADDED = ("tbody", "canvas", "td", "th", "tr", "div", "table")
_ATTRIBUTES_ADDED = ("title", "disabled", "hidden", "open", "required", "selected", "checked", "defer", "multiple")

#: Takes (what there may be, a document as text or null for the page itself); gives a sentence for each thing else.
_SEARCH = """
([known, text]) => {
  const root = text === null ? document : new DOMParser().parseFromString(text, "text/html");
  const found = [];
  for (const one of root.querySelectorAll("*")) {
    const told = one.outerHTML.slice(0, 120);
    const tag = one.localName;
    if (!known.tags.includes(tag)) { found.push(`element ${tag}: ${told}`); continue; }
    if (tag === "template" && one.id !== "answer") found.push(`template: ${told}`);
    if (tag === "script" && !one.getAttribute("src")) found.push(`script within: ${told}`);
    if (one.closest(".uplot")) continue;  // its styles are set by the script that draws
    for (const { name, value } of one.attributes) {
      if (!known.attributes.includes(name)) found.push(`attribute ${name}: ${told}`);
      else if (["id", "name"].includes(name) && !known.names.some((own) => new RegExp(`^${own}$`).test(value)))
        found.push(`${name} ${value}: ${told}`);
      else if (["href", "src", "action", "hx-get", "hx-post"].includes(name)) {
        const place = new URL(value, location.href);
        const ours = place.origin === location.origin && place.pathname.startsWith("/ui/");
        if (!ours || place.pathname.includes("xss")) found.push(`address ${value}: ${told}`);
      }
    }
  }
  return found;
}
"""


@cache
def _known() -> Mapping[str, list[str]]:
    """Tags, attributes and names that the templates write; in names a part that is filled in stands for any."""
    text = "".join(path.read_text() for path in sorted(_TEMPLATES.glob("*.html")))
    tags = {*re.findall(r"<([a-z][a-z0-9]*)", text), *_TAGS_ADDED}
    attributes = {*re.findall(r"[\s}\"']([a-z][a-z0-9-]*(?:[A-Z][a-zA-Z]+)?)=[\"']", text), *_ATTRIBUTES_ADDED}
    names = {
        ".*".join(re.escape(part) for part in re.split(r"\{\{.*?\}\}", name))
        for name in re.findall(r"\s(?:id|name)=\"([^\"]+)\"", text)
    }
    return {"tags": sorted(tags), "attributes": sorted(attributes), "names": sorted(names)}


def foreign(page: Page, text: str | None = None) -> list[str]:
    """Tell what the templates did not write: in the page, or in a document of this text, which is not run."""
    found: list[str] = page.evaluate(_SEARCH, [dict(_known()), text])
    return found
