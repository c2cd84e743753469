"""The review page's files and an offline page of the interface; nothing on either comes from another host."""

from __future__ import annotations

from html import escape
from importlib import resources
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import HTMLResponse

from realdamage.service.refusals import Refusal

_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "json": "application/json",
}


def router(app: FastAPI, package: str = "realdamage.service") -> APIRouter:
    """The routes; `package` has a folder `page` with index.html, scripts and styles, all in one level."""
    routes = APIRouter(include_in_schema=False)

    @routes.head("/")
    @routes.get("/")
    async def index() -> Response:
        return page_file(package, "index.html")

    @routes.get("/page/{name}")
    async def page(name: str) -> Response:
        return page_file(package, name)

    @routes.get("/favicon.ico")
    async def icon() -> Response:
        return page_file(package, "icon.svg")

    @routes.get("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse(_describe(app.openapi()))

    return routes


def page_file(package: str, name: str) -> Response:
    """A file of the page. Raises Refusal 404; only names that lie in the folder are ever opened."""
    folder = resources.files(package).joinpath("page")
    names = {item.name for item in folder.iterdir() if item.is_file()} if folder.is_dir() else set()
    ending = name.rpartition(".")[2]
    if name not in names or ending not in _TYPES:
        raise Refusal(
            404,
            "not_found",
            f"the page has no file {name[:80]!r}; the interface is described at /docs",
        )
    return Response(folder.joinpath(name).read_bytes(), media_type=_TYPES[ending])


def _describe(schema: dict[str, Any]) -> str:
    rows = []
    for path, methods in sorted(schema["paths"].items()):
        for method, operation in methods.items():
            codes = ", ".join(operation.get("responses", {}))
            text = operation.get("description") or operation.get("summary", "")
            rows.append(
                f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2><p>{escape(text)}</p>"
                f"{_parameters(operation)}<p>Answers: {escape(codes)}</p>"
            )
    title = escape(schema["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        f"<body><h1>{title}</h1>"
        f"<p>{escape(schema['info'].get('description', ''))}</p>"
        '<p>The same for programs: <a href="/openapi.json">/openapi.json</a></p>'
        + "".join(rows)
        + "</body></html>"
    )


def _parameters(operation: dict[str, Any]) -> str:
    found = [
        (item["name"], item.get("description", "")) for item in operation.get("parameters", [])
    ]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        properties = content.get("schema", {}).get("properties", {})
        found += [(name, value.get("description", "")) for name, value in properties.items()]
    if not found:
        return ""
    return (
        "<dl>"
        + "".join(f"<dt><code>{escape(n)}</code></dt><dd>{escape(d)}</dd>" for n, d in found)
        + "</dl>"
    )
