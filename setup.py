"Packaging: everything is read from settings.ini, which nbdev reads too."
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

config = ConfigParser(delimiters=['='])
config.read('settings.ini', encoding='utf-8')
cfg = config['DEFAULT']
name = cfg['lib_name']
extras = ('dev', 'docs', 'export', 'video')


def long_description():
    "README.md, its links and pictures found from wherever it is shown."
    text = Path('README.md').read_text(encoding='utf-8')
    repository, branch = cfg['git_url'], cfg['branch']
    text = re.sub(r'(!\[[^]]*\]\()(?!\w+:|#)', rf'\1{repository}/raw/{branch}/', text)
    return re.sub(r'((?<!!)\[[^]]*\]\()(?!\w+:|#)', rf'\1{repository}/blob/{branch}/', text)


setup(
    name=name,
    version=cfg['version'],
    description=cfg['description'],
    long_description=long_description(),
    long_description_content_type='text/markdown',
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords=cfg['keywords'].split(),
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Natural Language :: English',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    py_modules=['logocap_commands'],
    packages=[*find_packages(include=[name, f'{name}.*']), f'{name}.data'],
    package_dir={f'{name}.data': 'data'},
    # what travels: the default network, the paper's tables and one record of times
    package_data={
        name: ['weights/people-11.safetensors'],
        f'{name}.data': ['paper_tables.json', 'speed.json'],
    },
    python_requires=f'>={cfg["min_python"]}',
    install_requires=cfg['requirements'].split(),
    extras_require={part: cfg[f'{part}_requirements'].split() for part in extras},
    entry_points=dict(
        console_scripts=cfg['console_scripts'].split(),
        nbdev=[f'{name}={name}._modidx:d'],
    ),
    zip_safe=False,
)
