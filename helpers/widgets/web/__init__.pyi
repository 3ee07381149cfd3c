"""The public names of `helpers.widgets.web`."""

from .buttons import CopyButton as CopyButton
from .buttons import Download as Download
from .grid import HeadGrid as HeadGrid
from .grid import role_marks as role_marks
from .matrix import AttentionMatrix as AttentionMatrix
from .page import static_page as static_page
from .plane import PlaneDots as PlaneDots
from .ranked import RankedHeads as RankedHeads
from .strips import TokenStrips as TokenStrips
