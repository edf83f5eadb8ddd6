"""The results in data/weights/README.md: `python tests/card.py [FOLDER]` puts in the tables of
`make tables` (default: tables/), each between its two marks."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CARD = ROOT / 'data/weights/README.md'


def with_results(card, tables):
    "The text of the card with the tables of a folder; where a table is missing, as it was."

    def filled(mark):
        file = tables / f'{mark[1]}.md'
        if not file.is_file():
            print(f'{file}: not there, the card keeps what it says', file=sys.stderr)
            return mark[0]
        made = file.read_text(encoding='utf-8').partition('How it was made:')[0]
        body = made.partition('\n')[2].strip()  # without its title
        return f'<!-- {mark[1]} -->\n\n{body}\n\n<!-- end -->'

    return re.sub(r'<!-- ([\w/]+) -->\n.*?<!-- end -->', filled, card, flags=re.S)


if __name__ == '__main__':
    tables = Path(sys.argv[1] if len(sys.argv) > 1 else 'tables')
    text = with_results(CARD.read_text(encoding='utf-8'), tables)
    CARD.write_text(text, encoding='utf-8')
