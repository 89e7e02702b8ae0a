"""Fill the model store of a pod: copy what the list names, and nothing whose SHA-256 differs.

    python3 model_store.py LIST SOURCE STORE

LIST has lines as `sha256sum` writes them, paths relative to SOURCE. The bytes that are hashed are the bytes that are
written, and a file gets its name in STORE once they were right. Ends with 1 and one line at the first difference.
"""

import hashlib
import sys
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def fill(names: Path, source: Path, store: Path) -> int:
    """Copy; returns how many files.

    Raises:
        ValueError: a path that leaves the store, a line that is none, another digest, an empty list.
        OSError: a file is missing, or no room.
    """
    lines = names.read_text(encoding="utf-8").splitlines()
    if not lines:
        raise ValueError(f"{names} names no file")
    for line in lines:
        expected, _, name = line.partition("  ")
        if len(expected) != hashlib.sha256().digest_size * 2 or not name:
            raise ValueError(f"not a line of sha256sum: {line!r}")
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{name} is outside the store")
        target = store / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        digest = hashlib.sha256()
        with (source / name).open("rb") as reading, part.open("wb") as writing:
            while chunk := reading.read(_CHUNK_BYTES):
                digest.update(chunk)
                writing.write(chunk)
        if digest.hexdigest() != expected:
            part.unlink()
            raise ValueError(f"{name}: SHA-256 is {digest.hexdigest()}, not {expected}")
        part.replace(target)
    return len(lines)


if __name__ == "__main__":
    try:
        print(f"model store: {fill(*map(Path, sys.argv[1:4]))} files, all as listed")
    except (OSError, ValueError) as error:
        sys.exit(f"model store: {error}")
