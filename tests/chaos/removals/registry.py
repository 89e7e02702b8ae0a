"""The protections that can be taken away, by name."""

from collections.abc import Callable

Removal = Callable[[], None]

UNPROTECTED: dict[str, Removal] = {}


def without(name: str) -> Callable[[Removal], Removal]:
    """Register what removes the protection called `name`."""

    def register(remove: Removal) -> Removal:
        assert name not in UNPROTECTED, f"{name} is there twice"
        UNPROTECTED[name] = remove
        return remove

    return register
