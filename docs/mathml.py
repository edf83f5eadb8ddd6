"""Sphinx extension: LaTeX becomes MathML while building, with the one font that it is set in.

So equations need neither script nor network.
"""

import re
from pathlib import Path
from docutils import nodes
from latex2mathml.converter import convert

# Latin, Greek, operators and arrows, mathematical letters
GLYPHS = [
    range(0x20, 0x400),
    range(0x2000, 0x2C00),
    range(0x1D400, 0x1D800),
]


def mathml(
    latex: str,  # a formula without its dollars
    block: bool = False,  # displayed, on a line of its own
) -> str:  # a <math> element
    "A formula as MathML; raises ValueError naming a command that the converter does not know."
    text = convert(latex, display='block' if block else 'inline')
    if unknown := re.search(r'>\s*(\\[A-Za-z]+)', text):
        raise ValueError(f'{latex}: no MathML for {unknown[1]}')
    # Browsers know no relative widths of padding:
    # a long arrow, where it does not stretch over its labels, is long enough
    padded = r'<mpadded [^>]*>(.*?)<mspace depth="[^"]*" /></mpadded>'
    spaced = r'<mrow><mspace width=".5em"/>\1<mspace width=".5em"/></mrow>'
    text = re.sub(padded, spaced, text)
    arrow = '<mstyle scriptlevel="0"><mo>&#x2192;</mo></mstyle>'
    return text.replace(arrow, '<mo stretchy="true">&#x27F6;</mo>')


def visit_math(self, node):
    self.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def visit_math_block(self, node):
    latex = node.astext()
    tag = re.search(r'\\tag\{(.*?)\}', latex)
    number = ''
    if tag:
        latex = latex.replace(tag[0], '')
        number = f'<span class="eqno">({tag[1]})</span>'
    self.body.append(self.starttag(node, 'div', CLASS='equation'))
    self.body.append(f'<div class="scroll">{mathml(latex, True)}</div>{number}</div>')
    raise nodes.SkipNode


def write_font(app, error):
    "STIX Two Math (SIL Open Font License), as ziamath ships it, cut down to what formulas use."
    if error:
        return
    import ziamath
    from fontTools import subset

    options = subset.Options(flavor='woff', layout_features=['*'], notdef_outline=True)
    file = Path(ziamath.__file__).parent / 'fonts/STIXTwoMath-Regular.ttf'
    font = subset.load_font(file, options)
    cut = subset.Subsetter(options)
    cut.populate(unicodes=[c for r in GLYPHS for c in r])
    cut.subset(font)
    subset.save_font(font, Path(app.outdir) / '_static/stix-two-math.woff', options)


def setup(app):
    app.add_html_math_renderer('mathml', (visit_math, None), (visit_math_block, None))
    app.connect('build-finished', write_font)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
