"""How the ledger's schema came about, step by step; Alembic applies what a database lacks at every start."""
