"The documentation site: `python docs/build.py` writes _build/html from the notebooks as they are stored. Nothing is executed but `--help`."
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

PARTS = {0: 'The task', 2: 'The fast keypointer', 5: 'The slow keypointer', 8: 'Learning', 9: 'The method', 10: 'Use', 20: 'Other methods', 30: 'Laboratory'}  # first number → part
MORE = {'Use': ['commands', 'models'], 'Laboratory': ['report'], 'Reference': ['glossary', 'differences', 'api/index']}
REPORT = {'table1': '', 'bound': 'The empirical bound against the side of its window.', 'ablations': '', 'intervals': '', 'table2': '', 'table3': '', 'table4': '',
          'errors': 'The same as bars.', 'figure2': 'AP against pictures a second. Left the paper\'s Table 4, right LOGO-CAP and its initial poses here, with the short side of the input at each point.',
          'figure4': 'Above, poses over pictures at equal distances from the split; below, the keypoint of each whose similarity to the truth changed most, before → after.',
          'prior': ''}  # what `make tables` leaves, in the order of the report; words of a figure
BLOB = f'{cfg["git_url"]}/blob/{cfg["branch"]}'
WIDGET = 'application/vnd.jupyter.widget-view+json'
TABLE = re.compile(r'(?:^\|.*\|\n)(?:^\|[-:| ]+\|\n)(?:^\|.*\|\n?)+', re.M)


def slug(
    title:str, # of a heading
) -> str: # its anchor
    "Anchors of headings: as GitHub makes them, but with the dots and capitals of names in code."
    return re.sub(r'[^\w. -]', '', title).strip().replace(' ', '-') if re.fullmatch(r'[\w.]+', title) else re.sub(r'[^\w -]', '', title.lower()).strip().replace(' ', '-')


def notebooks(): return sorted((ROOT/'nbs').glob('[0-9]*.ipynb'))


def module_of(
    nb, # a notebook
): # the name of its module, or None
    "The module that a notebook is exported to."
    return next((m[1] for c in nb.cells if (m := re.search(r'#\| *default_exp ([\w.]+)', c.source))), None)


def doors(
    path:str, # of a notebook, from the root
) -> str: # Markdown
    "Where else a notebook can be opened."
    repo = cfg['git_url'].removeprefix('https://github.com/')
    links = dict(Source=f'{BLOB}/{path}', Colab=f'https://colab.research.google.com/github/{repo}/blob/{cfg["branch"]}/{path}',
                 Binder=f'https://mybinder.org/v2/gh/{repo}/{cfg["branch"]}?urlpath={quote("lab/tree/" + path, safe="")}')
    return '{.doors}\n' + ' '.join(f'[{"Open in " * (name != "Source")}{name}]({url})' for name, url in links.items())


def doclinks(
    text:str, # Markdown
    pages:dict, # public name → page of its module, from the root of the site
    up:str='', # way to the root of the site
) -> str: # the same, names of the package in backticks being links
    "Names of the package linked to their description, in prose only: no headings, no code, no text of links."
    link = lambda m: f'[`{m[1]}`]({up}{pages[m[2]]}#{m[2]})' if m[2] in pages else m[0]
    parts = re.split(r'(```.*?```|^#.*?$|\[[^\]]*\]\([^)]*\)|\$\$.*?\$\$|<summary>.*?</summary>)', text, flags=re.S | re.M)
    return ''.join(p if i % 2 else re.sub(r'(?<!`)`(([A-Za-z_][\w.]*)(?:\(\))?)`(?!`)', link, p) for i, p in enumerate(parts))


def repository_links(
    text:str, # Markdown
    folder:str, # of the file it comes from, from the root
) -> str: # the same, links to other files of the repository leading there
    "Relative links lead to the page of a notebook, or else to the repository."
    def link(m):
        path, mark, anchor = m[2].partition('#')
        target = (ROOT/folder/path).resolve()
        if target.parent == ROOT/'nbs' and target.suffix == '.ipynb': return f'{m[1]}({target.name}{mark}{anchor})'
        return f'{m[1]}({BLOB}/{target.relative_to(ROOT).as_posix()}{mark}{anchor})' if target.is_relative_to(ROOT) else m[0]
    return re.sub(r'(?<!!)(\[[^\]]*\])\((?!https?:|#|mailto:)([^)\s]+)\)', link, text)


def picture_text(
    source:str, # of a code cell
    above:str, # the Markdown above it
) -> str: # what its pictures show
    "The alternative text of a cell's pictures: its `#| fig-alt:`, else the titles that its code writes on them, else the last paragraph above it."
    if given := re.search(r'^#\| *fig-alt: *(.+)$', source, re.M): return given[1].strip()
    said, words = titles(source), re.sub(r'\[([^\]]*)\]\([^)]*\)|[`*$]', r'\1', last_words(above))
    return said if len(re.sub(r'\W', '', said)) > 12 else f'{said}: {words}'.strip(': ')  # "level …" alone says little


def titles(
    source:str, # of a code cell
) -> str: # what its pictures show; may be empty
    "The titles that a cell writes on its pictures, as far as they stand in its code."
    try: tree = ast.parse(re.sub(r'^[%!].*$', '', source, flags=re.M))
    except SyntaxError: return ''
    loops = [(l.target, l.iter) for l in ast.walk(tree) if isinstance(l, (ast.For, ast.comprehension))]
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call): continue
        called = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
        values = [k.value for k in node.keywords if k.arg == 'title'] + (node.args[:1] if called in ('set_title', 'suptitle', 'title') else [])
        for v in values:
            if isinstance(v, ast.Name):  # a loop hands it out
                looped = [i for target, i in loops if v.id in [n.id for n in ast.walk(target) if isinstance(n, ast.Name)]]
                found += [n.value for i in looped for n in ast.walk(i) if isinstance(n, ast.Constant) and isinstance(n.value, str) and len(n.value) > 3]
            else: found.append(spelt(v).strip())
    return '; '.join(dict.fromkeys(t for t in found if len(t.strip('…')) > 3))


def spelt(
    node, # an expression that makes a text
) -> str: # its fixed parts, … for what is computed
    "What can be said of a text without running it."
    if isinstance(node, ast.Constant): return str(node.value)
    if isinstance(node, ast.JoinedStr): return ''.join(map(spelt, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add): return spelt(node.left) + spelt(node.right)
    return '…'


def table_outputs(
    output, # of a cell
) -> list: # the outputs to show instead
    "Markdown tables that a cell printed, as tables, and a long line beside them as a paragraph; nothing of widgets, which need a kernel."
    if WIDGET in output.get('data', {}): return []
    if output.output_type != 'stream' or not TABLE.search(output.text): return [output]
    display = lambda mime, text: nbformat.v4.new_output('display_data', {mime: text})
    pieces = re.split(f'({TABLE.pattern})', output.text, flags=re.M)
    is_prose = lambda text: len(text.strip()) > 100 and '\n' not in text.strip()  # the note below a table
    return [display('text/markdown', p) if i % 2 or is_prose(p) else nbformat.v4.new_output('stream', text=p.strip('\n') + '\n') for i, p in enumerate(pieces) if p.strip()]


def stage_cell(
    cell, # of a notebook; changed in place
    above:str, # the Markdown above it
    where:str, # to name in an error
):
    "Directives of a code cell as tags, its pictures with alternative text; raises ValueError where there is none."
    directives = dict((m[1], (m[2] or '').strip()) for m in re.finditer(r'^#\| *([\w-]+):?(.*)$', cell.source, re.M))
    tags = ['remove-cell'] * ('hide' in directives) + ['remove-input'] * (directives.get('echo') == 'false') + ['export'] * ('export' in directives)
    tags += ['hide-input'] * (directives.get('code-fold') == 'true') + ['remove-output'] * (directives.get('output') == 'false')
    if not tags and not cell.outputs and len(cell.source.splitlines()) > 6 and re.search(r'^\s*(test_|assert )', cell.source, re.M):
        tags = ['hide-input']  # long checks fold: they are for those who doubt
        cell.metadata['mystnb'] = dict(code_prompt_show='Show the tests', code_prompt_hide='Hide the tests')
    if any(mime.startswith('image/') for o in cell.outputs for mime in o.get('data', {})):
        alt = picture_text(cell.source, above)
        if not alt: raise ValueError(f'{where}: a picture without a word; say what it shows in a line `#| fig-alt: …`')
        cell.metadata['mystnb'] = dict(image=dict(alt=alt))
    cell.metadata['tags'] = tags
    cell.outputs = [shown for o in cell.outputs for shown in table_outputs(o)]
    cell.source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M)


def stage_notebook(
    path:Path, # of the notebook
    pages:dict, # public name → page of its module
    equations:set, # numbers that have an anchor already; grows
):
    "A notebook as a page: a line of doors under its title, equations with anchors, names linked."
    nb = nbformat.read(path, 4)
    def number(m):
        if m[2] in equations: return m[0]
        equations.add(m[2])
        return f'(eq-{m[2]})=\n{m[1]}'
    above = ''
    for i, cell in enumerate(nb.cells):
        if cell.cell_type == 'code':
            stage_cell(cell, above, f'{path.name}, cell {i}')
            continue
        above = cell.source
        cell.source = re.sub(r'(^\$\$(?:(?!\$\$).)*?\\tag\{(\w+)\}.*?\$\$)', number, repository_links(doclinks(cell.source, pages), 'nbs'), flags=re.S | re.M)
    head = nb.cells[0].source.split('\n\n', 2)
    nb.cells[0].source = '\n\n'.join([*head[:2], doors(f'nbs/{path.name}'), *head[2:]])
    nb.metadata['language_info'] = dict(name='python', pygments_lexer='python')
    return nb


def contents():
    "The table of contents, {part: pages}."
    parts = {}
    for path in notebooks():
        part = PARTS[max(f for f in PARTS if f <= int(path.name[:2]))]
        parts.setdefault(part, []).append(path.stem)
    for part, more in MORE.items(): parts[part] = [*parts.get(part, []), *more]
    return parts


def commands_page():
    "Each command's own help, as it prints it."
    text = '# The command line\n\nEvery option may be spelt with dashes or underscores. Bad input ends with one line and exit status 1.\n\n'
    for line in cfg['console_scripts'].split():
        command, target = line.split('=')
        module, function = target.split(':')
        said, argv = io.StringIO(), sys.argv
        sys.argv = [command, '--help']
        os.environ['COLUMNS'] = '100'
        try:
            with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit): getattr(importlib.import_module(module), function)()
        finally: sys.argv = argv
        if 'usage:' not in said.getvalue(): raise ValueError(f'{command} --help prints no help')
        text += f'## {command}\n\n```text\n$ {command} --help\n{said.getvalue().strip()}\n```\n\n'
    return text


def models_page(
    source:Path, # folder of the pages, for the pictures
) -> str: # Markdown
    "The model cards, logocap/weights/README.md, or what stands in until there are any."
    cards = ROOT/cfg['lib_name']/'weights/README.md'
    if cards.is_file(): return repository_links(with_pictures(cards.read_text(encoding='utf-8'), cards.parent, source), cards.parent.relative_to(ROOT).as_posix())
    return '# Models\n\nThe package brings no weights of its own yet. It runs on checkpoints in the released format; [the front page](index.ipynb) says where to get them.\n'


def with_pictures(
    text:str, # Markdown
    folder:Path, # that its pictures are relative to
    source:Path, # folder of the pages
) -> str: # the same, its pictures lying beside the pages
    "Copies the pictures that a text shows."
    def copy(m):
        name = f'{folder.name}-{Path(m[2]).name}'
        shutil.copy(folder/m[2], source/name)
        return f'{m[1]}({name})'
    return re.sub(r'(!\[[^\]]*\])\((?!https?:)([^)\s]+)\)', copy, text)


def last_words(
    text:str, # Markdown
) -> str: # its last paragraph of prose, or nothing
    "What stands directly above a cell."
    words = re.sub(r'```.*?```|\$\$.*?\$\$', '', text, flags=re.S)
    return next((p.strip() for p in reversed(re.split(r'\n\n+', words)) if p.strip() and not p.startswith(('#', '>', '|'))), '')


def stored_tables(
    path:Path, # of a notebook
) -> str: # Markdown
    "The tables that a notebook shows without their code, `#| echo: false`, each under the words above its cell."
    text, above, nb = '', '', nbformat.read(path, 4)
    for cell in nb.cells:
        if cell.cell_type == 'markdown': above = cell.source
        elif re.search(r'^#\| *echo: *false', cell.source, re.M) and (shown := [o for o in cell.outputs if o.output_type == 'stream' and TABLE.search(o.text)]):
            tables = ''.join(re.sub(r'^(?!\|)(.+)$', r'\n\1\n', o.text, flags=re.M) for o in shown)
            text += f'## From [{nb.cells[0].source.splitlines()[0].lstrip("# ")}]({path.name})\n\n{last_words(above)}\n\n{tables}\n\n'
    return text


def report_page(
    source:Path, # folder of the pages, for the figures
) -> str: # Markdown
    "The reproduction report: the tables and figures that `make tables` left in tables/, or the tables in the stored notebooks."
    text = '# Reproduction report\n\nTables and figures of the paper, made by this code, beside the paper\'s own numbers. '
    folder, order = ROOT/'tables', list(REPORT)
    if not list(folder.glob('*.md')):
        text += 'Nothing has been written to `tables/` where this page was built, so it shows what the notebooks hold; `make tables` measures anew. [The model card](models.md) has the ablations.\n\n'
        return text + ''.join(map(stored_tables, [ROOT/'nbs/index.ipynb', *notebooks()]))
    text += 'They were found in `tables/` when this page was built.\n\n'
    made = {p.stem for p in folder.iterdir() if p.suffix in ('.md', '.png')}
    for name in sorted(made, key=lambda n: (order.index(n) if n in order else len(order), n)):
        if (table := folder/f'{name}.md').is_file():
            words = re.sub(r'^(#+ )', r'#\1', table.read_text(encoding='utf-8'), flags=re.M)
            words = re.sub(r'(?<!!)\[([^\]]*)\]\((?!https?:|#)[^)]*\)', r'\1', words)  # other files of the folder are not on the site
            text += re.sub(r'^How it was made:\n\n(```json\n.*?\n```)', r'<details><summary>How it was made</summary>\n\n\1\n\n</details>', words, flags=re.M | re.S) + '\n\n'
        if (folder/f'{name}.png').is_file():
            if number := re.fullmatch(r'figure(\d+)', name): text += f'## Figure {number[1]}\n\n'
            says = REPORT.get(name) or f'The figure {name}.'
            text += f'{says}\n\n![{says}]({name}.png)\n\n'
    return with_pictures(text, folder, source)


def stage(
    source:Path, # folder to write to; what was there goes
):
    "Everything that Sphinx reads."
    shutil.rmtree(source, ignore_errors=True)
    (source/'api').mkdir(parents=True)
    rooms = {path: module_of(nbformat.read(path, 4)) for path in notebooks()}
    rooms = {path: ROOT/cfg['lib_name']/f'{module.replace(".", "/")}.py' for path, module in rooms.items() if module}
    pages = {name: f'api/{file.stem}.md' for file in reversed(rooms.values()) for name in names(file)}
    for path, file in rooms.items():
        text = module_page(file, path.stem, f'{BLOB}/nbs/{path.name}')
        (source/f'api/{file.stem}.md').write_text(text, encoding='utf-8')
    listing = '\n'.join(f'- [`{file.stem}`]({file.stem}.md), from [{path.stem}](../{path.name})' for path, file in rooms.items())
    tree = '```{toctree}\n:hidden:\n\n' + '\n'.join(f.stem for f in rooms.values()) + '\n```\n'
    (source/'api/index.md').write_text(f'# The package\n\nOne module a notebook, in their order.\n\n{listing}\n\n{tree}', encoding='utf-8')
    equations = set()
    for path in [*notebooks(), ROOT/'nbs/index.ipynb']:
        nb = stage_notebook(path, pages, equations)
        if path.stem == 'index':
            trees = [f'```{{toctree}}\n:hidden:\n:caption: {part}\n\n' + '\n'.join(docs) + '\n```' for part, docs in contents().items()]
            nb.cells.append(nbformat.v4.new_markdown_cell('\n\n'.join(trees)))
        nbformat.write(nb, source/path.name)
    written = dict(commands=commands_page(), models=models_page(source), report=report_page(source))
    for name in ('glossary', 'differences'): written[name] = (DOCS/f'{name}.md').read_text(encoding='utf-8')
    for name, text in written.items(): (source/f'{name}.md').write_text(doclinks(text, pages), encoding='utf-8')


def build(
    out:Path, # folder to build in
) -> int: # Sphinx's exit status
    "The site in out/html; what Sphinx warns of is an error."
    from sphinx.cmd.build import main
    stage(out/'source')
    shutil.rmtree(out/'html', ignore_errors=True)
    return main(['-q', '-E', '-W', '--keep-going', '-b', 'html', '-c', str(DOCS), '-d', str(out/'doctrees'), str(out/'source'), str(out/'html')])


if __name__ == '__main__':
    parser = ArgumentParser(description='Build the documentation site.')
    parser.add_argument('--out', type=Path, default=ROOT/'_build', help='folder to build in')
    args = parser.parse_args()
    status = build(args.out)
    if not status: print(args.out/'html/index.html')
    sys.exit(status)
