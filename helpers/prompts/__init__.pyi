"""The public names of `helpers.prompts`."""

from .answers import readout_ids as readout_ids
from .fit import FittedTask as FittedTask
from .fit import fit_task as fit_task
from .initials import acronyms as acronyms
from .ioi import abc_prompt as abc_prompt
from .ioi import abc_prompts as abc_prompts
from .ioi import ioi_prompt as ioi_prompt
from .ioi import ioi_prompts as ioi_prompts
from .ioi import minimal_pairs as minimal_pairs
from .prompt import Prompt as Prompt
from .reading import read_prompts as read_prompts
from .tasks import TASKS as TASKS
from .tasks import agreement as agreement
from .tasks import greater_than as greater_than
from .tasks import ioi_pairs as ioi_pairs
from .tasks import ownership as ownership
from .tasks import repeated_lists as repeated_lists
from .tokens import TokenizedPrompt as TokenizedPrompt
from .tokens import tokenize as tokenize
