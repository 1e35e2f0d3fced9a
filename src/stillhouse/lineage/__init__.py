"""The record of where a student came from, and the ledger's rules."""
