"""Widgets of a kernel that is gone say only that they are gone.

`python tests/widgets.py` takes them out of the stored notebooks.
"""

from pathlib import Path
import nbformat

VIEW = 'application/vnd.jupyter.widget-view+json'


def widget_views(nb):
    "(outputs of a cell, one of them that is a widget) for every widget of a notebook."
    found = []
    for cell in nb.cells:
        for output in cell.get('outputs', []):
            if VIEW in output.get('data', {}):
                found.append((cell.outputs, output))
    return found


if __name__ == '__main__':
    for path in sorted((Path(__file__).resolve().parent.parent / 'nbs').rglob('*.ipynb')):
        nb = nbformat.read(path, 4)
        if views := widget_views(nb):
            for outputs, output in views:
                outputs.remove(output)
            nbformat.write(nb, path)
