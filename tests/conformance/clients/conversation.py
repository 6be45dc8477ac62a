"""What every client script here shares: requests come in a line each, answers go out a line each, as JSON.

``{"id": 1, "operation": "connect", "arguments": {...}}`` is answered with ``{"id": 1, "value": ...}`` or
``{"id": 1, "error": {"kind": ..., "text": ..., "causes": [...]}}``, with ``"status"`` and ``"body"`` of the HTTP answer
if there was one. Requests run at the same time, each in a thread of its own. The other side is
``tests/support/fix_clients.py``.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TextIO

Operations = dict[str, Callable[..., Any]]


def converse(operations: Operations) -> None:
    """Serve requests until standard input ends, then end the process, whatever its threads do."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is no answer
    lock = threading.Lock()
    for line in sys.stdin:
        request = json.loads(line)
        threading.Thread(target=_answer, args=(operations, request, answers, lock), daemon=True).start()
    os._exit(0)


def _answer(operations: Operations, request: dict[str, Any], answers: TextIO, lock: threading.Lock) -> None:
    answer: dict[str, Any] = {"id": request["id"]}
    try:
        answer["value"] = operations[request["operation"]](**request["arguments"])
    except Exception as error:  # noqa: BLE001 - whatever the SDK raised is the answer
        chain = list(_chain(error))
        answer["error"] = {"kind": type(error).__name__, "text": str(error), "causes": chain[1:], **_response(error)}
    text = json.dumps(answer)
    with lock:
        answers.write(text + "\n")
        answers.flush()


def _chain(error: BaseException | None) -> Iterator[str]:
    """An exception and what it was raised from, in words."""
    while error is not None:
        yield f"{type(error).__name__}: {error}"
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__


def _response(error: BaseException) -> dict[str, Any]:
    """The HTTP answer that an SDK's error carries, itself or in its cause."""
    for carrier in (error, getattr(error, "cause", None)):
        response = getattr(carrier, "response", None)
        if response is not None:
            text = response.text
            return {"status": response.status_code, "body": text() if callable(text) else text}
    return {}
