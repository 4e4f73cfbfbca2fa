"""The environment of the pipeline's processes and kernels: the same figures and folders whoever starts them."""

import os
import pwd
import tempfile
from importlib.util import find_spec
from pathlib import Path

# What would change what a kernel draws or prints.
FOREIGN = (
    *("MPLBACKEND", "MATPLOTLIBRC", "PYTHONSTARTUP", "PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONINSPECT"),
    *("PYTHONVERBOSE", "PYTHONDEBUG", "PYTHONUTF8", "PYTHONBREAKPOINT", "PYTHONPROFILEIMPORTTIME", "FORCE_COLOR"),
    *("NO_COLOR", "COLUMNS", "LINES", "TERM", "LANGUAGE", "LC_ALL", "LANG", "TZ", "IPYTHONDIR"),
)
FIXED = {
    "PYTHONHASHSEED": "0",  # the order of sets stays the same from run to run
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "LC_ALL": "C.UTF-8",
}


def kernel_environment(folder: Path) -> dict[str, str]:
    """Return the environment of a kernel: that of this process without what changes pages, which is fixed.

    Args:
        folder: private one of the kernel.
    """
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    styles = Path(find_spec("matplotlib").origin).parent / "mpl-data" / "matplotlibrc"  # not the user's
    return kept | FIXED | {"IPYTHONDIR": str(folder / "ipython"), "MATPLOTLIBRC": str(styles)}


def usable_environment(root: Path) -> dict[str, str]:
    """Return the environment of this process, with a home and a name where its user has none, as in containers.

    Args:
        root: the project's folder; the home is in its ``.cache``.
    """
    environment = dict(os.environ)
    home = environment.get("HOME", "")
    if not (home and Path(home).is_dir() and os.access(home, os.W_OK)):
        place = root / ".cache" / "home"
        place.mkdir(parents=True, exist_ok=True)
        environment["HOME"] = str(place)
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        environment |= {name: environment.get(name, f"user{os.getuid()}") for name in ("USER", "LOGNAME")}
    environment.setdefault("TMPDIR", tempfile.gettempdir())
    return environment
