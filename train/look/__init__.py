"""Looking at a trained network: where its maps point, in pictures and in numbers.

`maps` holds the protocol: whatever an attention block records, under ``weights`` or ``gate``, becomes a map over
places. From there on nothing knows which block it was. `localise` scores the maps, `picture` draws them.
"""

from .ending import finish as finish
from .load import TrainedRun as TrainedRun
from .load import load_run as load_run
from .localise import localise as localise
from .maps import detector_maps as detector_maps
from .observe import Observed as Observed
from .observe import observe as observe
from .places import fixed_patches as fixed_patches
from .scores import Localisation as Localisation
