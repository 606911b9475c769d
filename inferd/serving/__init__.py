"""Requests of text and vectors, admitted, generated and settled: engine and ledger meet here."""
