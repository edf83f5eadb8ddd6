"The project itself: export, README, stored outputs, floors, packaging."

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
import mistune
import nbformat
import numpy as np
import pytest
from conftest import ROOT
from widgets import widget_views

NOTEBOOKS = sorted((ROOT / 'nbs').rglob('*.ipynb'))
NOTEBOOKS = [p for p in NOTEBOOKS if '.ipynb_checkpoints' not in p.parts]
ROOMS = [p for p in NOTEBOOKS if p.name[0].isdigit()]
WITHOUT_FIGURES = {  # nothing to draw
    *('11_files.ipynb', '12_annotations.ipynb', '15_command.ipynb'),
    *('20_downloads.ipynb', '21_video.ipynb'),
}


def test_export_leaves_no_difference(tmp_path):
    for name in ('nbs', 'logocap'):
        shutil.copytree(
            ROOT / name,
            tmp_path / name,
            ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', '_proc'),
        )
    shutil.copy(ROOT / 'settings.ini', tmp_path)

    def modules():
        return {
            p.relative_to(tmp_path).as_posix(): p.read_text()
            for p in (tmp_path / 'logocap').rglob('*.py')
        }

    before = modules()
    for p in (tmp_path / 'logocap').rglob('*.py'):
        if p.name != '__init__.py':
            p.unlink()
    subprocess.run(
        [Path(sys.executable).with_name('nbdev_export')],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=300,
    )
    assert modules() == before


def test_readme_matches_index():
    from readme import readme

    text, pictures = readme()
    assert (ROOT / 'README.md').read_text(encoding='utf-8') == text
    assert '<table>' in mistune.html(text)
    for page in (*ROOT.glob('*.md'), *ROOT.glob('d*/**/*.md')):  # a table is not code
        assert '|--' not in mistune.html(page.read_text(encoding='utf-8')), page
    for path, data in pictures.items():
        assert (ROOT / path).read_bytes() == data
    for link in re.findall(r'\]\(([^)#]+)', text):
        if not link.startswith('http'):
            assert (ROOT / link).exists(), link


def test_progress_bars_follow_the_window():
    "A bar that keeps its first width breaks into lines when a terminal is made narrower."
    for file in (ROOT / 'logocap').rglob('*.py'):
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == 'tqdm':
                options = {option.arg for option in node.keywords}
                assert {'disable', 'dynamic_ncols'} <= options, (file, node.lineno)


def test_what_texts_run_as_modules():
    "`python -m` warns where the package has imported the module already, and runs a second copy."
    pages = [*NOTEBOOKS, *ROOT.glob('*.md'), *ROOT.glob('d*/**/*.md')]
    texts = [page.read_text(encoding='utf-8') for page in pages]
    named = {name for text in texts for name in re.findall(r'-m (logocap[.\w]*\w)', text)}
    assert named == {'logocap.lab.weights'}
    for name in named:
        words = [sys.executable, '-W', 'error::RuntimeWarning', '-m', name, '--help']
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0 and not done.stderr and '--help' in done.stdout


@pytest.mark.parametrize('name, largest', (('example', 1_000_000), ('crowd', 500_000)))
def test_stored_example(name, largest):
    "data/example.npz and crowd.npz are what the default network says, but for rounding."
    from example import DATA, example
    from logocap import LogoCap

    file = DATA / f'{name}.npz'
    assert file.stat().st_size < largest
    with np.load(file) as stored:
        said = example(LogoCap.from_pretrained(), name, int(stored['index']))
        assert set(said) == set(stored) - {'images', 'given_back', 'taken'}
        for part, now in said.items():
            assert stored[part].dtype == now.dtype and stored[part].shape == now.shape
            off = np.abs(stored[part].astype(np.float32) - now.astype(np.float32))
            if part in ('full', 'without'):  # where cells are equally high, rounding decides
                assert (off.max(-1) <= 1).mean() > 0.9, part
            else:
                assert off.max() <= 1e-2 * max(1, np.abs(now).max()), part


@pytest.mark.parametrize('red', ('index.ipynb', 'others', 'pytest', 'ruff', ''))
def test_a_red_part_stops_no_other(red, tmp_path):
    "`make test` with programs that only say what they were asked for, one of them red."
    (tmp_path / 'bin').mkdir()
    notebooks = 'case "$*" in *index.ipynb) part=index.ipynb;; *) part=others;; esac'
    parts = dict(nbdev_test=notebooks, python='part=pytest', ruff='part=ruff')
    for program, part in parts.items():
        file = tmp_path / 'bin' / program
        file.write_text(f'#!/bin/sh\n{part}\necho "ran $part"\ntest "$part" != "{red}"\n')
        file.chmod(0o755)
    (tmp_path / '.ready').touch()
    command = ['make', '-C', ROOT, 'test', f'VENV={tmp_path}']
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode == 0) == (not red)
    for part in ('index.ipynb', 'others', 'pytest', 'ruff'):
        assert f'ran {part}\n' in done.stdout
    parts = 'index.ipynb', 'others', 'pytest', 'ruff'
    colors = ['red' if red == part else 'green' for part in parts]
    said = 'make test: nbs/index.ipynb {}, the other notebooks {}, pytest {}, ruff {}\n'
    said = said.format(*colors)
    assert said in done.stdout


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.name)
def test_notebook_is_stored_executed(path):
    nb = nbformat.read(path, 4)
    nbformat.validate(nb)
    code = [c for c in nb.cells if c.cell_type == 'code']
    outputs = [o for c in code for o in c.outputs]
    assert not [o for o in outputs if o.output_type == 'error' or o.get('name') == 'stderr']
    shown = any({'image/png', 'image/jpeg'} & set(o.get('data', {})) for o in outputs)
    assert shown or path.name in WITHOUT_FIGURES
    assert not widget_views(nb)  # they would be dead
    assert path.stat().st_size < 1_000_000
    assert not any(c.metadata for c in nb.cells) and set(nb.metadata) <= {'kernelspec'}
    assert nb.cells[0].source.startswith('# ') and '\n> ' in nb.cells[0].source


def imported(
    module,  # prior.centernet, say
):
    "The modules of the package that a module imports, without the package's name."
    package = ['logocap', *module.split('.')[:-1]]
    for node in ast.walk(
        ast.parse((ROOT / 'logocap' / f'{module.replace(".", "/")}.py').read_text())
    ):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(
                [*package[: len(package) - node.level + 1], node.module or '']
                if node.level
                else [node.module]
            ).strip('.')
            # from . import coco
            names = [base] if node.module else [f'{base}.{alias.name}' for alias in node.names]
        else:
            continue
        yield from (n.removeprefix('logocap.') for n in names if n.startswith('logocap.'))


def part_of(
    path,  # of a notebook
):
    "The part of the house that a notebook belongs to, by its folder or its number."
    if path.parent.name != 'nbs':
        return path.parent.name
    return 'method' if int(path.name[:2]) < 10 else 'use'


MAY_IMPORT = dict(
    method={'method'},
    people={'method', 'use', 'people'},
    use={'method', 'use', 'people'},
    prior={'method', 'use', 'people', 'prior'},
    lab={'method', 'use', 'people', 'prior', 'lab'},
)


def test_imports_go_one_way():
    "From the wings into the front and never back; nothing imports the lab; no circles."
    parts = {}
    for path in ROOMS:
        found = (
            re.search(r'#\| *default_exp ([\w.]+)', c.source) for c in nbformat.read(path, 4).cells
        )
        module = next((m[1] for m in found if m), None)
        if module:
            parts[module] = part_of(path)
    imports = {module: set(imported(module)) for module in parts}
    assert {'coco', 'people', 'losses'} <= imports['training']  # the test sees them
    for package in ('people', 'prior'):  # importing one of these imports its modules
        parts[package] = package
        imports[package] = {module for module in imports if module.startswith(f'{package}.')}
    for module, others in imports.items():
        for other in others:
            assert parts[other] in MAY_IMPORT[parts[module]], f'{module} imports {other}'
    modules = {
        p.relative_to(ROOT / 'logocap').with_suffix('')
        for p in (ROOT / 'logocap').rglob('[!_]*.py')
    }
    assert {'.'.join(m.parts) for m in modules} == set(parts) - {'people', 'prior'}

    left = dict(imports)
    while left:
        free = [module for module, others in left.items() if not others & set(left)]
        assert free, f'these import each other in a circle: {sorted(left)}'
        for module in free:
            del left[module]


def test_public_names_are_documented():
    for path in (ROOT / 'logocap').rglob('[!_]*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, (ast.FunctionDef, ast.ClassDef))
                and not node.name.startswith('_')
                and node.col_offset == 0
            ):
                assert ast.get_docstring(node), f'{path.name}: {node.name} has no docstring'
