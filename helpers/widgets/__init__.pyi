"""The public names of `helpers.widgets`."""

from . import checker as checker
from . import examples as examples
from . import playground as playground
from .app import Playground as Playground
from .export import as_code as as_code
from .inputs import Inputs as Inputs
from .inputs import prompts_of as prompts_of
from .knob import HeadKnob as HeadKnob
from .knob import shipped_turn as shipped_turn
from .playground import at_token as at_token
