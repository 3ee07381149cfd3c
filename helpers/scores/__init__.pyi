"""The public names of `helpers.scores`."""

from .catalogue import SCORES as SCORES
from .catalogue import Score as Score
from .catalogue import scan_positions as scan_positions
from .comparison import compare as compare
from .comparison import rank_scores as rank_scores
from .comparison import score_heads as score_heads
from .evidence import Evidence as Evidence
from .evidence import gather as gather
