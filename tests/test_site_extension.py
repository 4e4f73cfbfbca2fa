"""Launch buttons: which addresses they take, and which links change; `test_book` sees them on built pages."""

from types import SimpleNamespace

import pytest
from sphinx.errors import ConfigError

import tension_book


@pytest.mark.parametrize("url", ["https://example.org/a/b", "github.com/a/b", "https://github.com/a", "javascript:x"])
def test_other_addresses_are_refused(url: str) -> None:
    config = SimpleNamespace(html_theme_options={"repository_url": url, "launch_buttons": {"binderhub_url": "x"}})
    with pytest.raises(ConfigError, match="expected https://github.com/OWNER/NAME"):
        tension_book.settle_address(None, config)


def test_only_links_to_executed_notebooks_change() -> None:
    kept = {"url": "_sources/executed/01_train.ipynb", "text": ".ipynb"}
    group = {"type": "group", "buttons": [kept, {"url": "https://x.org/executed/01_train.ipynb"}]}
    changed = tension_book.sources_instead([group])
    assert changed == [{"type": "group", "buttons": [kept, {"url": "https://x.org/notebooks/01_train.ipynb"}]}]
    assert group["buttons"][1]["url"].endswith("executed/01_train.ipynb"), "the given buttons stay as they are"
