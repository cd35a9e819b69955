"""What `mkdocs build` adds to the pages of docs/: those that stand beside docs/ in the repository, and the keys of a config.

Links in the pages are those of the repository, so they work where it is browsed. Here they are turned to the site's own files.
"""

import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from raw2s.arguments import run_keys, sweep_keys

ROOT = Path(__file__).resolve().parents[1]
BESIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages that stand beside docs/, by their names on the site."""
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)")
"""The file of a link, without its anchor."""
ITEM = re.compile(r"- |\d+\. ")
KEY = re.compile(r"  (\S+) \[(.*?)\]: (.*)")
KEYS = {
    "<!-- keys of a run -->": run_keys,
    "<!-- keys of a sweep -->": lambda: sweep_keys().removesuffix(run_keys()),
}
"""What stands in a page for a list of keys, and the text of `--help` that it becomes."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages beside docs/, and a copy of every other file of the repository that a page links to."""
    texts = {Path("docs", file.src_uri): file.content_string for file in files.documentation_pages()}
    texts |= {Path(name): (ROOT / name).read_text(encoding="utf-8") for name in BESIDE}
    for page, text in texts.items():
        if page.name in BESIDE and page.parent == Path():
            files.append(File.generated(config, BESIDE[page.name], content=site_links(text, page)))
        for target in (linked(link, page) for link in LINK.findall(text)):
            copy = f"repository/{target}"
            if target.parts[0] != "docs" and str(target) not in BESIDE and files.get_file_from_path(copy) is None:
                if not (ROOT / target).is_file():
                    raise FileNotFoundError(f"{page}: it links to {target}, which is no file of the repository")
                files.append(File.generated(config, copy, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    for mark, text in KEYS.items():
        if mark in markdown:
            markdown = markdown.replace(mark, as_lists(text()))
    if page.file.src_uri not in BESIDE.values():
        markdown = site_links(markdown, Path("docs", page.file.src_uri))
    return apart(markdown)


def linked(link: str, page: Path) -> PurePosixPath:
    """The file of the repository that a link of a page means, from the repository's root."""
    return PurePosixPath((ROOT / page.parent / link).resolve().relative_to(ROOT))


def site_links(text: str, page: Path) -> str:
    """A page's text with its links as the site has them."""

    def turned(match: re.Match[str]) -> str:
        target = linked(match[1], page)
        if target.parts[0] == "docs":
            return str(target.relative_to("docs"))
        return BESIDE.get(str(target), f"repository/{target}")

    return LINK.sub(turned, text)


def apart(text: str) -> str:
    """An empty line before every list: the site's Markdown asks for one after a paragraph, and the repository's does not."""
    lines: list[str] = []
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if not fenced and ITEM.match(line) and lines and lines[-1] and not (ITEM.match(lines[-1]) or lines[-1].startswith("  ")):
            lines.append("")
        lines.append(line)
    return "\n".join(lines)


def as_lists(text: str) -> str:
    """The keys of a config, as `--help` shows them, as a heading a section and an item a key."""
    lines = []
    for line in text.splitlines()[1:]:
        if key := KEY.fullmatch(line):
            lines.append(f"- `{key[1]}` = `{key[2]}`: {escaped(key[3])}")
        elif line.startswith("  "):
            lines.append(f"- {escaped(line.strip())}")
        elif line:
            name, _, meaning = line.partition(":")
            lines += ["", f"### {name}", "", escaped(meaning.strip()), ""]
    return "\n".join(lines)


def escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*")
