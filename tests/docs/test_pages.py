"""What the pages say about the repository is so: links and named files exist, quoted code is verbatim, every model has a card."""

import re
from pathlib import Path

import pytest

from ase_diffusion import list_models

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md', *sorted((ROOT / 'docs').rglob('*.md'))]
LINK = re.compile(r'\[[^\]]*\]\((?!https?://)([^)#\s]*)(?:#([^)\s]*))?\)')
FILE = re.compile(r'(?<![\w/.-])((?:ase_diffusion|benchmarks|docs|examples|scripts|tests)/[\w/.-]*\w)')
QUOTE = re.compile(r'^<!-- from: (?P<path>[^\n]+?) -->\n```python\n(?P<code>.*?)^```', re.M | re.S)
HOUSE_WORDS = re.compile(r'\b(shall|for ever|is had by|are had by|of our own|wish(es)?|neighbours?|colours?)\b', re.I)
pages = pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def anchors(page):
    """Return the anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r'^#+ (.*)$', page.read_text(encoding='utf-8'), re.M)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pages
def test_links_lead_somewhere(page):
    for target, anchor in LINK.findall(page.read_text(encoding='utf-8')):
        path = page.parent / target if target else page
        assert path.exists(), f'{page.name}: {target}'
        assert not anchor or anchor in anchors(path), f'{page.name}: {target}#{anchor}'


@pages
def test_named_files_exist(page):
    text = re.sub(r'https?://\S+', '', page.read_text(encoding='utf-8'))
    names = {name for name in FILE.findall(text) if not re.search(r'NAME|ROOM', name)}
    assert not {name for name in names if not (ROOT / name).exists()}


@pages
def test_quoted_code_is_verbatim(page):
    for match in QUOTE.finditer(page.read_text(encoding='utf-8')):
        assert match['code'] in (ROOT / match['path']).read_text(encoding='utf-8'), f'{match["path"]}: {match["code"][:80]}'


@pages
def test_plain_field_english(page):
    assert not HOUSE_WORDS.search(page.read_text(encoding='utf-8'))


@pytest.mark.parametrize('entry', list_models(), ids=lambda entry: entry['name'])
def test_every_shipped_model_has_a_card(entry):
    card = (ROOT / 'docs' / 'models' / f'{entry["name"]}.md').read_text(encoding='utf-8')
    assert card.startswith(f'# {entry["name"]}\n')
    sections = re.findall(r'^## (.*)$', card, re.M)
    assert sections[:6] == ['Model', 'Data', 'Training', 'Evaluation', 'Limits', 'Licence and citation']
    assert f'{entry["steps"]:,}' in card and entry['licence'] in card
    losses = [f'{loss:.3f}' for name, loss in entry['metrics'].items() if name.startswith('val_')]
    assert any(loss in card for loss in losses) or entry['kind'] == 'forcefield'
    assert f'({entry["name"]}.md)' in (ROOT / 'docs' / 'models' / 'README.md').read_text(encoding='utf-8')
