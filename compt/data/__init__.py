"""Images with captions and labels, text and tokens, by sources that a config names.

``dict(type='icons')`` and ``dict(type='stdlib')`` need no download; ``dict(type='csv',
train='a.csv', val='b.csv')``, ``dict(type='webdataset', train='a-{000..099}.tar', val='b.tar')``,
``dict(type='folder', train='a', val='b')`` and ``dict(type='jsonl', train='a/*.jsonl')`` name a
file, pattern or folder for each split, beside the options of the source's class.

Built-in sources are plug-ins like any other: :class:`compt.DataSource` says what one must do. A
paradigm asks with :func:`build_source` for what samples must hold, and opens splits.

May import: registry, interfaces, files and below.
"""

from compt.data.file_source import FileSource
from compt.data.images.decode import BrokenSample
from compt.data.images.labels import renumber
from compt.data.opening import build_source, open_source, open_text, splits

__all__ = [
    "BrokenSample",
    "FileSource",
    "build_source",
    "open_source",
    "open_text",
    "renumber",
    "splits",
]
