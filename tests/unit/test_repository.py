"""Rules for files of the repository that no tool checks."""

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

LOCKS = [*REPOSITORY.glob("requirements/*.txt"), *REPOSITORY.glob("**/package-lock.json")]


@pytest.mark.parametrize(
    "lock", [lock for lock in LOCKS if "node_modules" not in lock.parts], ids=lambda path: path.name
)
def test_locks_name_packages_and_no_places(lock: Path) -> None:
    text = lock.read_text()
    assert re.findall(r"\w+://|--(?:extra-)?index-url|--find-links|\"resolved\"", text) == []


@pytest.mark.parametrize("lock", list(REPOSITORY.glob("requirements/*.txt")), ids=lambda path: path.name)
def test_everything_that_is_locked_has_a_hash(lock: Path) -> None:
    entries = re.split(r"\n(?=\S)", re.sub(r"^\s*#.*\n", "", lock.read_text(), flags=re.MULTILINE))
    pinned = [entry for entry in entries if "==" in entry]
    assert pinned
    assert all("--hash=sha256:" in entry for entry in pinned)


def test_every_route_of_our_own_is_documented() -> None:
    modules = sorted((REPOSITORY / "src/muster/frontends/rest").glob("muster*.py"))
    source = "".join(module.read_text() for module in modules)
    documented = (REPOSITORY / "docs/api.md").read_text()
    routes = {route.replace("{id:path}", "{id}") for route in re.findall(r'"(/muster/v1/[^"]+)"', source)}
    assert routes
    assert all(re.search(rf"`[A-Z]+ {re.escape(route)}`", documented) for route in routes)


def test_links_between_documents_lead_somewhere() -> None:
    for document in [REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_no_secret_file_and_no_built_file_is_tracked() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    assert [name for name in listed if re.search(r"\.(key|so|pyc|db)$|status\.json$|__pycache__", name)] == []
