"""The page that describes the requests: the OpenAPI description as plain HTML, without a script from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>painseq: requests</title>
<link rel="icon" href="icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="page.css">
</head>
<body>
<header><h1>painseq: requests</h1><p class="notice">{notice}</p></header>
<main>
<section class="card wide">
<p>Each request needs the header <code>Authorization: Bearer TOKEN</code>. Errors are
<code>{{"error": "a sentence"}}</code>.
This is <code>GET /openapi.json</code> to read. The stream, <code>WS /stream</code>, is described in docs/serve.md.</p>
</section>
{requests}
</main>
</body>
</html>
"""


def api_page(description: Mapping[str, Any]) -> str:
    """Return an OpenAPI description as a page."""
    return _PAGE.format(
        notice=escape(description["info"]["description"]), requests="\n".join(_requests(description["paths"]))
    )


def _requests(paths: Mapping[str, Any]) -> Iterator[str]:
    for path, methods in paths.items():
        for method, request in methods.items():
            fields = "".join(
                f"<li><code>{escape(name)}</code>: {escape(field.get('description', ''))}</li>"
                for content in request.get("requestBody", {}).get("content", {}).values()
                for name, field in content["schema"]["properties"].items()
            )
            codes = ", ".join(sorted(request.get("responses", {})))
            yield (
                f'<section class="card wide"><h2><code>{method.upper()} {escape(path)}</code></h2>'
                f"<p>{escape(request.get('description', ''))}</p>{f'<ul>{fields}</ul>' if fields else ''}"
                f"<p>Answers: {escape(codes)}.</p></section>"
            )
