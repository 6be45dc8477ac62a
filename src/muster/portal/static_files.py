"""The portal's static files, kept in memory; their addresses carry a hash, so browsers may keep them for ever.

Not here: anything that changes, or that is made from what users or devices sent.
"""

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FOR_EVER = "public, max-age=31536000, immutable"


class StaticFiles:
    """Every file of the directory whose type is known, by its name."""

    def __init__(self, directory: Traversable | None = None) -> None:
        directory = directory or files("muster.portal").joinpath("static")
        self._files = {
            file.name: file.read_bytes() for file in directory.iterdir() if file.name.rpartition(".")[2] in _TYPES
        }

    @property
    def paths(self) -> frozenset[str]:
        """Where the files are served."""
        return frozenset(f"/static/{name}" for name in self._files)

    def address(self, name: str) -> str:
        """``/static/portal.css?v=<hash>``. KeyError for a name that is not there: a bug in a template."""
        return f"/static/{name}?v={hashlib.sha256(self._files[name]).hexdigest()[:12]}"

    async def serve(self, request: Request) -> Response:
        """The file that the path names."""
        name = request.path_params["name"]
        content = self._files.get(name)
        if content is None:
            raise HTTPException(404)
        return Response(content, media_type=_TYPES[name.rpartition(".")[2]], headers={"cache-control": _FOR_EVER})
