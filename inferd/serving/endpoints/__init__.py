"""Endpoints, shared by live requests and batch lines."""
