"""The documentation site: `python docs/build.py` writes _build/html.

It is made from the notebooks as they are stored; nothing is executed but `--help`.
"""

import ast
import contextlib
import importlib
import io
import os
import re
import shutil
import sys
from argparse import ArgumentParser
from pathlib import Path
from urllib.parse import quote
import nbformat

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS))
from api import module_page, names
from conf import cfg

# first page → part, in reading order
PARTS = {
    '00': 'The task',
    '02': 'The fast keypointer',
    '04': 'The slow keypointer',
    '08': 'Learning',
    '09': 'The method',
    '10': 'Use',
    'people': 'Drawn people',
    'prior': 'Other methods',
    'lab': 'Laboratory',
}
MORE = {
    'Use': ['commands', 'models'],
    'Laboratory': ['report'],
    'Reference': ['glossary', 'differences', 'api/index'],
}
# what `make tables` leaves, in the order of the report; words of a figure
REPORT = {
    'table1': '',
    'bound': 'The empirical bound against the side of its window.',
    'ablations': '',
    'intervals': '',
    'table2': '',
    'table3': '',
    'table4': '',
    'errors': 'The same as bars.',
    'figure2': (
        'AP against images per second. Left the paper\'s Table 4, right LOGO-CAP and its '
        'initial poses here, with the short side of the input at each point.'
    ),
    'figure4': (
        'Above, poses over images at equal distances from the split; below, the keypoint of '
        'each whose similarity to the truth changed most, before → after.'
    ),
    'prior': '',
}
# what the API begins with
FACE = '''Most people need one class, `from logocap import LogoCap`, and what it returns.

| call | what it gives |
|---|---|
| [`LogoCap.from_pretrained(weights)`](checkpoints.md#from_pretrained) | a network, trained |
| [`model.predict(images)`](predict.md#predict) | the poses of the people on images |
| [`model.optimize()`](fast.md#optimize) | the same answers, sooner |
| [`model(network_input)`](model.md#LogoCap) | all tensors of the method, for those who measure |
| [`Poses`](predict.md#Poses): `poses.keypoints`, `poses.scores`, `len(poses)`, `poses[0]` | \
the people on one image, best first |
| [`poses.show()`](predict.md#show), [`poses.save(file)`](predict.md#save) | \
the image with skeletons; a file of it, or of COCO's results |
| [`poses.to_dataframe()`](predict.md#to_dataframe), [`poses.to_coco()`](predict.md#to_coco) | \
a table; COCO's results |

[The commands](../commands.md) do the same from a terminal. One notebook makes one module.
'''
PEOPLE_USE = ('model', 'checkpoints', 'predict', 'fast', 'training', 'tables', 'drawn', 'report')
BLOB = f'{cfg["git_url"]}/blob/{cfg["branch"]}'
WIDGET = 'application/vnd.jupyter.widget-view+json'
TABLE = re.compile(r'(?:^\|.*\|\n)(?:^\|[-:| ]+\|\n)(?:^\|.*\|\n?)+', re.M)


def slug(
    title: str,  # of a heading
) -> str:  # its anchor
    "Anchors of headings: as GitHub makes them, but with the dots and capitals of names in code."
    if re.fullmatch(r'[\w.]+', title):
        return title
    return re.sub(r'[^\w -]', '', title.lower()).strip().replace(' ', '-')


def notebooks():
    "All but the front page, in reading order."
    folders = [folder for folder in PARTS if not folder.isdigit()]
    found = sorted((ROOT / 'nbs').glob('[0-9]*.ipynb'))
    for folder in folders:
        found += sorted((ROOT / 'nbs' / folder).glob('[0-9]*.ipynb'))
    return found


def page_of(
    path: Path,  # of a notebook
) -> str:  # name of its page, from the root of the site
    "Pages lie as the notebooks do: lab/00_compare, say."
    return path.relative_to(ROOT / 'nbs').with_suffix('').as_posix()


def module_of(
    nb,  # a notebook
):  # the name of its module, or None
    "The module that a notebook is exported to."
    for cell in nb.cells:
        if found := re.search(r'#\| *default_exp ([\w.]+)', cell.source):
            return found[1]


def doors(
    path: str,  # of a notebook, from the root
) -> str:  # Markdown
    "Where else a notebook can be opened."
    repo = cfg['git_url'].removeprefix('https://github.com/')
    colab = f'https://colab.research.google.com/github/{repo}/blob/{cfg["branch"]}/{path}'
    in_lab = quote(f'lab/tree/{path}', safe='')
    binder = f'https://mybinder.org/v2/gh/{repo}/{cfg["branch"]}?urlpath={in_lab}'
    source = f'{BLOB}/{path}'
    return f'{{.doors}}\n[Source]({source}) [Open in Colab]({colab}) [Open in Binder]({binder})'


def doclinks(
    text: str,  # Markdown
    pages: dict,  # public name → page of its module, from the root of the site
    up: str = '',  # way to the root of the site
) -> str:  # the same, names of the package in backticks being links
    "Names of the package linked to their description, in prose only: not in headings, code, links."

    def link(m):
        return f'[`{m[1]}`]({up}{pages[m[2]]}#{m[2]})' if m[2] in pages else m[0]

    not_prose = r'(```.*?```|^#.*?$|\[[^\]]*\]\([^)]*\)|\$\$.*?\$\$|<summary>.*?</summary>)'
    parts = re.split(not_prose, text, flags=re.S | re.M)
    for i in range(0, len(parts), 2):  # the odd ones are what is not prose
        parts[i] = re.sub(r'(?<!`)`(([A-Za-z_][\w.]*)(?:\(\))?)`(?!`)', link, parts[i])
    return ''.join(parts)


def repository_links(
    text: str,  # Markdown
    folder: str,  # of the file it comes from, from the root
) -> str:  # the same, links to other files of the repository leading there
    "Relative links lead to the page of a notebook, or else to the repository."
    here = folder if folder.startswith('nbs') else 'nbs'  # other pages lie at the root

    def link(m):
        path, mark, anchor = m[2].partition('#')
        target = (ROOT / folder / path).resolve()
        if target.is_relative_to(ROOT / 'nbs') and target.suffix == '.ipynb':
            page = Path(os.path.relpath(target, ROOT / here)).as_posix()
            return f'{m[1]}({page}{mark}{anchor})'
        if not target.is_relative_to(ROOT):
            return m[0]
        return f'{m[1]}({BLOB}/{target.relative_to(ROOT).as_posix()}{mark}{anchor})'

    return re.sub(r'(?<!!)(\[[^\]]*\])\((?!https?:|#|mailto:)([^)\s]+)\)', link, text)


def image_text(
    source: str,  # of a code cell
    above: str,  # the Markdown above it
) -> str:  # what its images show
    """The alternative text of a cell's images.

    Its `#| fig-alt:`, else the titles that its code writes on them, else the last paragraph above.
    """
    if given := re.search(r'^#\| *fig-alt: *(.+)$', source, re.M):
        return given[1].strip()
    said = titles(source)
    if len(re.sub(r'\W', '', said)) > 12:
        return said
    # "level …" alone says little
    words = re.sub(r'\[([^\]]*)\]\([^)]*\)|[`*$]', r'\1', last_words(above))
    return f'{said}: {words}'.strip(': ')


def titles(
    source: str,  # of a code cell
) -> str:  # what its images show; may be empty
    "The titles that a cell writes on its images, as far as they stand in its code."
    try:
        tree = ast.parse(re.sub(r'^[%!].*$', '', source, flags=re.M))
    except SyntaxError:
        return ''
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
        values = [k.value for k in node.keywords if k.arg == 'title']
        if called in ('set_title', 'suptitle', 'title'):
            values += node.args[:1]
        for value in values:
            if isinstance(value, ast.Name):
                found += looped_texts(tree, value.id)
            else:
                found.append(spelled(value).strip())
    return '; '.join(dict.fromkeys(t for t in found if len(t.strip('…')) > 3))


def looped_texts(
    tree: ast.Module,  # a code cell
    name: str,  # of a variable
) -> list:  # texts of more than three characters
    "The texts that stand in the loops which hand out a variable."
    found = []
    for loop in ast.walk(tree):
        if not isinstance(loop, (ast.For, ast.comprehension)):
            continue
        targets = [n.id for n in ast.walk(loop.target) if isinstance(n, ast.Name)]
        if name in targets:
            texts = [n.value for n in ast.walk(loop.iter) if isinstance(n, ast.Constant)]
            found += [t for t in texts if isinstance(t, str) and len(t) > 3]
    return found


def spelled(
    node,  # an expression that makes a text
) -> str:  # its fixed parts, … for what is computed
    "What can be said of a text without running it."
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return ''.join(map(spelled, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return spelled(node.left) + spelled(node.right)
    return '…'


def table_outputs(
    output,  # of a cell
) -> list:  # the outputs to show instead
    """Markdown tables that a cell printed, as tables, and a long line beside them as a paragraph.

    Nothing of widgets, which need a kernel.
    """
    if WIDGET in output.get('data', {}):
        return []
    if output.output_type != 'stream' or not TABLE.search(output.text):
        return [output]
    shown = []
    for i, piece in enumerate(re.split(f'({TABLE.pattern})', output.text, flags=re.M)):
        text = piece.strip()
        if not text:
            continue
        note = len(text) > 100 and '\n' not in text  # below a table
        if i % 2 or note:
            data = {'text/markdown': piece}
            shown.append(nbformat.v4.new_output('display_data', data))
        else:
            shown.append(nbformat.v4.new_output('stream', text=piece.strip('\n') + '\n'))
    return shown


def stage_cell(
    cell,  # of a notebook; changed in place
    above: str,  # the Markdown above it
    where: str,  # to name in an error
):
    """Directives of a code cell as tags, its images with alternative text.

    Raises ValueError for an image without any.
    """
    directives = {}
    for found in re.finditer(r'^#\| *([\w-]+):?(.*)$', cell.source, re.M):
        directives[found[1]] = found[2].strip()
    told = {
        'remove-cell': 'hide' in directives,
        'remove-input': directives.get('echo') == 'false',
        'export': 'export' in directives,
        'hide-input': directives.get('code-fold') == 'true',
        'remove-output': directives.get('output') == 'false',
    }
    tags = [tag for tag, wanted in told.items() if wanted]
    checks = re.search(r'^\s*(test_|assert )', cell.source, re.M)
    if checks and not tags and not cell.outputs and len(cell.source.splitlines()) > 6:
        tags = ['hide-input']  # long checks fold: they are for those who doubt
        prompts = dict(code_prompt_show='Show the tests', code_prompt_hide='Hide the tests')
        cell.metadata['mystnb'] = prompts
    if any(mime.startswith('image/') for o in cell.outputs for mime in o.get('data', {})):
        alt = image_text(cell.source, above)
        if not alt:
            hint = 'say what it shows in a line `#| fig-alt: …`'
            raise ValueError(f'{where}: an image without a word; {hint}')
        cell.metadata['mystnb'] = dict(image=dict(alt=alt))
    cell.metadata['tags'] = tags
    cell.outputs = [shown for o in cell.outputs for shown in table_outputs(o)]
    cell.source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M)


def stage_notebook(
    path: Path,  # of the notebook
    pages: dict,  # public name → page of its module
    equations: set,  # numbers that have an anchor already; grows
):
    "A notebook as a page: a line of doors under its title, equations with anchors, names linked."
    nb = nbformat.read(path, 4)

    def number(m):
        if m[2] in equations:
            return m[0]
        equations.add(m[2])
        return f'(eq-{m[2]})=\n{m[1]}'

    above = ''
    for i, cell in enumerate(nb.cells):
        if cell.cell_type == 'code':
            stage_cell(cell, above, f'{path.name}, cell {i}')
            continue
        above = cell.source
        folder = path.parent.relative_to(ROOT).as_posix()
        up = '../' * folder.count('/')
        text = repository_links(doclinks(cell.source, pages, up), folder)
        equation = r'(^\$\$(?:(?!\$\$).)*?\\tag\{(\w+)\}.*?\$\$)'
        cell.source = re.sub(equation, number, text, flags=re.S | re.M)
    head = nb.cells[0].source.split('\n\n', 2)
    nb.cells[0].source = '\n\n'.join(
        [*head[:2], doors(path.relative_to(ROOT).as_posix()), *head[2:]]
    )
    nb.metadata['language_info'] = dict(name='python', pygments_lexer='python')
    return nb


def contents():
    "The table of contents, {part: pages}."
    parts = {}
    for path in notebooks():
        page = page_of(path)
        first = max(first for first in PARTS if first.isdigit() and first <= path.name)
        if '/' in page:
            first = page.split('/')[0]
        parts.setdefault(PARTS[first], []).append(page)
    for part, more in MORE.items():
        parts[part] = [*parts.get(part, []), *more]
    return parts


def commands_page():
    "Each command's own help, as it prints it."
    text = (
        '# Commands and their options\n\nEvery option may be spelled with dashes or underscores. '
        'Bad input ends with one line and exit status 1.\n\n'
    )
    for line in cfg['console_scripts'].split():
        command, target = line.split('=')
        module, function = target.split(':')
        said, argv = io.StringIO(), sys.argv
        sys.argv = [command, '--help']
        os.environ['COLUMNS'] = '100'
        try:
            with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
                getattr(importlib.import_module(module), function)()
        finally:
            sys.argv = argv
        if 'usage:' not in said.getvalue():
            raise ValueError(f'{command} --help prints no help')
        text += f'## {command}\n\n```text\n$ {command} --help\n{said.getvalue().strip()}\n```\n\n'
    return text


def models_page(
    source: Path,  # folder of the pages, for the images
) -> str:  # Markdown
    "The model cards, data/weights/README.md, or what stands in until there are any."
    cards = ROOT / 'data/weights/README.md'
    if cards.is_file():
        text = with_images(cards.read_text(encoding='utf-8'), cards.parent, source)
        return repository_links(text, cards.parent.relative_to(ROOT).as_posix())
    return (
        '# Models\n\nThe package brings no weights of its own yet. It runs on checkpoints in the '
        'released format; [the front page](index.ipynb) says where to get them.\n'
    )


def with_images(
    text: str,  # Markdown
    folder: Path,  # that its images are relative to
    source: Path,  # folder of the pages
) -> str:  # the same, its images lying beside the pages
    "Copies the images that a text shows."

    def copy(m):
        name = f'{folder.name}-{Path(m[2]).name}'
        shutil.copy(folder / m[2], source / name)
        return f'{m[1]}({name})'

    return re.sub(r'(!\[[^\]]*\])\((?!https?:)([^)\s]+)\)', copy, text)


def last_words(
    text: str,  # Markdown
) -> str:  # its last paragraph of prose, or nothing
    "What stands directly above a cell."
    words = re.sub(r'```.*?```|\$\$.*?\$\$', '', text, flags=re.S)
    for paragraph in reversed(re.split(r'\n\n+', words)):
        if paragraph.strip() and not paragraph.startswith(('#', '>', '|')):
            return paragraph.strip()
    return ''


def stored_tables(
    path: Path,  # of a notebook
) -> str:  # Markdown
    "The tables that a notebook shows without their code, each under the words above its cell."
    text, above, nb = '', '', nbformat.read(path, 4)
    title = nb.cells[0].source.splitlines()[0].lstrip('# ')
    for cell in nb.cells:
        if cell.cell_type == 'markdown':
            above = cell.source
            continue
        if not re.search(r'^#\| *echo: *false', cell.source, re.M):
            continue
        shown = [o.get('text') or o.get('data', {}).get('text/markdown', '') for o in cell.outputs]
        tables = [t for t in shown if TABLE.search(t)]
        if tables:
            # lines beside a table are paragraphs
            spaced = re.sub(r'^(?!\|)(.+)$', r'\n\1\n', ''.join(tables), flags=re.M)
            text += (
                f'## From [{title}]({page_of(path)}.ipynb)\n\n{last_words(above)}\n\n{spaced}\n\n'
            )
    return text


def report_page(
    source: Path,  # folder of the pages, for the figures
) -> str:  # Markdown
    """The reproduction report: the tables and figures that `make tables` left in tables/.

    Where there are none, the tables in the stored notebooks.
    """
    text = (
        '# Reproduction report\n\nTables and figures of the paper, made by this code, '
        'beside the paper\'s own numbers. '
    )
    folder, order = ROOT / 'tables', list(REPORT)
    if not list(folder.glob('*.md')):
        text += (
            'Nothing has been written to `tables/` where this page was built, so it shows what '
            'the notebooks hold; `make tables` measures anew. '
            '[The model card](models.md) has the ablations.\n\n'
        )
        return text + ''.join(map(stored_tables, [ROOT / 'nbs/index.ipynb', *notebooks()]))
    text += 'They were found in `tables/` when this page was built.\n\n'
    made = {p.stem for p in folder.iterdir() if p.suffix in ('.md', '.png')}
    for name in [n for n in order if n in made] + sorted(made - set(order)):
        if (table := folder / f'{name}.md').is_file():
            words = re.sub(r'^(#+ )', r'#\1', table.read_text(encoding='utf-8'), flags=re.M)
            # other files of the folder are not on the site
            words = re.sub(r'(?<!!)\[([^\]]*)\]\((?!https?:|#)[^)]*\)', r'\1', words)
            record = r'^How it was made:\n\n(```json\n.*?\n```)'
            folded = r'<details><summary>How it was made</summary>\n\n\1\n\n</details>'
            text += re.sub(record, folded, words, flags=re.M | re.S) + '\n\n'
        if (folder / f'{name}.png').is_file():
            if number := re.fullmatch(r'figure(\d+)', name):
                text += f'## Figure {number[1]}\n\n'
            says = REPORT.get(name) or f'The figure {name}.'
            text += f'{says}\n\n![{says}]({name}.png)\n\n'
    return with_images(text, folder, source)


def stage(
    source: Path,  # folder to write to; what was there goes
):
    "Everything that Sphinx reads."
    shutil.rmtree(source, ignore_errors=True)
    (source / 'api').mkdir(parents=True)
    rooms = {}  # notebook → module
    for path in notebooks():
        if module := module_of(nbformat.read(path, 4)):
            rooms[path] = ROOT / cfg['lib_name'] / f'{module.replace(".", "/")}.py'
    pages = {}
    for file in reversed(rooms.values()):  # of two equal names the first module's is linked
        for name in names(file):
            pages[name] = f'api/{file.stem}.md'
    listings = {True: '', False: ''}
    for path, file in rooms.items():
        page = page_of(path)
        text = module_page(file, page, f'{BLOB}/nbs/{page}.ipynb')
        (source / f'api/{file.stem}.md').write_text(text, encoding='utf-8')
        line = f'- [`{file.stem}`]({file.stem}.md), from [{page}](../{page}.ipynb)\n'
        listings[file.stem in PEOPLE_USE] += line
    tree = '```{toctree}\n:hidden:\n\n' + '\n'.join(f.stem for f in rooms.values()) + '\n```\n'
    text = (
        f'# The package\n\n{FACE}\n## Modules that people use\n\n{listings[True]}\n'
        f'## All others, in reading order\n\n{listings[False]}\n{tree}'
    )
    (source / 'api/index.md').write_text(text, encoding='utf-8')
    equations = set()
    for path in [*notebooks(), ROOT / 'nbs/index.ipynb']:
        nb = stage_notebook(path, pages, equations)
        if path.stem == 'index':
            trees = []
            for part, docs in contents().items():
                head = f'```{{toctree}}\n:hidden:\n:caption: {part}\n\n'
                trees.append(head + '\n'.join(docs) + '\n```')
            nb.cells.append(nbformat.v4.new_markdown_cell('\n\n'.join(trees)))
        target = source / f'{page_of(path)}.ipynb'
        target.parent.mkdir(exist_ok=True)
        nbformat.write(nb, target)
    written = dict(commands=commands_page(), models=models_page(source), report=report_page(source))
    for name in ('glossary', 'differences'):
        written[name] = (DOCS / f'{name}.md').read_text(encoding='utf-8')
    for name, text in written.items():
        (source / f'{name}.md').write_text(doclinks(text, pages), encoding='utf-8')


def build(
    out: Path,  # folder to build in
) -> int:  # Sphinx's exit status
    "The site in out/html; what Sphinx warns of is an error."
    from sphinx.cmd.build import main

    stage(out / 'source')
    shutil.rmtree(out / 'html', ignore_errors=True)
    options = ['-q', '-E', '-W', '--keep-going', '-b', 'html', '-c', str(DOCS)]
    folders = [str(out / 'doctrees'), str(out / 'source'), str(out / 'html')]
    return main([*options, '-d', *folders])


if __name__ == '__main__':
    parser = ArgumentParser(description='Build the documentation site.')
    parser.add_argument('--out', type=Path, default=ROOT / '_build', help='folder to build in')
    args = parser.parse_args()
    status = build(args.out)
    if not status:
        print(args.out / 'html/index.html')
    sys.exit(status)
