"Sphinx extension: LaTeX to MathML while building, and the one font that it is set in, so that equations need neither script nor network."
import re
from pathlib import Path
from docutils import nodes
from latex2mathml.converter import convert

GLYPHS = [range(0x20, 0x400), range(0x2000, 0x2C00), range(0x1D400, 0x1D800)]  # Latin, Greek, operators and arrows, mathematical letters


def mathml(
    latex:str, # a formula without its dollars
    block:bool=False, # displayed, on a line of its own
) -> str: # a <math> element
    "A formula as MathML; raises ValueError naming a command that the converter does not know."
    text = convert(latex, display='block' if block else 'inline')
    if unknown := re.search(r'>\s*(\\[A-Za-z]+)', text): raise ValueError(f'{latex}: no MathML for {unknown[1]}')
    # Browsers know no relative widths of padding: a long arrow, where it does not stretch over its labels, is long enough
    text = re.sub(r'<mpadded [^>]*>(.*?)<mspace depth="[^"]*" /></mpadded>', r'<mrow><mspace width=".5em"/>\1<mspace width=".5em"/></mrow>', text)
    text = re.sub(r'<mstyle scriptlevel="0"><mo>&#x2192;</mo></mstyle>', r'<mo stretchy="true">&#x27F6;</mo>', text)
    return re.sub(r'(<mtext>.*?</mtext>)', lambda m: m[1].replace(' ', ' '), text)


def visit_math(self, node):
    self.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def visit_math_block(self, node):
    latex = node.astext()
    tag = re.search(r'\\tag\{(.*?)\}', latex)
    number = f'<span class="eqno">({tag[1]})</span>' if tag else ''
    self.body.append(self.starttag(node, 'div', CLASS='equation') + f'<div class="scroll">{mathml(latex.replace(tag[0], "") if tag else latex, True)}</div>{number}</div>')
    raise nodes.SkipNode


def write_font(app, error):
    "STIX Two Math (SIL Open Font License), as ziamath ships it, cut down to what formulas use."
    if error: return
    import ziamath
    from fontTools import subset
    options = subset.Options(flavor='woff', layout_features=['*'], notdef_outline=True)
    font = subset.load_font(Path(ziamath.__file__).parent/'fonts/STIXTwoMath-Regular.ttf', options)
    cut = subset.Subsetter(options)
    cut.populate(unicodes=[c for r in GLYPHS for c in r])
    cut.subset(font)
    subset.save_font(font, Path(app.outdir)/'_static/stix-two-math.woff', options)


def setup(app):
    app.add_html_math_renderer('mathml', (visit_math, None), (visit_math_block, None))
    app.connect('build-finished', write_font)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
