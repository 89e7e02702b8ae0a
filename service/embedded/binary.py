"""Where the wheel `nvidia-pytriton` keeps the real tritonserver, and how to start it without importing that package."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from ctypes.util import find_library
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

BACKENDS_DIR = Path(__file__).parent / "backends"
"""Python-based backends of this project: `<name>/model.py` each."""


class BinaryMissingError(RuntimeError):
    """This environment cannot run the embedded Triton; the message says what to install, in one line."""


@dataclass(frozen=True, slots=True)
class TritonBinary:
    """The parts of the wheel that a start needs.

    Args:
        server: the `tritonserver` executable.
        python_backend: folder with `libtriton_python.so` and `triton_python_backend_utils.py`.
        stub: `triton_python_backend_stub` of the running Python's minor version.
        library_paths: folders for `LD_LIBRARY_PATH`: the wheel's libraries, then the running Python's own.
    """

    server: Path
    python_backend: Path
    stub: Path
    library_paths: tuple[Path, ...]

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` with the search paths set so that server and stub find their libraries and this Python.

        The stub embeds Python and finds `site-packages` through the first `python3` on PATH, so the folder of the
        running interpreter comes first there.
        """
        libraries = [path.as_posix() for path in self.library_paths]
        inherited = base.get("LD_LIBRARY_PATH")
        return {
            **base,
            "LD_LIBRARY_PATH": os.pathsep.join([*libraries, inherited] if inherited else libraries),
            "PATH": os.pathsep.join([Path(sys.executable).parent.as_posix(), base.get("PATH", os.defpath)]),
        }

    def make_backend_directory(self, directory: Path) -> None:
        """Fill `directory` with what `--backend-directory` needs: the python backend and ours, about 3 MB.

        Copied together, because the wheel keeps one stub per Python version apart from the backend, and Triton
        refuses links that lead out of a backend's folder.
        """
        python = directory / "python"
        python.mkdir(parents=True)
        for part in (
            self.stub,
            self.python_backend / "libtriton_python.so",
            self.python_backend / "triton_python_backend_utils.py",
        ):
            shutil.copy(part, python / part.name)
        for model in BACKENDS_DIR.glob("*/model.py"):
            backend = directory / model.parent.name
            backend.mkdir()
            shutil.copy(model, backend / model.name)


def find_binary() -> TritonBinary:
    """Locate the wheel's files.

    Raises:
        BinaryMissingError: the wheel, a part of it, or the shared libpython that its stub needs is not installed.
    """
    spec = find_spec("pytriton")  # finds the folder without running the package's code
    if spec is None or spec.origin is None:
        raise BinaryMissingError("tritonserver is not installed; install the extra: pip install 'depthlens[embedded]'")
    package = Path(spec.origin).parent
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    binary = TritonBinary(
        server=package / "tritonserver/bin/tritonserver",
        python_backend=package / "tritonserver/backends/python",
        stub=package / "tritonserver/python_backend_stubs" / minor / "triton_python_backend_stub",
        library_paths=(package.parent / "nvidia_pytriton.libs", *_libpython_directory()),
    )
    for path in (binary.server, binary.stub, binary.python_backend, binary.library_paths[0]):
        if not path.exists():
            raise BinaryMissingError(
                f"nvidia-pytriton has no {path.name} for Python {minor}; reinstall nvidia-pytriton==0.7.0 for x86-64 "
                "Linux under Python 3.11 to 3.13"
            )
    return binary


def _libpython_directory() -> tuple[Path, ...]:
    """The folder of the running Python's shared library, empty when the system's loader finds it by itself.

    The same library matters, not just the same version: the stub would otherwise load another build's C modules.
    """
    library = sysconfig.get_config_var("INSTSONAME") or ""
    soname = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    for directory in (sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib"):
        if directory and (Path(directory) / soname).exists():
            return (Path(directory),)
    if find_library(f"python{sys.version_info.major}.{sys.version_info.minor}") is None and sys.version_info < (3, 13):
        raise BinaryMissingError(
            f"{soname} is not found (this Python is built as {library or 'a static program'}); install a Python with "
            f"its shared library, on Debian: apt-get install libpython{soname[9:13]}"
        )
    return ()
