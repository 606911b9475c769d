"""Responses that are stored: their sealed files, their runs, and conversations that continue them."""
