"""The site's tools: vendored scripts, refused chapters, checked pages, loopback only."""

import base64
import hashlib
import http.server
import io
import json
import subprocess
import sys
import tarfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from site_check import MAX_WEIGHT, check_site

import build
import tension_book

ROOT = Path(__file__).parents[1]


def tarball_of(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def sha512(data: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


THING = {"package.json": '{"name": "thing", "version": "1.0.0"}', "dist/a.js": "a", "dist/deep/b.js": "b"}


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A registry on loopback with one small package, and a lock file that pins it; a test may serve other content."""
    files = {"tarball": tarball_of(THING)}

    class Registry(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            dist = {"tarball": f"http://{self.headers['Host']}/thing.tgz", "integrity": sha512(files["tarball"])}
            release = {"name": "thing", "version": "1.0.0", "dist": dist}
            about = {"name": "thing", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": release}}
            body = files["tarball"] if self.path.endswith(".tgz") else json.dumps(about).encode()
            self.send_response(200 if files["tarball"] else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_address[1]}/")
    here = tmp_path / "_ext"
    here.mkdir()
    wanted = {"name": "book", "dependencies": {"thing": "1.0.0"}}
    pinned = {"version": "1.0.0", "integrity": sha512(files["tarball"])}
    lock = {"name": "book", "lockfileVersion": 3, "packages": {"": wanted, "node_modules/thing": pinned}}
    (here / "package.json").write_text(json.dumps(wanted))
    (here / "package-lock.json").write_text(json.dumps(lock))
    (here / ".npmrc").write_text("fetch-retries=0\n")
    monkeypatch.setattr(build, "HERE", here)
    monkeypatch.setattr(build, "SERVED", {"thing/dist": ("things", ("*.js",)), "thing": ("", ("package.json",))})
    yield files
    server.shutdown()
    server.server_close()


def vendored(tmp_path: Path) -> dict[str, str]:
    site = build.vendor(tmp_path, tmp_path / "cache")
    return {p.relative_to(site).as_posix(): p.read_text() for p in site.rglob("*") if p.is_file()}


def test_scripts_are_fetched_once_and_repaired_without_the_network(
    served: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {"vendor/things/a.js": "a", "vendor/package.json": THING["package.json"]}
    assert vendored(tmp_path) == expected
    served["tarball"] = b""  # the registry is down
    (tmp_path / "vendor_site" / "vendor" / "things" / "a.js").write_text("damaged")
    assert vendored(tmp_path) == expected, "npm keeps what it fetched"
    monkeypatch.setattr(build, "node_modules", lambda *_: pytest.fail("asked npm although nothing changed"))
    assert vendored(tmp_path) == expected


def test_other_content_than_pinned_is_refused(served: dict[str, bytes], tmp_path: Path) -> None:
    served["tarball"] = tarball_of(THING | {"dist/a.js": "evil"})
    with pytest.raises(RuntimeError, match=r"npm could not fetch .*(?s:.*)EINTEGRITY"):
        vendored(tmp_path)
    assert not (tmp_path / "vendor_site").exists()


def test_without_a_registry_the_error_is_that_of_npm(
    served: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    with pytest.raises(RuntimeError, match=r"npm could not fetch .*(?s:.*)ECONNREFUSED"):
        vendored(tmp_path)
    assert not (tmp_path / "vendor_site").exists()


def test_a_changed_package_layout_is_noticed(
    served: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(build.SERVED, "thing/lib", ("", ("*.js",)))
    with pytest.raises(RuntimeError, match=r"thing/lib: no file matches \*.js"):
        vendored(tmp_path)
    assert not (tmp_path / "vendor_site").exists()


def test_lock_file_pins_every_package_and_names_no_host() -> None:
    text = (ROOT / "book" / "_ext" / "package-lock.json").read_text()
    wanted, packages = json.loads((ROOT / "book" / "_ext" / "package.json").read_text()), json.loads(text)["packages"]
    own = packages.pop("")
    names = {**wanted["dependencies"], **wanted["devDependencies"]}
    assert {**own["dependencies"], **own["devDependencies"]} == names
    assert {name.removeprefix("node_modules/"): pin["version"] for name, pin in packages.items()} == names
    for pin in packages.values():
        assert pin["integrity"].startswith("sha512-") and len(pin["integrity"]) == 95
    assert "://" not in text and '"resolved"' not in text


def write_notebook(path: Path, *, status: str = "completed", count: int | None = 1, error: bool = False) -> Path:
    output = nbformat.v4.new_output("error", ename="KeyError", evalue="'reward'", traceback=["boom"])
    cell = nbformat.v4.new_code_cell("1 + 1", execution_count=count, outputs=[output] if error else [])
    cell.metadata["papermill"] = {"status": status}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A"), cell]), path)
    return path


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"error": True}, "cell 2 ended with KeyError: 'reward'"),
        ({"status": "pending"}, "cell 2 did not run .status 'pending'"),
        ({"count": None}, "cell 2 did not run"),
    ],
)
def test_half_run_chapters_are_refused(tmp_path: Path, fault: dict, message: str) -> None:
    build.check_executed(write_notebook(tmp_path / "good.ipynb"))
    with pytest.raises(ValueError, match=message):
        build.check_executed(write_notebook(tmp_path / "bad.ipynb", **fault))


@pytest.fixture
def small_root(tmp_path: Path) -> Path:
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "intro.md").write_text("# Intro")
    (tmp_path / "_config.yml").write_text("title: small")
    chapters = [{"file": "executed/01_train"}, {"file": "executed/02_evaluate"}]
    toc = {"format": "jb-book", "root": "book/intro", "parts": [{"caption": "Stages", "chapters": chapters}]}
    (tmp_path / "_toc.yml").write_text(json.dumps(toc))
    return tmp_path


def test_toc_names_missing_chapters(small_root: Path) -> None:
    write_notebook(small_root / "executed" / "01_train.ipynb")
    with pytest.raises(FileNotFoundError, match="names executed/02_evaluate, expected .* `make book`"):
        build.toc_files(small_root)
    write_notebook(small_root / "executed" / "02_evaluate.ipynb")
    assert [path.name for path in build.toc_files(small_root)] == ["intro.md", "01_train.ipynb", "02_evaluate.ipynb"]


def test_toc_leaves_out_what_the_stored_study_does_not_fill(small_root: Path) -> None:
    parts = [
        {"caption": "Stages", "chapters": [{"file": "study/01_train"}, {"file": "study/02_evaluate"}]},
        {"caption": "None", "chapters": [{"file": "study/05_overlap"}]},
    ]
    (small_root / "_toc.yml").write_text(json.dumps({"format": "jb-book", "root": "book/intro", "parts": parts}))
    write_notebook(small_root / "study" / "02_evaluate.ipynb")
    assert build.present_toc(small_root)["parts"] == [
        {"caption": "Stages", "chapters": [{"file": "study/02_evaluate"}]}
    ]
    assert [path.name for path in build.toc_files(small_root)] == ["intro.md", "02_evaluate.ipynb"]


def test_contents_call_a_readers_own_run_so(small_root: Path) -> None:
    chapters = [{"file": f"executed/{name}", "title": f"Sandbox: {name}"} for name in ("01_train", "02_evaluate")]
    appendix = [*chapters[1:], {"file": "executed/07_errata", "title": "Errata"}]
    parts = [{"caption": "The sandbox (synthetic)", "chapters": chapters}, {"caption": "More", "chapters": appendix}]
    (small_root / "_toc.yml").write_text(json.dumps({"format": "jb-book", "root": "book/intro", "parts": parts}))
    for models, first in (("toy", parts), ("mine", None)):
        for name in ("01_train", "02_evaluate", "07_errata"):
            cell = nbformat.v4.new_code_cell(f'base_models = ["{models}"]', metadata={"tags": ["parameters"]})
            path = small_root / "executed" / f"{name}.ipynb"
            path.parent.mkdir(exist_ok=True)
            nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
        found = build.present_toc(small_root)["parts"]
        assert first is None or found == first
    titles = [[chapter["title"] for chapter in part["chapters"]] for part in found]
    assert titles == [["Your run: 01_train", "Your run: 02_evaluate"], ["Your run: 02_evaluate", "Errata"]]
    assert [part["caption"] for part in found] == ["Your run", "More"]


def test_build_skips_only_when_nothing_changed(small_root: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("01_train", "02_evaluate"):
        write_notebook(small_root / "executed" / f"{name}.ipynb")
    before = build.inputs_digest(small_root)
    (small_root / "_build" / "html").mkdir(parents=True)
    (small_root / "_build" / build.STAMP).write_text(before)
    build.build(small_root, small_root / ".cache")
    assert "up to date" in capsys.readouterr().out
    (small_root / "book" / "intro.md").write_text("# Introduction")
    assert build.inputs_digest(small_root) != before


def test_failed_command_is_one_message_and_keeps_the_old_book(
    small_root: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("01_train", "02_evaluate"):
        write_notebook(small_root / "executed" / f"{name}.ipynb")
    (small_root / "_build" / "html").mkdir(parents=True)
    (small_root / "_build" / "html" / "index.html").write_text("old")
    (small_root / "_build" / "inputs.sha256").write_text(64 * "0")
    monkeypatch.setattr(build, "vendor", lambda root, cache: root)
    (small_root / "book" / "intro.md").write_text("# Intro\n\n[gone](gone.md)\n")
    assert build.main(["build", "--root", str(small_root)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: jupyter-book failed") and "gone.md" in message
    (small_root / "_toc.yml").write_text((small_root / "_toc.yml").read_text().replace("jb-book", "no-such-format"))
    assert build.main(["build", "--root", str(small_root)]) == 1
    assert "no-such-format" in capsys.readouterr().err
    assert (small_root / "_build" / "html" / "index.html").read_text() == "old"


def test_jupyter_book_2_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    build.check_jupyter_book()
    monkeypatch.setattr(build, "version", lambda name: "2.1.7")
    with pytest.raises(RuntimeError, match="expected jupyter-book 1.x, found 2.1.7"):
        build.check_jupyter_book()


PAGE = "<html><body><main><h1 id='top'>Page</h1>{body}</main></body></html>"
FAULTS = [
    ('<script src="https://cdn.example/x.js"></script>', "<script> loads from another host"),
    ('<script src="//cdn.example/x.js"></script>', "<script> loads from another host"),
    ('<link rel="stylesheet" href="http://fonts.example/a.css">', "<link> loads from another host"),
    ("<style>@import 'https://fonts.example/a.css';</style>", "style loads from another host"),
    ('<img alt="a" src="gone.png">', "<img> loads a missing file: gone.png"),
    ('<a href="gone.html">x</a>', "link to a missing file: gone.html"),
    ('<a href="sub/other.html#nowhere">x</a>', "link to a missing anchor: sub/other.html#nowhere"),
    ('<a href="#nowhere">x</a>', "link to a missing anchor: #nowhere"),
    ('<a href="javascript:alert(1)">x</a>', "a link runs a script"),
    (
        '<div class="cell_output"><div class="output traceback"><pre>KeyError: x</pre></div></div>',
        "an output shows an error: KeyError: x",
    ),
]


def write_site(html: Path, body: str) -> Path:
    (html / "sub").mkdir(parents=True)
    (html / "index.html").write_text(PAGE.format(body=body))
    (html / "sub" / "other.html").write_text(PAGE.format(body='<a href="../index.html#top">up</a><a name="old">x</a>'))
    (html / "pic.png").write_bytes(b"0" * 1000)
    return html


@pytest.mark.parametrize(("body", "message"), FAULTS)
def test_each_fault_of_a_page_is_found(tmp_path: Path, body: str, message: str) -> None:
    report = check_site(write_site(tmp_path / "html", body))
    assert len(report.errors) == 1 and report.errors[0].startswith("index.html: ") and message in report.errors[0]


def test_a_sound_site_passes_and_is_weighed(tmp_path: Path) -> None:
    body = (
        '<a href="https://arxiv.org/abs/2606.13209">study</a><a href="sub/other.html#old">o</a><a href="#top">t</a>'
        '<a href="sub/">s</a><img alt="a line" src="pic.png"><img src="data:image/png;base64,AA" alt="">'
    )
    html = write_site(tmp_path / "html", body)
    (html / "sub" / "index.html").write_text(PAGE.format(body=""))
    report = check_site(html)
    assert report.errors == []
    assert report.notes == ["index.html: image without a description: data:image/png;base64,AA"]
    assert report.weights["index.html"] == (html / "index.html").stat().st_size + 1000


def test_heavy_pages_are_refused_with_what_weighs_most(tmp_path: Path) -> None:
    style = '<link rel="stylesheet" href="_static/styles/theme.css">'
    html = write_site(tmp_path / "html", f'<img alt="a" src="pic.png">{style}')
    (html / "_static" / "styles").mkdir(parents=True)
    (html / "_static" / "styles" / "theme.css").write_text('@import url("../basic.css");')
    page = (html / "index.html").stat().st_size + 1000 + 28
    (html / "_static" / "basic.css").write_bytes(b" " * (MAX_WEIGHT - page))  # loaded by the other style
    report = check_site(html)
    assert report.errors == [] and report.weights["index.html"] == MAX_WEIGHT
    (html / "pic.png").write_bytes(b"0" * 1001)
    (error,) = check_site(html).errors
    assert error.startswith("index.html: loads 3,000,001 bytes, above 3,000,000; heaviest: _static/basic.css 2,99")


THEME_PAGE = r"""<!DOCTYPE html><html><head><script src="../_static/scripts/fontawesome.js?digest=1"></script>
<script src="../_static/searchtools.js"></script><script src="../searchindex.js"></script>
<script>document.documentElement.dataset.theme = localStorage.getItem("theme") || "auto";</script>
<script src="../_static/documentation_options.js"></script></head><body>
<header class="bd-header"><button class="sidebar-toggle primary-toggle"></button></header>
<div class="bd-sidebar-primary"><button class="search-button-field" aria-label="Search" title="Search">Search x</button>
</div><main><button title="Full screen"><i class="fas fa-expand"></i></button>
<details><summary aria-label="Toggle"><p>Show code</p></summary></details>
<li class="has-children"><a>Package</a><details><summary><i></i></summary></details></li>
<dl class="py"><dt><dl><dd>first,</dd></dl></dt><dd>text</dd></dl>
<div class="citation-list" role="list"><div class="citation" role="doc-biblioentry">A &lt;b&gt;</div></div>
<p><span class="math">\(r(x)\)</span></p><img alt="a" src="plot.svg"/><img alt="b" src="gone.svg"/><pre>a
  &amp; b</pre><script type="application/json">{"a": "\u003c/script> <b>"}</script></main></body></html>"""


def test_pages_lose_unused_scripts_and_gain_names_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "_static" / "scripts").mkdir(parents=True)
    (tmp_path / "_static" / "scripts" / "fontawesome.js").write_text("icons")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "plot.svg").write_text(
        '<?xml version="1.0"?><svg xmlns="x" width="72pt" height="36.2pt" viewBox="0">'
    )
    for name in ("sub/page.html", "sub/search.html", "_static/webpack.html"):
        (tmp_path / name).write_text(THEME_PAGE)
    tension_book.mend_pages(tmp_path)
    page, search = ((tmp_path / "sub" / f"{name}.html").read_text() for name in ("page", "search"))
    assert not (tmp_path / "_static" / "scripts" / "fontawesome.js").exists()
    assert (tmp_path / "_static" / "webpack.html").read_text() == THEME_PAGE
    assert "fontawesome" not in page + search and "searchindex" not in page and "searchtools" not in page
    assert "searchindex" in search and "searchtools" in search and "documentation_options" in page
    assert '<img alt="a" height="48" src="plot.svg" width="96"/>' in page and '<img alt="b" src="gone.svg"/>' in page
    assert '<summary aria-label="Pages of Package">' in page
    assert '<dl class="py"><dt><div class="sig-params"><div>first,</div></div></dt><dd>text</dd></dl>' in page
    assert "<summary>" in page and "Toggle" not in page and 'aria-label="Full screen"' in page
    assert '<span class="math" style="--width: 2.4em">' in page and page.count('matchMedia("(prefers-color-scheme') == 1
    assert "primary-toggle" not in page, "the theme would wire a hidden button"
    assert 'aria-label="Search"' not in page and 'role="region"' in page
    assert '<div class="citation-list"><div class="citation">A &lt;b&gt;</div></div>' in page
    assert "<pre>a\n  &amp; b</pre>" in page and '{"a": "\\u003c/script> <b>"}' in page, "content stays as it was"


def test_foreign_style_sheets_and_missing_books_are_found(tmp_path: Path) -> None:
    html = write_site(tmp_path / "html", "")
    (html / "book.css").write_text("body { background: url(https://pics.example/a.png) }")
    assert check_site(html).errors == ["book.css: style loads from another host: https://pics.example/a.png"]
    with pytest.raises(FileNotFoundError, match="run `make book` first"):
        check_site(tmp_path / "nothing")


def test_serve_listens_on_loopback_only(tmp_path: Path) -> None:
    (tmp_path / "_build" / "html").mkdir(parents=True)
    (tmp_path / "_build" / "html" / "index.html").write_text("the book")
    (tmp_path / "_build" / "html" / "_static").mkdir()
    command = [sys.executable, build.__file__, "serve", "--port", "0", "--root", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            address = server.stdout.readline().split(" at ")[1].split()[0]
            assert address.startswith("http://127.0.0.1:")
            assert urllib.request.urlopen(address).read() == b"the book"
            for path, host, status in (("_static/", "localhost", 404), ("", "evil.example", 403), ("", "", 403)):
                with pytest.raises(urllib.error.HTTPError) as refused:
                    urllib.request.urlopen(urllib.request.Request(address + path, headers={"Host": host}))
                assert refused.value.code == status
            local = urllib.request.Request(address, headers={"Host": "localhost:1234"})
            assert urllib.request.urlopen(local).read() == b"the book"
        finally:
            server.terminate()


def test_serve_without_a_book_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert build.main(["serve", "--root", str(tmp_path)]) == 1
    assert "run `make book` first" in capsys.readouterr().err
