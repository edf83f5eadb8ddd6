"Sphinx's configuration; `build.py` writes the pages that it reads."

import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))
settings = ConfigParser(delimiters=['='])
settings.read(ROOT / 'settings.ini', encoding='utf-8')
cfg = settings['DEFAULT']

project, author, copyright = cfg['title'], cfg['author'], cfg['copyright']
release = cfg['version']
extensions = ['myst_nb', 'mathml']
html_math_renderer = 'mathml'
nb_execution_mode = 'off'
# widgets need a kernel and are left out; what moves here was rendered beforehand
nb_ipywidgets_js = {}
nb_merge_streams = True
nb_render_markdown_format = 'myst'  # tables, which plain CommonMark has not
myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence', 'attrs_block', 'attrs_inline']
myst_heading_anchors = 4
myst_heading_slug_func = 'build.slug'

html_theme = 'sphinx_book_theme'
html_title = cfg['title']
html_baseurl = cfg['doc_host'] + cfg['doc_baseurl'] + '/'
html_static_path = [str(Path(__file__).resolve().parent / '_static')]
html_css_files, html_js_files = ['site.css'], ['site.js']
html_search_scorer = str(Path(__file__).resolve().parent / 'scorer.js')
html_favicon = str(Path(__file__).resolve().parent / '_static/star.svg')
html_logo = html_favicon
html_use_index = False
html_copy_source = html_show_sourcelink = False
html_context = dict(default_mode='auto')
html_theme_options = dict(
    repository_url=cfg['git_url'],
    use_repository_button=True,
    use_download_button=False,
    use_fullscreen_button=False,
    navbar_persistent=[],
    show_navbar_depth=1,
    show_toc_level=2,
    home_page_in_toc=True,
    logo=dict(text=cfg['title'], alt_text=''),
    pygments_light_style='a11y-high-contrast-light',
    pygments_dark_style='a11y-high-contrast-dark',
)
