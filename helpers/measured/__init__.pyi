"""The public names of `helpers.measured`."""

from .knob import MeasuredKnob as MeasuredKnob
from .knob import measured_knob as measured_knob
from .knob_text import demo_documents as demo_documents
from .knob_text import ids_of as ids_of
from .knob_text import long_stretches as long_stretches
from .knob_text import short_stretches as short_stretches
from .protocol import NAMED as NAMED
from .protocol import verdicts as verdicts
from .shipped import head_scores as head_scores
from .shipped import measured_tasks as measured_tasks
from .shipped import ranked_scores as ranked_scores
from .shipped import shipped_record as shipped_record
from .shipped import shipped_roles as shipped_roles
from .verdict import BOTH as BOTH
from .verdict import EARLY as EARLY
from .verdict import LATE as LATE
from .verdict import RECOMMENDATION as RECOMMENDATION
from .verdict import STORY_STEPS as STORY_STEPS
from .verdict import all_rankings as all_rankings
from .verdict import bill as bill
from .verdict import kind_of as kind_of
from .verdict import step_gains as step_gains
from .verdict import step_table as step_table
from .verdict import toy_against_real as toy_against_real
from .verdict import verdict_table as verdict_table
from .verdict import within_on_both as within_on_both
