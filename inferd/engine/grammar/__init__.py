"""Grammars that constrain sampling: compilation and token masks."""
