"""psr_lib: the library behind the Process-based Self-Rewarding notebooks (arXiv 2503.03746)."""

import warnings

__version__ = "0.1.0"

# tqdm asks for notebook widgets, which nothing here uses; the note would stand in every notebook.
warnings.filterwarnings("ignore", message="IProgress not found")
