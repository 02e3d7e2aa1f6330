"""Where things are kept: the ledger of facts, blobs, tables and logs, and the clock."""
