"""The documentation site: pages from outside docs/, and links that work there.

README.md becomes the first page and projects' READMEs become pages; other files that a
page links to are copied. On GitHub the same links work as they stand.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
TOPS = 'configs', 'stmixer_mm', 'tests', 'tools'
LINK = re.compile(r'(\]\()(?!https?:|#|mailto:)([^)#\s]+)')


def on_files(files, config):
    pages = [
        ROOT / 'README.md',
        *(file for top in TOPS for file in ROOT.glob(f'{top}/**/README.md')),
    ]
    for page in pages:
        uri = _uri(page)
        text = _relink(page.read_text('utf-8'), page, uri)
        files.append(File.generated(config, uri, content=text))
    linked = {
        Path(page.parent, target).resolve()
        for page in (*pages, *ROOT.glob('docs/*.md'))
        for _, target in LINK.findall(page.read_text('utf-8'))
    }
    for file in linked - set(pages):
        if file.is_file() and ROOT / 'docs' not in file.parents:
            files.append(File.generated(config, _uri(file), abs_src_path=str(file)))
    return files


def on_page_markdown(markdown, page, config, files):
    source = Path(page.file.abs_src_path or '')
    return _relink(markdown, source, page.file.src_uri) if source.name else markdown


def on_page_content(html, page, config, files):
    """Roles of docstrings are for Sphinx."""
    return re.sub(r':\w+:<code>[.~]*(.*?)</code>', r'<code>\1</code>', html)


def _uri(file: Path) -> str:
    """Where a file of the repository is on the site."""
    if file == ROOT / 'README.md':
        return 'index.md'
    base = ROOT / 'docs' if ROOT / 'docs' in file.parents else ROOT
    return file.relative_to(base).as_posix()


def _relink(text: str, source: Path, uri: str) -> str:
    """Turn links between files of the repository into links between pages."""

    def relink(match: re.Match) -> str:
        target = Path(source.parent, match[2]).resolve()
        target = target / 'README.md' if target.is_dir() else target
        return match[1] + posixpath.relpath(_uri(target), posixpath.dirname(uri) or '.')

    return LINK.sub(relink, text)
