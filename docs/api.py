"""An API page for each module, made from its source.

It has the signatures, tables of parameters from the comments beside them, and the source itself.
"""

import ast
import io
import re
import tokenize
from pathlib import Path


def comments(
    source: str,  # of a module
) -> dict:  # line number → comment
    "The comments of a module by line, without their number sign."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip('# ').strip() for t in tokens if t.type == tokenize.COMMENT}


def public(node):
    return isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith('_')


def constants(
    tree: ast.Module,  # a parsed module
) -> list:  # the assignments to names in capitals
    "The module's constants."
    found = []
    for node in tree.body:
        if not isinstance(node, ast.Assign):
            continue
        if all(re.fullmatch(r'[A-Z][A-Z0-9_]*', name) for name in assigned(node)):
            found.append(node)
    return found


def assigned(node):
    return [name.strip() for name in ast.unparse(node.targets[0]).strip('()').split(',')]


def names(
    file: Path,  # of a module
) -> list:  # every public name, methods as Class.method
    "What a module offers."
    tree = ast.parse(file.read_text(encoding='utf-8'))
    found = [name for n in constants(tree) for name in assigned(n)]
    for node in filter(public, tree.body):
        found.append(node.name)
        if isinstance(node, ast.ClassDef):
            found += [f'{node.name}.{m.name}' for m in filter(public, node.body)]
    return found


def arguments(
    a: ast.arguments,  # of a function
) -> list:  # (stars, argument, default or None), without self
    "A function's arguments in their order."
    plain = a.posonlyargs + a.args
    defaults = [None] * (len(plain) - len(a.defaults)) + a.defaults
    found = [('', x, d) for x, d in zip(plain, defaults)]
    if a.vararg:
        found.append(('*', a.vararg, None))
    found += [('', x, d) for x, d in zip(a.kwonlyargs, a.kw_defaults)]
    if a.kwarg:
        found.append(('**', a.kwarg, None))
    return [f for f in found if f[1].arg not in ('self', 'cls')]


def code(node):
    "An expression in backticks; nothing where there is none."
    return f'`{ast.unparse(node)}`' if node else ''


def parameters(
    func: ast.FunctionDef,  # a function or method
    notes: dict,  # line number → comment
) -> list:  # rows: name, type, default, what the comment beside it says
    "The rows of a function's table, the last one for what it returns."
    args = arguments(func.args)
    # a header of one line says nothing of its parts
    parts = notes if func.body[0].lineno > func.lineno + 1 else {}
    rows = []
    for stars, x, default in args:
        note = parts.get(x.end_lineno, '')
        rows.append((f'`{stars}{x.arg}`', code(x.annotation), code(default), note))
    last = max([func.lineno - 1, *(x.end_lineno for _, x, _ in args)])
    end = next((n for n in range(last + 1, func.body[0].lineno) if n in notes), 0)
    if func.returns or parts.get(end):
        rows.append(('returns', code(func.returns), '', notes.get(end, '')))
    return rows


def table(
    rows: list,  # lists of cells
) -> str:  # Markdown
    "The table of a function's parameters."
    if not rows:
        return ''
    text = ''
    for line in [('parameter', 'type', 'default', 'what it is'), ('---',) * 4, *rows]:
        text += '| ' + ' | '.join(cell.replace('|', '\\|') for cell in line) + ' |\n'
    return text + '\n'


def signature(
    name: str,  # of the function
    args: ast.arguments,  # its parameters
    returns: str = '',  # what follows: ' -> ', and the annotation
) -> str:  # name(…), a line a parameter where one line would be long
    "A function as it is called."
    parts = []
    for stars, x, default in arguments(args):
        given = f' = {ast.unparse(default)}' if default else ''
        shown = ast.unparse(x)
        if len(shown) > 90:  # an annotation with words for the help of a command
            shown = f'{x.arg}: {ast.unparse(x.annotation.func)}(...)'
        parts.append(f'{stars}{shown}{given}')
    line = f'{name}({", ".join(parts)}){returns}'
    if len(line) <= 100:
        return line
    return f'{name}(\n    ' + ',\n    '.join(parts) + f',\n){returns}'


def initializer(
    node: ast.ClassDef,  # a class
):
    "The `__init__` of a class, or None."
    for n in node.body:
        if isinstance(n, ast.FunctionDef) and n.name == '__init__':
            return n


def entry(
    node,  # a function, method or class
    source: str,  # of its module
    notes: dict,  # line number → comment
    inside: str = '',  # name of its class
) -> str:  # Markdown
    "A name's part of the page; a class is followed by its methods."
    name = f'{inside}.{node.name}' if inside else node.name
    text = ('#' * (3 if inside else 2)) + f' {name}\n\n'
    init = node
    if isinstance(node, ast.ClassDef):
        init = initializer(node)
        bases = ', '.join(map(ast.unparse, node.bases))
        header = f'{node.name}({bases})' if bases else node.name
        text += f'```python\nclass {header}\n```\n\n'
    if init:
        returns = f' -> {ast.unparse(init.returns)}' if init.returns else ''
        text += f'```python\n{signature(name, init.args, returns)}\n```\n\n'
    text += (ast.get_docstring(node) or '') + '\n\n'
    if init:
        text += table(parameters(init, notes))
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    lines = '\n'.join(source.splitlines()[first - 1 : node.end_lineno])
    if inside:
        return text  # a method's source is in its class's
    text += f'<details><summary>Source of <code>{name}</code></summary>\n\n'
    text += f'```python\n{lines}\n```\n\n</details>\n\n'
    if isinstance(node, ast.ClassDef):
        text += ''.join(entry(m, source, notes, node.name) for m in filter(public, node.body))
    return text


def module_page(
    file: Path,  # of the module
    notebook: str,  # the notebook that it is made from
    url: str,  # of that notebook
) -> str:  # Markdown
    "The page of a module."
    source = file.read_text(encoding='utf-8')
    tree, notes = ast.parse(source), comments(source)
    root = Path(__file__).resolve().parent.parent
    dotted = '.'.join(file.relative_to(root).with_suffix('').parts)
    text = f'# {dotted}\n\n{ast.get_docstring(tree) or ""}\n\n'
    text += f'Made from the notebook [{notebook}](../{notebook}.ipynb), '
    text += f'which explains it ([source]({url})).\n\n'
    if found := constants(tree):
        text += '## Constants\n\n'
    for node in found:
        text += ''.join(f'### {name}\n\n' for name in assigned(node))
        lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
        text += '```python\n' + '\n'.join(lines) + '\n```\n\n'
    return text + ''.join(entry(n, source, notes) for n in tree.body if public(n))
