"""JSON schemas of callers, reduced to the keywords that llguidance can enforce."""
