"""Fills the template of a page that is one file: it needs no other file and no network, and no script but its own runs.

A template marks a place as ``{{name}}`` and has one element ``style`` and one element ``script`` without attributes. Needs only the
standard library.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any


def filled(template: str, parts: Mapping[str, str], allowed: str = "") -> str:
    """Return ``template`` with ``parts``, which is markup, in the places of these names, and its policy in the place ``policy``.

    ``allowed`` is a directive of the policy for what the page may load besides its own style and script. Invalid characters (half a
    surrogate pair) become "?".
    """
    parts = {"policy": _policy(template, allowed), **parts}
    # In one pass, so that no data are mistaken for a placeholder.
    page = re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template)
    return page.encode(errors="replace").decode()


def _policy(template: str, allowed: str) -> str:
    """Return a Content-Security-Policy that only allows the template's own style and script, by their sha256, and what is ``allowed``."""

    def own(tag: str) -> str:
        content = re.search(f"<{tag}>(.*?)</{tag}>", template, re.DOTALL)[1]
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    directives = ["default-src 'none'", f"script-src {own('script')}", f"style-src {own('style')}", allowed, "base-uri 'none'"]
    return "; ".join(filter(None, [*directives, "form-action 'none'"]))


def embedded(value: Any) -> str:
    """Return JSON for an element ``script``: it contains no start of a tag, and NaN and infinity, which JSON lacks, are strings."""
    plain = json.loads(json.dumps(value), parse_constant=str)
    return json.dumps(plain, separators=(",", ":")).replace("<", "\\u003c")
