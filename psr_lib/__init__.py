"""psr_lib: the library behind the Process-based Self-Rewarding notebooks (arXiv 2503.03746)."""

__version__ = "0.1.0"
