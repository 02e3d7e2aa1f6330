"""The MLflow REST API over the ledger: what the unmodified client calls, with the messages and codes it goes by."""
