"""The only importer of MLflow: runs, the registry, the ledger's storage."""
