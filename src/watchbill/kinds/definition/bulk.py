"""What jq need not see of an object: the long lists of pod templates that no expression of its kind looks into.

Reading an object into jq and out of it again takes longer than all of a kind's expressions, and most of the
object is variables, volumes and arguments. In their place jq sees numbers, which are exchanged back in what it
yields, so an expression may hand on a whole template. That no expression sees the numbers is tried for the
kinds that we ship; whoever writes others may iterate over what they like, so these see the whole object.
"""

import re
from typing import Any

_LISTS = frozenset(
    {
        "args",
        "command",
        "containers",
        "env",
        "envFrom",
        "imagePullSecrets",
        "initContainers",
        "ports",
        "tolerations",
        "topologySpreadConstraints",
        "volumeDevices",
        "volumeMounts",
        "volumes",
    }
)
_LOOKS_EVERYWHERE = re.compile(
    r"\.\.|\b(?:recurse|walk|tostring|tojson|tostream|paths|leaf_paths|getpath)\b"
)
_WORD = re.compile(r"\w+")
_REPLACED = frozenset({list, int, float})


def unread_members(program: str) -> frozenset[str]:
    """The members that a jq program cannot look into, since it neither names them nor visits everything."""
    if _LOOKS_EVERYWHERE.search(program):
        return frozenset()
    return _LISTS.difference(_WORD.findall(program))


class Bulk:
    """The values of such members of one object."""

    def __init__(self, members: frozenset[str]) -> None:
        self._members = members
        self._values: list[Any] = []

    def taken_from(self, value: Any) -> Any:
        """A copy with a number in the place of each such list, and of each number there: none can be invented.

        What is no list is none of a template's: labels and roles may have these names too.
        """
        if type(value) is dict:
            return {
                name: self._number(item)
                if name in self._members and type(item) in _REPLACED
                else self.taken_from(item)
                for name, item in value.items()
            }
        if type(value) is list:
            return [self.taken_from(item) for item in value]
        return value

    def put_back(self, value: Any) -> Any:
        """The same with the values in the places of their numbers."""
        if not self._values:
            return value
        if type(value) is dict:
            return {
                name: self._value(item)
                if name in self._members and type(item) is int
                else self.put_back(item)
                for name, item in value.items()
            }
        if type(value) is list:
            return [self.put_back(item) for item in value]
        return value

    def _number(self, value: Any) -> int:
        self._values.append(value)
        return len(self._values) - 1

    def _value(self, number: int) -> Any:
        return self._values[number] if 0 <= number < len(self._values) else number
