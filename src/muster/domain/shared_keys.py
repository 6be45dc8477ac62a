"""Symmetric keys that several enrollment groups have: a key derived from one of them fits every such group.

Sources: dps.md 4.1, 4.3. Not here: deriving keys (``sas.py``), and which group a registration takes.
"""

import base64
from collections.abc import Iterable

from muster.domain.check_table import check, quoted, shell_word
from muster.domain.enrollment import Enrollment
from muster.domain.report import Check


def check_group_keys(group: Enrollment, groups: Iterable[Enrollment]) -> Check:
    """Whether ``group``, of symmetric keys, has them to itself among ``groups``, which may hold it as well."""
    own = _keys(group)
    sharing = [other.id for other in groups if other.id != group.id and own & _keys(other)]
    shown = ", ".join(quoted(name) for name in sharing[:3]) + (f" and {len(sharing) - 3} more" if sharing[3:] else "")
    return check(
        "group.key-unique",
        passed=not sharing,
        detail=f"enrollment group {quoted(group.id)} shares a symmetric key with {shown}"
        if sharing
        else f"no other enrollment group has a symmetric key of {quoted(group.id)}",
        fix="a device with a derived key may be taken for one of the other group: give each group keys of its own,"
        f" muster group update {shell_word(group.id, 'GROUP')} --primary-key KEY --secondary-key KEY",
    )


def _keys(group: Enrollment) -> set[bytes]:
    return {base64.b64decode(key) for key in group.mechanism.keys}
