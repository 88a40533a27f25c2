"""Privacy mechanisms, what they cost, and the ledger of what was released."""
