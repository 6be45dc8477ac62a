"""No check without a real client that runs into it."""

import ast
from pathlib import Path

from muster.domain.check_table import CHECKS

CONFORMANCE = Path(__file__).resolve().parents[1] / "conformance"

UNPROVOKED: dict[str, str] = {}
"""Checks that no real client was made to run into, with the reason."""


def claimed() -> list[str]:
    """The ids in every ``provokes(...)`` of the conformance tests. That they are true is asserted when those run."""
    calls = [
        node
        for module in CONFORMANCE.glob("test_*.py")
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "provokes"
    ]
    return [ast.literal_eval(argument) for call in calls for argument in call.args]


def test_every_check_is_provoked_by_a_real_client():
    assert set(claimed()) | set(UNPROVOKED) == set(CHECKS)
    assert not set(claimed()) & set(UNPROVOKED)
