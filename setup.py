"Packaging: everything is read from settings.ini, which nbdev reads too."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

config = ConfigParser(delimiters=['='])
config.read('settings.ini', encoding='utf-8')
cfg = config['DEFAULT']

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords=cfg['keywords'].split(),
    classifiers=['Development Status :: 3 - Alpha', 'Intended Audience :: Science/Research', 'Natural Language :: English',
                 'Programming Language :: Python :: 3', 'Topic :: Scientific/Engineering :: Image Recognition'],
    packages=[*find_packages(include=[cfg['lib_name'], f'{cfg["lib_name"]}.*']), f'{cfg["lib_name"]}.data'],
    package_dir={f'{cfg["lib_name"]}.data': 'data'},  # of the data only the paper's tables and one record of times travel in a wheel
    package_data={cfg['lib_name']: ['weights/*'], f'{cfg["lib_name"]}.data': ['paper_tables.json', 'speed.json']},
    python_requires=f'>={cfg["min_python"]}',
    install_requires=cfg['requirements'].split(),
    extras_require={extra: cfg[f'{extra}_requirements'].split() for extra in ('dev', 'docs', 'export')},
    entry_points=dict(console_scripts=cfg['console_scripts'].split(), nbdev=[f'{cfg["lib_name"]}={cfg["lib_name"]}._modidx:d']),
    zip_safe=False,
)
