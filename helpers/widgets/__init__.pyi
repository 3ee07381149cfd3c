"""The public names of `helpers.widgets`."""

from . import checker as checker
from . import playground as playground
from .app import Playground as Playground
from .export import as_code as as_code
from .playground import at_token as at_token
