"""This book's Sphinx extension: launch buttons that open a chapter's source, and docstrings read as plain text.

Executed notebooks are not in the repository, so the theme's links to them would be dead.
"""

import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ConfigError

AFTER_THEME = 900  # the theme adds its buttons at 501
KNOWN_HOSTS = re.compile(r"https://(github|gitlab)\.com/[\w.-]+/[\w.-]+/?")
MARKUP = re.compile(
    r"\||(?<=\w)_(?!\w)"
)  # |x| and x_ have a meaning in reStructuredText that no docstring here intends
EXECUTED = re.compile(r"\bexecuted/(?=[\w.-]+\.ipynb)")


def settle_address(app: Sphinx, config: Any) -> None:
    """Leave launch buttons out where no repository is named, and refuse one that they could not open.

    Args:
        app: the Sphinx application.
        config: its settings; ``html_theme_options["repository_url"]`` is ``repository: url`` of ``_config.yml``.

    Raises:
        ConfigError: the address is set, and not one of a repository on GitHub or GitLab.
    """
    options = config.html_theme_options
    url = options.get("repository_url")
    if not url:
        options.pop("launch_buttons", None)
    elif not KNOWN_HOSTS.fullmatch(url):
        raise ConfigError(
            f"_config.yml: repository: url: expected https://github.com/OWNER/NAME or https://gitlab.com/GROUP/NAME; "
            f"got {url!r}; leave it empty for a book without launch buttons"
        )


def sources_instead(buttons: list[dict]) -> list[dict]:
    """Return header buttons whose links name the source of a chapter instead of the executed notebook.

    Args:
        buttons: of the theme; groups hold further ones under ``buttons``.

    >>> sources_instead([{"url": "https://mybinder.org/v2/gh/a/b/main?urlpath=lab/tree/executed/01_train.ipynb"}])
    [{'url': 'https://mybinder.org/v2/gh/a/b/main?urlpath=lab/tree/notebooks/01_train.ipynb'}]
    """
    changed = []
    for button in buttons:
        if isinstance(button.get("buttons"), list):
            button = button | {"buttons": sources_instead(button["buttons"])}
        if str(button.get("url", "")).startswith("https://"):
            button = button | {"url": EXECUTED.sub("notebooks/", button["url"])}
        changed.append(button)
    return changed


def point_at_sources(app: Sphinx, page: str, template: str, context: dict, doctree: Any) -> None:
    """Change the links of one page's header; called for every page that is written."""
    context["header_buttons"] = sources_instead(context.get("header_buttons", []))


def plain_text(app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]) -> None:
    r"""Escape bars and final underscores of a docstring in place; doctests, literals and formulas stay.

    >>> lines = ["|a and b| of x_, in `n_items`", ">>> a | b", r".. math:: |x_{c}| = \sum_{c}", "    y_{c}", "", "z_"]
    >>> plain_text(None, "", "", None, None, lines)
    >>> [lines[0], lines[5]] == [r"\|a and b\| of x\_, in `n_items`", r"z\_"]
    True
    >>> lines[1:4] == [">>> a | b", r".. math:: |x_{c}| = \sum_{c}", "    y_{c}"]
    True
    """
    in_formula = False
    for number, line in enumerate(lines):
        in_formula = line.lstrip().startswith(".. math::") or (in_formula and line.strip() != "")
        if not in_formula and not line.lstrip().startswith((">>>", "...")) and "``" not in line:
            lines[number] = MARKUP.sub(r"\\\g<0>", line)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("config-inited", settle_address)
    app.connect("autodoc-process-docstring", plain_text)
    app.connect("html-page-context", point_at_sources, priority=AFTER_THEME)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
