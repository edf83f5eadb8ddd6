"README.md from nbs/index.ipynb: `python tests/readme.py` writes it, test_project.py compares."

import re
from pathlib import Path
import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
IMAGES = Path('nbs/images')


def as_markdown(output):
    "Printed text as Markdown that is shown."
    if output.output_type != 'stream':
        return output
    return nbformat.v4.new_output('display_data', {'text/markdown': output.text})


def readme():
    "The text of README.md and its pictures, {path from the root: bytes}, as stored in index.ipynb."
    nb = nbformat.read(ROOT / 'nbs/index.ipynb', 4)
    for cell in nb.cells:
        cell.metadata.tags = ['remove_input'] if '#| echo: false' in cell.source else []
        for output in cell.get(
            'outputs', []
        ):  # GitHub shows the picture; its text stand-in would be one more line
            if 'image/png' in output.get('data', {}):
                output.data = {'image/png': output.data['image/png']}
        if '#| echo: false' in cell.source:  # what is printed there is Markdown
            cell.outputs = [as_markdown(output) for output in cell.outputs]
    config = Config(TagRemovePreprocessor=dict(enabled=True, remove_input_tags={'remove_input'}))
    text, resources = MarkdownExporter(config=config).from_notebook_node(
        nb, {'unique_key': 'index'}
    )
    pictures = {(IMAGES / name).as_posix(): data for name, data in resources['outputs'].items()}
    for path in pictures:
        number = int(Path(path).stem.split('_')[1])
        words = re.search(r'#\| fig-alt: (.*)', nb.cells[number].source)[1]
        text = text.replace(f'![png]({Path(path).name})', f'![{words}]({path})')
    text = re.sub(r'\n\s*\n\s*\n', '\n\n', text)  # what the exporter leaves around outputs
    return re.sub(r'\]\(([\w/]+\.ipynb)\)', r'](nbs/\1)', text).strip() + '\n', pictures


if __name__ == '__main__':
    text, pictures = readme()
    (ROOT / 'README.md').write_text(text, encoding='utf-8')
    (ROOT / IMAGES).mkdir(exist_ok=True)
    for old in (ROOT / IMAGES).glob('index_*.png'):
        old.unlink()
    for path, data in pictures.items():
        (ROOT / path).write_bytes(data)
