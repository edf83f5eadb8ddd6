"An API page a module, read off the source: signatures, tables of parameters from the comments beside them, the source itself."
import ast
import io
import re
import tokenize
from pathlib import Path


def comments(
    source:str, # of a module
) -> dict: # line number → comment
    "The comments of a module by line, without their number sign."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip('# ').strip() for t in tokens if t.type == tokenize.COMMENT}


def public(node): return isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith('_')


def constants(
    tree:ast.Module, # a parsed module
) -> list: # the assignments to names in capitals
    "The module's constants."
    return [n for n in tree.body if isinstance(n, ast.Assign) and all(re.fullmatch(r'[A-Z][A-Z0-9_]*', name) for name in assigned(n))]


def assigned(node): return [name.strip() for name in ast.unparse(node.targets[0]).strip('()').split(',')]


def names(
    file:Path, # of a module
) -> list: # every public name, methods as Class.method
    "What a module offers."
    tree = ast.parse(file.read_text(encoding='utf-8'))
    found = [name for n in constants(tree) for name in assigned(n)]
    for node in filter(public, tree.body):
        found.append(node.name)
        if isinstance(node, ast.ClassDef): found += [f'{node.name}.{m.name}' for m in filter(public, node.body)]
    return found


def arguments(
    a:ast.arguments, # of a function
) -> list: # (stars, argument, default or None), without self
    "A function's arguments in their order."
    plain = a.posonlyargs + a.args
    found = [('', x, d) for x, d in zip(plain, [None] * (len(plain) - len(a.defaults)) + a.defaults)]
    found += [('*', a.vararg, None)] * bool(a.vararg) + [('', x, d) for x, d in zip(a.kwonlyargs, a.kw_defaults)] + [('**', a.kwarg, None)] * bool(a.kwarg)
    return [f for f in found if f[1].arg not in ('self', 'cls')]


def parameters(
    func:ast.FunctionDef, # a function or method
    notes:dict, # line number → comment
) -> list: # rows: name, type, default, what the comment beside it says
    "The rows of a function's table, the last one for what it returns."
    args = arguments(func.args)
    code = lambda node: f'`{ast.unparse(node)}`' if node else ''
    note = lambda line: notes.get(line, '') if func.body[0].lineno > func.lineno + 1 else ''  # a header of one line says nothing of its parts
    rows = [(f'`{stars}{x.arg}`', code(x.annotation), code(default), note(x.end_lineno)) for stars, x, default in args]
    last = max([func.lineno - 1, *(x.end_lineno for _, x, _ in args)])
    end = next((n for n in range(last + 1, func.body[0].lineno) if n in notes), 0)
    if func.returns or note(end): rows.append(('returns', code(func.returns), '', notes.get(end, '')))
    return rows


def table(
    rows:list, # lists of cells
) -> str: # Markdown
    "The table of a function's parameters."
    if not rows: return ''
    lines = [('parameter', 'type', 'default', 'what it is'), ('---',) * 4, *rows]
    return '\n'.join('| ' + ' | '.join(c.replace('|', '\\|') for c in line) + ' |' for line in lines) + '\n\n'


def signature(
    name:str, # of the function
    args:ast.arguments, # its parameters
) -> str: # name(…), a line a parameter where one line would be long
    "A function as it is called."
    parts = [f'{stars}{ast.unparse(x)}' + (f' = {ast.unparse(default)}' if default else '') for stars, x, default in arguments(args)]
    line = f'{name}({", ".join(parts)})'
    return line if len(line) < 90 else f'{name}(\n    ' + ',\n    '.join(parts) + ',\n)'


def entry(
    node, # a function, method or class
    source:str, # of its module
    notes:dict, # line number → comment
    inside:str='', # name of its class
) -> str: # Markdown
    "A name's part of the page; a class is followed by its methods."
    name = f'{inside}.{node.name}' if inside else node.name
    text = ('#' * (3 if inside else 2)) + f' {name}\n\n'
    init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == '__init__'), None) if isinstance(node, ast.ClassDef) else node
    if isinstance(node, ast.ClassDef): text += f'```python\nclass {node.name}({", ".join(map(ast.unparse, node.bases))})\n```\n\n'.replace('()', '')
    if init:
        returns = f' -> {ast.unparse(init.returns)}' if init.returns else ''
        text += f'```python\n{signature(name, init.args)}{returns}\n```\n\n'
    text += (ast.get_docstring(node) or '') + '\n\n'
    if init: text += table(parameters(init, notes))
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    code = '\n'.join(source.splitlines()[first - 1:node.end_lineno])
    if inside: return text  # a method's source is in its class's
    text += f'<details><summary>Source of <code>{name}</code></summary>\n\n```python\n{code}\n```\n\n</details>\n\n'
    if isinstance(node, ast.ClassDef): text += ''.join(entry(m, source, notes, node.name) for m in filter(public, node.body))
    return text


def module_page(
    file:Path, # of the module
    notebook:str, # the notebook that it is made from
    url:str, # of that notebook
) -> str: # Markdown
    "The page of a module."
    source = file.read_text(encoding='utf-8')
    tree, notes = ast.parse(source), comments(source)
    dotted = '.'.join(file.relative_to(Path(__file__).resolve().parent.parent).with_suffix('').parts)
    text = f'# {dotted}\n\n{ast.get_docstring(tree) or ""}\n\nMade from the notebook [{notebook}](../{notebook}.ipynb), which explains it ([source]({url})).\n\n'
    if found := constants(tree): text += '## Constants\n\n'
    for node in found:
        code = '\n'.join(source.splitlines()[node.lineno - 1:node.end_lineno])
        text += ''.join(f'### {name}\n\n' for name in assigned(node)) + f'```python\n{code}\n```\n\n'
    return text + ''.join(entry(n, source, notes) for n in tree.body if public(n))
