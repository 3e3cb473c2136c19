"""Makes the `killing` decoders importable, as a user's own modules are."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
