"""Images to train on, each kind of source in a file of its own."""

from .opening import open_source as open_source
from .source import Source as Source
