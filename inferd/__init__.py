"""inferd: a workstation with GGUF models as an inference provider."""

__version__ = "0.1.0"
