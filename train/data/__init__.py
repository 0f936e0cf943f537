"""Images to train on, each kind of source in a file of its own."""

from .source import Source as Source
from .source import open_source as open_source
